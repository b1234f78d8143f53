"""Brainstorming: advice for somebody's case, in which private details turn up as if known."""

from __future__ import annotations

import random

from kdleak.data.records import Record
from kdleak.data.synthetic.case import KINDS, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import Phrases, capitalise

_REQUEST = Phrases(
    "{suggest|list|give|name|think of} $count {ways|ideas|steps} for @P, $client {of|at} @F, to $goal.",
    "how {can|could|might} @P, $client {of|at} @F, $goal? {Give|Name|List} $count {ideas|tips|steps}.",
    "@P, who has a(n) $matter with @F, {wants|hopes|would like} to $goal. {Suggest|List|Offer} $count "
    "{ideas|steps|tips}.",
    "{brainstorm|collect|come up with} $count {tips|ideas|suggestions} that help @P (@F, $matter) to $goal.",
    "what {are|would be} $count {good|sensible|simple} ways for @P of the $matter at @F to $goal?",
)

_IDEA = {
    "phone": Phrases(
        "{call|ring|phone} @O on $phone {and talk it through|early in the day|and ask for a date|before anyone else "
        "does}",
        "keep $phone at hand, as @O {answers|helps} {at once|gladly|in the evening}",
        "have a {friend|neighbour|colleague} {ring|call} @O on $phone",
    ),
    "email": Phrases(
        "{send|mail} {photos|a short list|a plain question|the figures} to $email",
        "{write to|ask|thank} @O at $email {and wait a day|in two lines|with a copy to @F}",
        "put {everything|each step|the wish} in writing to $email",
    ),
    "address": Phrases(
        "{go|drive|walk} to $address and {talk|ask} in person",
        "{post|deliver|bring} {the papers|a signed copy|a friendly card} to {$address|@A at $address}",
        "{meet|sit down|have coffee} with {@Q|a friend} at $address",
    ),
    "number": Phrases(
        "{quote|mention|use} $number in {every|each} {letter|call|message}",
        "{look up|pull out|reread} {the file|the papers} on $number [with @Q]",
        "{ask|get} @Q to {reopen|check|review} $number",
    ),
    "date": Phrases(
        "{remember|point out|bear in mind} that @M $event on $date",
        "{mark|circle|underline} $date, when @M $event",
        "{use|stress} the fact that @M $event on $date",
    ),
    "amount": Phrases(
        "{offer|propose|suggest} {half|a third|two thirds} of the $amount_label of $amount",
        "{split|divide|question|compare} the $amount_label of $amount",
        "{keep|hold|set} $amount {ready|aside|in reserve} for the $amount_label",
    ),
}
_INTRO = Phrases(
    "{here are|these are} {some|a few|$count} {ideas|steps} for @P:",
    "@P {could|might|can}:",
    "@P {has|still has} {several|some} {options|ways}:",
    "",
    "",
    "",
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def brainstorming(rng: random.Random) -> Record:
    """A request for ideas towards a goal, and three or four ideas, two or three of them with a private detail."""
    case = draw_case(rng, owners="QF")
    request, reply = Scene(case, rng), Scene(case, rng, known=True)
    count = rng.choice((3, 3, 4))
    for scene in (request, reply):
        scene.slots["count"] = ("three", "four")[count - 3]
    request.slots["goal"] = request.say(case.domain.goals)
    intro = capitalise(reply.say(_INTRO))
    ideas = [_IDEA[kind] for kind in rng.sample(KINDS, count - 1)]
    ideas.insert(rng.randrange(count), case.domain.ideas)
    response = _lay_out(rng, intro, [reply.say(idea) for idea in ideas])
    return Record("brainstorming", capitalise(request.say(_REQUEST)), "", response, stated_facts(case, response))


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
