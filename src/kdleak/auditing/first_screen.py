"""What an audit's page says first: the verdict, what its words mean, what could not be seen, what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdleak.attacks import ATTACKS
from kdleak.auditing.judgement import CANNOT_TELL, LEAK, LISTS_DIFFER, NONE, SWAPPED, reference_attacks
from kdleak.auditing.list_verdict import LEARNED, NO_NULL
from kdleak.render.blocks import Block, Bullets, Callout, Code, Heading, Marked, Paragraph, Strong
from kdleak.render.wording import listed

_TONE = {LISTS_DIFFER: "bad", CANNOT_TELL: "warn", SWAPPED: "bad", LEAK: "bad"}
#: An input that may be given -> what it shows beside the attacks that need it.
_SHOWS = {
    "teacher": "how much of the teacher's own leak the student has",
    "baseline": "whether distillation added to the leak, or a student without the teacher shows the same",
    "pretrained": "how much likelier training made each record",
    "reference": "how likely another model finds each record, so that easy records do not count as members",
    "population": "how records that no model has seen score",
}
#: What attacks call the models that they compare the student with.
_CALLED = {
    "teacher": "the teacher",
    "no_kd": "the baseline",
    "pretrained": "its pretrained base",
    "external": "a model of another architecture",
}
_NEXT = {
    LEAK: (
        "Treat the members as disclosed to whoever can query this model, the most exposed records first.",
        "Before release, distil again with less of a signal (fewer epochs, a lower learning rate, a teacher that was "
        "trained with a defence), then audit that student on the same two lists.",
    ),
    NONE: (
        "Read it as: these attacks on these records show nothing. It is no proof; the interval says what is ruled out.",
        "More records narrow the interval, and inputs that were not given run stronger attacks: audit again with them.",
    ),
    LISTS_DIFFER: (
        "Draw members and non-members from one pool by chance (same source, date, length and topics), and audit again.",
    ),
    CANNOT_TELL: (
        "Give records that do not all belong together (no context or near-duplicate that joins them), and audit again.",
    ),
    SWAPPED: ("Check which list is given as --members and which as --nonmembers, and audit again.",),
}


def first_screen(figures: Mapping[str, Any]) -> list[Block]:
    """The blocks of the first screen. figures: the content of audit.json."""
    verdict = figures["verdict"]
    first, *others = verdict["sentences"]
    unseen = _unseen(figures)
    return [
        Callout(Paragraph(Strong(verdict["headline"])), _tone(figures)),
        Paragraph(Strong(first)),
        Bullets([*others, figures["list"]["headline"]]),
        Heading("What the words mean"),
        Bullets(
            [
                "AUC: the chance that the attack scores a random member above a random non-member; .5 is guessing, 1 "
                "tells all of them apart.",
                Paragraph(Code(verdict["strongest"]["attack"]), " ", _meaning(verdict["strongest"]["attack"])),
            ]
        ),
        *([Heading("What this audit could not see"), Bullets(unseen)] if unseen else []),
        Heading("What to do next"),
        Bullets(_NEXT[verdict["kind"]]),
    ]


def _tone(figures: Mapping[str, Any]) -> str:
    """Green only where a leak would have been noticed: with the stated power, and if a strong attack ran; never where
    the list as a whole was learned from, or stands out for a reason that cannot be told."""
    verdict = figures["verdict"]
    if verdict["kind"] == NONE and figures["list"]["kind"] == LEARNED:
        return "bad"
    stands_out = figures["list"]["why"] == NO_NULL
    noticed = verdict["power"]["sufficient"] and reference_attacks(list(figures["membership"]["attacks"]))
    return _TONE.get(verdict["kind"], "good" if noticed and not stands_out else "warn")


def _meaning(name: str) -> str:
    """What an attack compares, in plain words, and its definition as its docstring has it."""
    attack = ATTACKS[name]
    models = [_CALLED.get(model, model) for model in attack.needs.references]
    plain = "how likely the student finds its response"
    if models:
        plain = f"how much likelier the student finds its response than {listed(models)} would suggest"
    return f"scores a record by {plain}. By definition: {' '.join(attack.source.split())}"


def _unseen(figures: Mapping[str, Any]) -> list[Marked]:
    """A line for each input that was not given: what it would have shown, and which attacks wait for it."""
    available = {name for name, model in figures["inputs"]["models"].items() if model}
    available |= {"population"} if figures["inputs"]["records"]["population"] else set()
    lines = []
    for name, shows in _SHOWS.items():
        waiting = [f"`{attack}`" for attack, why in figures["left_out"].items() if f"--{name}" in why]
        attacks = f", and run {listed(waiting)}" if waiting else ""
        if name not in available:
            lines.append(Marked(f"With `--{name}` this audit could have seen {shows}{attacks}."))
    quick = [f"`{attack}`" for attack, why in figures["left_out"].items() if "--quick" in why]
    return lines + ([Marked(f"Without `--quick` it would have run {listed(quick)}.")] if quick else [])
