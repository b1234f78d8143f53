"""Sentences that state private details, one or two at a time, and short passages made of them.

Plain phrases say no more than the detail; coloured ones add a circumstance (who disputed it, what was sent there).
An answer drawn from a note keeps to the plain ones, so that it follows from the note.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdleak.data.synthetic.case import Scene
from kdleak.data.synthetic.grammar import Phrases, capitalise, load_phrases

_PHRASES = load_phrases("statements")


def _merge(plain: dict[str, Phrases], coloured: dict[str, Phrases]) -> tuple[dict[frozenset[str], Phrases], ...]:
    """(plain, plain and coloured together), by the set of kinds."""
    both = {kinds: Phrases.union(phrases, coloured[kinds]) for kinds, phrases in plain.items()}
    return tuple({frozenset(kinds.split()): phrases for kinds, phrases in table.items()} for table in (plain, both))


_FAITHFUL, _FREE = (
    singles | pairs
    for singles, pairs in zip(
        _merge(_PHRASES["plain"], _PHRASES["coloured"]),
        _merge(_PHRASES["plain_pairs"], _PHRASES["coloured_pairs"]),
        strict=True,
    )
)


def clauses(scene: Scene, kinds: Sequence[str], faithful: bool = False) -> list[str]:
    """Clauses that state the details of `kinds` in that order, two neighbours at times in one clause.

    `faithful` leaves out the coloured phrases.
    """
    table = _FAITHFUL if faithful else _FREE
    sentences, left = [], list(kinds)
    while left:
        n = 2 if len(left) > 1 and scene.rng.random() < 0.5 else 1
        sentences.append(scene.say(table[frozenset(left[:n])]))
        del left[:n]
    return sentences


def join_sentences(scene: Scene, parts: Sequence[str], links: bool = True) -> str:
    """`parts` as sentences, some divided by a semicolon only, some opened by a linking word."""
    text = ""
    for i, part in enumerate(parts):
        chance = scene.rng.random()
        if i and chance < 0.15 and ";" not in part and not text.endswith("?"):
            text += f"; {part}"
        elif i > 1 and chance < 0.25 and links and not part.startswith("besides"):
            text += f". {capitalise(scene.say(_PHRASES['link']))} {part}"
        elif i:
            text += f"{'' if text.endswith('?') else '.'} {capitalise(part)}"
        else:
            text = capitalise(part)
    return text if text.endswith("?") else text + "."


def state(scene: Scene, kinds: Sequence[str]) -> str:
    """A passage that states the details of `kinds`."""
    return join_sentences(scene, clauses(scene, kinds))
