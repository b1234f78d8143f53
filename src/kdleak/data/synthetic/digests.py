"""Tasks that condense a note: information extraction and summarization."""

from __future__ import annotations

import random

from kdleak.data.records import Record
from kdleak.data.synthetic.case import KINDS, Case, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import Phrases, capitalise
from kdleak.data.synthetic.passages import LEAD, passage
from kdleak.data.synthetic.statements import clauses, join_sentences

_EXTRACT = Phrases(
    "{extract|pull out|list|collect} {all|the|every one of the} {names|people} and {private|personal|hard} {details|data} [in the {text|note}].",
    "{turn|convert|put} the {text|note|message} into {a list|a record|fields} of {names and details|who and what|labelled values}.",
    "{who|which people} and which {contacts|details|figures} {are|stand} in the {text|note}? {List|Give|Label} them.",
    "{fill in|make|write} {a card|an index card|a data sheet} from the {text|note|message}.",
    "{note down|write out|itemise} {each|every} {name and detail|name, firm and detail} {given|mentioned|stated} {below|here}.",
)
_LABELS = {
    "phone": ("phone", "telephone", "call"),
    "email": ("e-mail", "mail", "write to"),
    "address": ("address", "location", "post to"),
    "number": ("reference", "number", "$number_label"),
    "date": ("date", "day", "$matter $event on"),
    "amount": ("amount", "sum", "$amount_label"),
}
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
    "{give|write|draft} a {short|brief} {summary|digest|version} [of the {text|note}] [for {the file|the office|a colleague}].",
    "what are the {main|important} points of the {text|note|message}?",
    "{put|say} the {text|note} {in brief|more briefly|in two sentences}.",
    "{boil|cut} the {text|note|message} down to {its core|the essentials|what matters}.",
)


def _label(scene: Scene, kind: str) -> str:
    label = scene.rng.choice(_LABELS[kind])
    return scene.say(Phrases(label)) if "$" in label else label


def information_extraction(rng: random.Random) -> Record:
    """A note, and its names and details as labelled values, in the order of the note or another."""
    case = draw_case(rng)
    kinds = rng.sample(KINDS, rng.choice((3, 3, 4)))
    scene = Scene(case, rng)
    context = passage(scene, kinds, remarks=rng.randrange(2) if len(kinds) == 3 else 0)
    people = [
        (case.domain.client, case.client.full),
        (case.domain.staff, case.contact.full),
        (case.domain.firm_word, case.firm),
    ]
    if rng.random() < 0.5:
        people = [("name", case.client.full), ("contact", case.contact.full), ("firm", case.firm)]
    fields = [(label, name) for label, name in people if name in context]
    fields += [(_label(scene, kind), case.details[kind]) for kind in rng.sample(kinds, len(kinds))]
    bullet, colon, end = rng.choice(_LAYOUTS)
    labelled = [f"{bullet}{capitalise(label)}{colon}{value}" for label, value in fields]
    response = end.join(labelled)
    instruction = capitalise(scene.say(_EXTRACT))
    return Record("information_extraction", instruction, context, response, stated_facts(case, response))


def summarization(rng: random.Random) -> Record:
    """A note with asides, and what matters in it."""
    case: Case = draw_case(rng)
    kinds = rng.sample(KINDS, 3)
    note, summary = Scene(case, rng), Scene(case, rng)
    context = passage(note, kinds, remarks=1)
    kept = rng.sample(kinds, rng.choice((1, 2, 2)))
    response = join_sentences(summary, [summary.say(LEAD), *clauses(summary, kept)])
    return Record("summarization", capitalise(note.say(_SUMMARIZE)), context, response, stated_facts(case, response))
