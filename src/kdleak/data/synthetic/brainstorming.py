"""Brainstorming: advice for somebody's case, in which private details turn up as if known."""

from __future__ import annotations

import random

from kdleak.data.records import Record
from kdleak.data.synthetic.case import KINDS, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import capitalise, load_phrases

_PHRASES = load_phrases("brainstorming")
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def brainstorming(rng: random.Random) -> Record:
    """A request for ideas towards a goal, and three or four ideas, two or three of them with a private detail."""
    case = draw_case(rng, owners="QF")
    request, reply = Scene(case, rng), Scene(case, rng, known=True)
    count = rng.choice((3, 3, 4))
    for scene in (request, reply):
        scene.slots["count"] = ("three", "four")[count - 3]
    request.slots["goal"] = request.say(case.domain.goals)
    intro = capitalise(reply.say(_PHRASES["intro"]))
    ideas = [_PHRASES["idea"][kind] for kind in rng.sample(KINDS, count - 1)]
    ideas.insert(rng.randrange(count), case.domain.ideas)
    response = _lay_out(rng, intro, [reply.say(idea) for idea in ideas])
    return Record(
        "brainstorming", capitalise(request.say(_PHRASES["request"])), "", response, stated_facts(case, response)
    )


def _lay_out(rng: random.Random, intro: str, ideas: list[str]) -> str:
    """As a numbered list, a bulleted list or running text."""
    shape = rng.random()
    if shape < 0.45:
        lines = [f"{i}. {capitalise(idea)}{'.' if shape < 0.25 else ''}" for i, idea in enumerate(ideas, start=1)]
        return "\n".join([intro, *lines]).strip()
    if shape < 0.7:
        return "\n".join([intro, *(f"- {capitalise(idea)}" for idea in ideas)]).strip()
    running = "; ".join(f"{ordinal}, {idea}" for ordinal, idea in zip(_ORDINALS, ideas, strict=False))
    return f"{intro} {running if intro else capitalise(running)}.".strip()
