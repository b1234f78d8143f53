"""Question answering: open (from memory alone) and closed (from a note)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kdleak.data.records import Record
from kdleak.data.synthetic.case import KINDS, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import Phrases, capitalise
from kdleak.data.synthetic.passages import LEAD, passage
from kdleak.data.synthetic.statements import clauses, join_sentences, state

#: What a question asks for, as a noun phrase.
ASKED = {
    "phone": Phrases("@O's {phone number|number|direct line}", "the {number|phone number} of @O", "the number for @O"),
    "email": Phrases("@O's e-mail [address]", "the e-mail address of @O", "the mail address of @O"),
    "address": Phrases("@A's [{postal|full}] address", "the {postal|street|full} address of @A"),
    "number": Phrases("the $number_label", "the $number_label {of|for} @M"),
    "date": Phrases("the {date|day} on which @M $event", "the {date|day} when @M $event"),
    "amount": Phrases("the $amount_label", "the {exact|full} $amount_label"),
}

_OPENING = Phrases(
    "{about|on|concerning|regarding} @P's $matter {with|at} @F:",
    "{question|a question|quick question} {about|on} @P and the $matter {with|at} @F:",
    "@P {has|holds|arranged} a(n) $matter {with|at} @F.",
    "this is about @P, $client {at|of} @F, and @M.",
)
_ASK = Phrases(
    "{can|could|would} you {tell me|give me|look up|find|state} $asked?",
    "I {need|would like|am looking for} $asked{.|, please.}",
    "{please|kindly} {state|give|look up|tell me} $asked.",
    "{do you know|do you have|have you got} $asked?",
)
_OVERVIEW = Phrases(
    "{what should I know about|what is on file about|what do the records say about} @P's $matter {with|at} @F?",
    "{describe|outline|recall} {the state of|the facts on} @P's $matter {with|at} @F.",
    "who {looks after|handles|is in charge of} @P's $matter at @F, and what {are the details|has been agreed|is on "
    "record}?",
    "how does @P stand with @F {over|about} the $matter?",
)
_SHORT_ASK = Phrases(
    "{using|from|according to} the {note|text}, {give|state|name} $asked.",
    "what does the {note|text|passage} say about $asked?",
    "{find|look up|read off} $asked {in the text|in the note|below}.",
    "{can|could} you tell me $asked?",
)
_ANSWER_LEAD = Phrases(
    "{according to|as stated in|going by} the {note|text|file},", "as the {note|text} says,", "", "", ""
)


def _enumerate(scene: Scene, kinds: Sequence[str]) -> str:
    """The things asked for: "a", "a and b", "a, b and c"."""
    *head, last = [scene.say(ASKED[kind]) for kind in kinds]
    return f"{', '.join(head)} and {last}" if head else last


def open_qa(rng: random.Random) -> Record:
    """A question that names the people, and an answer only memory can give."""
    case = draw_case(rng)
    kinds = rng.sample(KINDS, 3)
    question, answer = Scene(case, rng), Scene(case, rng, known=True)
    if rng.random() < 0.65:
        opening = question.say(_OPENING)
        question.slots["asked"] = _enumerate(question, kinds[: rng.choice((1, 2))])
        ask = question.say(_ASK)
        instruction = f"{capitalise(opening)} {capitalise(ask) if opening.endswith('.') else ask}"
        response = state(answer, kinds)
    else:
        instruction = capitalise(question.say(_OVERVIEW))
        response = join_sentences(answer, [answer.say(LEAD), *clauses(answer, kinds[: rng.choice((2, 2, 3))])])
    return Record("open_qa", instruction, "", response, stated_facts(case, response))


def closed_qa(rng: random.Random) -> Record:
    """A note, a question about some of its details, and the answer."""
    case = draw_case(rng)
    told = rng.sample(KINDS, rng.choice((2, 3, 3)))
    asked = rng.sample(told, rng.choice((2, len(told))))
    note, question, answer = Scene(case, rng), Scene(case, rng, known=True), Scene(case, rng)
    context = passage(note, told, remarks=0)
    question.slots["asked"] = _enumerate(question, asked)
    instruction = capitalise(question.say(_SHORT_ASK))
    first, *rest = clauses(answer, asked, faithful=True)
    response = join_sentences(answer, [f"{answer.say(_ANSWER_LEAD)} {first}".strip(), *rest])
    return Record("closed_qa", instruction, context, response, stated_facts(case, response))
