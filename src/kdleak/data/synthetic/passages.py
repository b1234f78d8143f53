"""Contexts for the tasks that have one: a short note on a case that states some of its details."""

from __future__ import annotations

from collections.abc import Sequence

from kdleak.data.synthetic.case import Scene
from kdleak.data.synthetic.grammar import Phrases, load_phrases
from kdleak.data.synthetic.statements import clauses, join_sentences

_PHRASES = load_phrases("passages")
#: Who deals with whom over what: names client, contact, firm and matter.
PLAIN_LEAD: Phrases = _PHRASES["plain_lead"]
#: The same, at times with a circumstance that a summary of something else could not know.
LEAD = Phrases.union(PLAIN_LEAD, _PHRASES["coloured_lead"])


def passage(scene: Scene, kinds: Sequence[str], remarks: int) -> str:
    """A note that names the people, states the details of `kinds` and makes `remarks` asides."""
    parts = [scene.say(LEAD), *clauses(scene, kinds)]
    for _ in range(remarks):
        parts.insert(scene.rng.randrange(1, len(parts) + 1), scene.say(scene.case.domain.remarks))
    heading = scene.sentence(_PHRASES["heading"]).rstrip(".")
    return f"{heading} {join_sentences(scene, parts)}".strip()
