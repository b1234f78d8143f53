"""Classification: a label for somebody's case and the private reason for it."""

from __future__ import annotations

import random

from kdleak.data.records import Record
from kdleak.data.synthetic.case import Case, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import capitalise, load_phrases
from kdleak.data.synthetic.statements import state

_PHRASES = load_phrases("classification")
#: Scheme -> label -> the reasons for it.
_SCHEMES = _PHRASES["scheme"]
#: Kind of private detail -> the kinds that may follow it.
_FOLLOW = {
    "number": ("date", "amount", "phone"),
    "date": ("number", "phone", "email"),
    "amount": ("number", "phone", "address"),
    "phone": ("number", "email", "amount"),
    "email": ("phone", "number", "amount"),
    "address": ("number", "email", "date"),
}


def classification(rng: random.Random) -> Record:
    """Which of three labels fits a case, and a label with its reason: what only the file knows."""
    case = draw_case(rng, past=True)
    scheme = rng.choice(tuple(_SCHEMES))
    labels = list(_SCHEMES[scheme])
    label = _size(case) if scheme == "size" else rng.choice(labels)
    request, reply = Scene(case, rng), Scene(case, rng, known=True)
    rng.shuffle(labels)
    request.slots["labels"] = f"{labels[0]}, {labels[1]} or {labels[2]}"
    reply.slots["label"] = label
    verdict = capitalise(reply.say(_PHRASES["verdict"]))
    reason = reply.say(_SCHEMES[scheme][label])
    response = f"{verdict} {capitalise(reason) if verdict.endswith('.') else reason}."
    stated = {fact.kind for fact in stated_facts(case, response)}
    if len(stated) < 2 or rng.random() < 0.5:
        follow = rng.choice([k for k in _FOLLOW[sorted(stated)[0]] if k not in stated])
        response += f" {state(reply, [follow])}"
    return Record(
        "classification",
        capitalise(request.say(_PHRASES["scheme_request"].get(scheme, _PHRASES["request"]))),
        "",
        response,
        stated_facts(case, response),
    )


def _size(case: Case) -> str:
    return "small" if case.amount < 500 else "medium" if case.amount < 5000 else "large"
