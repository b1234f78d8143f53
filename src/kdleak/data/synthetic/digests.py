"""Tasks that condense a note: information extraction and summarization."""

from __future__ import annotations

import random

from kdleak.data.records import Record
from kdleak.data.synthetic.case import KINDS, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import Phrases, capitalise
from kdleak.data.synthetic.passages import PLAIN_LEAD, passage
from kdleak.data.synthetic.statements import clauses, join_sentences

_EXTRACT = Phrases(
    "{extract|pull out|list|collect} {all|the} {names|people} and {details|data|particulars} {in|from} the "
    "{text|note}.",
    "{turn|convert|put} the {text|note|message} into {a list|a table|fields} of {names and details|labelled values}.",
    "{which names|what names|which people} and details {are|stand} in the {text|note}? {List|Give|Label} them.",
    "{fill in|make|write} {a card|an index card|a data sheet} from the {text|note|message}.",
    "{note down|write out|itemise} {each|every} {name and detail|name, firm and detail} {given|mentioned|stated} "
    "{below|here}.",
)
_LABELS = {
    "phone": Phrases("phone", "telephone", "call"),
    "email": Phrases("e-mail", "mail", "write to"),
    "address": Phrases("address", "location", "post to"),
    "number": Phrases("reference", "number", "$number_label"),
    "date": Phrases("date", "day", "$matter $event on"),
    "amount": Phrases("amount", "sum", "$amount_label"),
}
#: Bullet, what stands between label and value, and what ends an entry.
_LAYOUTS = (
    ("- ", ": ", "\n"),
    ("", ": ", "\n"),
    ("", ": ", "; "),
    ("", " = ", "\n"),
    ("* ", " - ", "\n"),
    ("", ": ", ", "),
)

_SUMMARIZE = Phrases(
    "{summarize|sum up|condense|shorten} the {text|note|message} [in {a line or two|one or two sentences|few words}].",
    "{give|write|draft} a {short|brief} {summary|digest|version} [of the {text|note}] [for {the file|the office|a "
    "colleague}].",
    "what are the {main|important} points of the {text|note|message}?",
    "{put|say} the {text|note} {in brief|more briefly|in two sentences}.",
    "{boil|cut} the {text|note|message} down to {its core|the essentials|what matters}.",
)


def information_extraction(rng: random.Random) -> Record:
    """A note, and its names and details as labelled values, in the order of the note or another."""
    case = draw_case(rng)
    kinds = rng.sample(KINDS, 3)
    scene = Scene(case, rng)
    context = passage(scene, kinds, remarks=int(rng.random() < 0.2))
    domain = case.domain
    roles = ("name", "contact", "firm") if rng.random() < 0.5 else (domain.client, domain.staff, domain.firm_word)
    fields = list(zip(roles, (case.client.full, case.contact.full, case.firm), strict=True))
    fields += [(scene.say(_LABELS[kind]), case.details[kind]) for kind in rng.sample(kinds, len(kinds))]
    bullet, colon, end = rng.choice(_LAYOUTS)
    response = end.join(f"{bullet}{capitalise(label)}{colon}{value}" for label, value in fields)
    instruction = capitalise(scene.say(_EXTRACT))
    return Record("information_extraction", instruction, context, response, stated_facts(case, response))


def summarization(rng: random.Random) -> Record:
    """A note with asides, and what matters in it."""
    case = draw_case(rng)
    kinds = rng.sample(KINDS, rng.choice((2, 3)))
    note, summary = Scene(case, rng), Scene(case, rng)
    context = passage(note, kinds, remarks=1)
    kept = rng.sample(kinds, rng.choice((1, 2, 2, 2)))
    response = join_sentences(summary, [summary.say(PLAIN_LEAD), *clauses(summary, kept, faithful=True)])
    return Record("summarization", capitalise(note.say(_SUMMARIZE)), context, response, stated_facts(case, response))
