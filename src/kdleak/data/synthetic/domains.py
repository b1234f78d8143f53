"""Walks of life in which people leave private details with firms: the words that differ from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdleak.data.synthetic.grammar import Phrases, load_entries


@dataclass(frozen=True)
class Domain:
    """The vocabulary of one walk of life.

    firm_kinds / firm_word: how its firms are called, and what they are for short ("the agency").
    client, staff: the two people of a case. matters: what they deal with, `tails`: which one.
    number_labels, prefix: how a case is numbered. amounts: what is paid.
    past, future: what happened or will happen to the matter on a date.
    goals: what the client wants (bare infinitive). ideas: advice without a private detail. remarks: asides.
    """

    firm_kinds: tuple[str, ...]
    firm_word: str
    client: str
    staff: str
    matters: tuple[str, ...]
    tails: tuple[str, ...]
    number_labels: tuple[str, ...]
    prefix: str
    past: tuple[str, ...]
    future: tuple[str, ...]
    amounts: tuple[str, ...]
    goals: Phrases
    ideas: Phrases
    remarks: Phrases


#: Fields that hold phrases of the grammar; the other lists are taken as they stand.
_PHRASES = ("goals", "ideas", "remarks")


def _domain(entries: Mapping[str, str | list[str]]) -> Domain:
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()}
    return Domain(**{**lists, **{name: Phrases(*entries[name]) for name in _PHRASES}})


DOMAINS = tuple(_domain(entries) for entries in load_entries("domains"))
