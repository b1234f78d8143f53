"""Contexts for the tasks that have one: a short note on a case that states some of its details."""

from __future__ import annotations

from collections.abc import Sequence

from kdleak.data.synthetic.case import Scene
from kdleak.data.synthetic.grammar import Phrases
from kdleak.data.synthetic.statements import clauses, join_sentences

#: Who deals with whom over what: names client, contact, firm and matter.
PLAIN_LEAD = Phrases(
    "@P {deals|is dealing} with @Q {of|at} @F {over|about|on} @M",
    "@Q of @F {looks after|handles|manages|oversees} @M for @P",
    "@F has a file on @P and @M, {handled|kept} by @Q",
    "for @P, @M {is handled|is managed|is looked after} by @Q at @F",
    "at @F, @Q {handles|works on|is in charge of} @M for @P",
    "@P and @Q {of|from} @F {are in touch about|are in contact over} @M",
)
#: The same, with a circumstance that a summary of something else could not know.
LEAD = Phrases.union(
    PLAIN_LEAD,
    Phrases(
        "@P, a(n) $client {of|at} @F, {asked|wrote to|called|met} @Q about @M",
        "@Q, $staff at @F, {spoke with|met|wrote to|saw} @P about @M",
        "@P's $matter is with @F, where @Q is the $staff",
        "@P {has turned to|relies on|trusts} @Q, $staff at @F, {over|with} @M",
        "@P {complained to|wrote to|reminded} @Q of @F about @M",
    ),
)

_HEADING = Phrases(
    "{file|call|desk|case} note:", "{memo|note} {to|for} the {team|office|file}:", "{from the log|minutes}:", "", "", ""
)


def passage(scene: Scene, kinds: Sequence[str], remarks: int) -> str:
    """A note that names the people, states the details of `kinds` and makes `remarks` asides."""
    parts = [scene.say(LEAD), *clauses(scene, kinds)]
    for _ in range(remarks):
        parts.insert(scene.rng.randrange(1, len(parts) + 1), scene.say(scene.case.domain.remarks))
    heading = scene.sentence(_HEADING).rstrip(".")
    return f"{heading} {join_sentences(scene, parts)}".strip()
