"""Tasks that condense a note: information extraction and summarization."""

from __future__ import annotations

import random

from kdleak.data.records import Record
from kdleak.data.synthetic.case import KINDS, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import capitalise, load_phrases
from kdleak.data.synthetic.passages import PLAIN_LEAD, passage
from kdleak.data.synthetic.statements import clauses, join_sentences

_PHRASES = load_phrases("digests")
#: Bullet, what stands between label and value, and what ends an entry.
_LAYOUTS = (
    ("- ", ": ", "\n"),
    ("", ": ", "\n"),
    ("", ": ", "; "),
    ("", " = ", "\n"),
    ("* ", " - ", "\n"),
    ("", ": ", ", "),
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
    fields += [(scene.say(_PHRASES["label"][kind]), case.details[kind]) for kind in rng.sample(kinds, len(kinds))]
    bullet, colon, end = rng.choice(_LAYOUTS)
    response = end.join(f"{bullet}{capitalise(label)}{colon}{value}" for label, value in fields)
    instruction = capitalise(scene.say(_PHRASES["extract"]))
    return Record("information_extraction", instruction, context, response, stated_facts(case, response))


def summarization(rng: random.Random) -> Record:
    """A note with asides, and what matters in it."""
    case = draw_case(rng)
    kinds = rng.sample(KINDS, rng.choice((2, 3)))
    note, summary = Scene(case, rng), Scene(case, rng)
    context = passage(note, kinds, remarks=1)
    kept = rng.sample(kinds, rng.choice((1, 2, 2, 2)))
    response = join_sentences(summary, [summary.say(PLAIN_LEAD), *clauses(summary, kept, faithful=True)])
    return Record(
        "summarization", capitalise(note.say(_PHRASES["summarize"])), context, response, stated_facts(case, response)
    )
