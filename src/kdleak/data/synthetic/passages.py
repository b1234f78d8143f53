"""Contexts for the tasks that have one: a short note on a case that states some of its details."""

from __future__ import annotations

from collections.abc import Sequence

from kdleak.data.synthetic.case import Scene
from kdleak.data.synthetic.grammar import Phrases
from kdleak.data.synthetic.statements import clauses, join_sentences

#: Who deals with whom over what: names client, firm, mostly the contact too.
LEAD = Phrases(
    "@P {deals with|is dealing with|has turned to|went to|relies on} @F {over|about|because of} @M[, and @Q {answers|replies} there]",
    "@P, a(n) $client {of|at} @F, {asked|wrote to|called|met} @Q about @M",
    "@Q of @F {looks after|handles|manages|oversees} @M {of|for} @P",
    "@F {opened|keeps|holds} a file on @P and @M[, handled by @Q]",
    "@Q, $staff at @F, {spoke with|met|wrote to|saw} @P about @M",
    "for @P, @M {is|has been} in the hands of @Q at @F",
    "@M of @P is with @F, where @Q is the $staff",
    "at @F, @Q {works on|is in charge of|prepares} @M for @P",
)

_HEADING = Phrases(
    "{file|call|desk|case} note:", "{memo|note} {to|for} the {team|office|file}:", "{from the log|minutes}:", "", ""
)


def passage(scene: Scene, kinds: Sequence[str], remarks: int) -> str:
    """A note that names the people, states the details of `kinds` and makes `remarks` asides."""
    parts = [scene.say(LEAD), *clauses(scene, kinds)]
    for _ in range(remarks):
        parts.insert(scene.rng.randrange(1, len(parts) + 1), scene.say(scene.case.domain.remarks))
    heading = scene.sentence(_HEADING).rstrip(".")
    return f"{heading} {join_sentences(scene, parts)}".strip()
