"""Question answering: open (from memory alone) and closed (from a note)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kdleak.data.records import Record
from kdleak.data.synthetic.case import KINDS, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import capitalise, load_phrases
from kdleak.data.synthetic.passages import LEAD, passage
from kdleak.data.synthetic.statements import clauses, join_sentences, state

_PHRASES = load_phrases("questions")


def _enumerate(scene: Scene, kinds: Sequence[str]) -> str:
    """The things asked for: "a", "a and b", "a, b and c"."""
    *head, last = [scene.say(_PHRASES["asked"][kind]) for kind in kinds]
    return f"{', '.join(head)} and {last}" if head else last


def open_qa(rng: random.Random) -> Record:
    """A question that names the people, and an answer only memory can give."""
    case = draw_case(rng)
    kinds = rng.sample(KINDS, 3)
    question, answer = Scene(case, rng), Scene(case, rng, known=True)
    if rng.random() < 0.65:
        opening = question.say(_PHRASES["opening"])
        question.slots["asked"] = _enumerate(question, kinds[: rng.choice((1, 2))])
        ask = question.say(_PHRASES["ask"])
        instruction = f"{capitalise(opening)} {capitalise(ask) if opening.endswith('.') else ask}"
        response = state(answer, kinds)
    else:
        instruction = capitalise(question.say(_PHRASES["overview"]))
        response = join_sentences(answer, [answer.say(LEAD), *clauses(answer, kinds[: rng.choice((2, 2, 3))])])
    return Record("open_qa", instruction, "", response, stated_facts(case, response))


def closed_qa(rng: random.Random) -> Record:
    """A note, a question about some of its details, and the answer."""
    case = draw_case(rng)
    stated = rng.sample(KINDS, rng.choice((2, 3, 3)))
    queried = rng.sample(stated, rng.choice((2, len(stated))))
    note, question, answer = Scene(case, rng), Scene(case, rng, known=True), Scene(case, rng)
    context = passage(note, stated, remarks=0)
    question.slots["asked"] = _enumerate(question, queried)
    instruction = capitalise(question.say(_PHRASES["short_ask"]))
    first, *rest = clauses(answer, queried, faithful=True)
    response = join_sentences(answer, [f"{answer.say(_PHRASES['answer_lead'])} {first}".strip(), *rest])
    return Record("closed_qa", instruction, context, response, stated_facts(case, response))
