"""Natural identifiers: random strings of a known format that records carry anyway (hashes, UUIDs, short links).

Whoever gave a record its identifier drew it, as good as at random, from all strings of its format; others drawn by the
same pattern are as likely to have stood there (Rossi et al. 2026, arXiv 2606.24408). Nothing but having met the record
makes a model prefer the true one, so that a record is its own control.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Hexadecimal digits of MD5, SHA-1 (git), SHA-224, SHA-256, SHA-384 and SHA-512.
_DIGESTS = (32, 40, 56, 64, 96, 128)
_HASH = "|".join(f"[0-9a-f]{{{digits}}}|[0-9A-F]{{{digits}}}" for digits in _DIGESTS)
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"  # version 4, which is random
_HOSTS = r"bit\.ly|t\.co|goo\.gl|ow\.ly|is\.gd|tinyurl\.com"
_FORMATS = re.compile(
    rf"(?<![\w-])(?:(?P<uuid>{_UUID}|{_UUID.upper()})|(?P<hash>{_HASH})|(?:{_HOSTS})/(?P<link>[0-9A-Za-z]{{6,12}}))"
    r"(?![\w-])"
)
#: Characters that a format does not leave to chance: version and variant of a UUID; the first of a link, which services
#: count up.
_FIXED = {"uuid": (14, 19), "hash": (), "link": (0,)}
#: Groups of letters and digits, in which another character is drawn.
_CLASSES = {"link": (string.digits, string.ascii_lowercase, string.ascii_uppercase),
            "uuid": (string.digits, "abcdef", "ABCDEF"), "hash": (string.digits, "abcdef", "ABCDEF")}  # fmt: skip


@dataclass(frozen=True)
class Identifier:
    """The identifier of a record: its text, its format (uuid, hash, link), where it ends in the response."""

    text: str
    format: str
    end: int

    def alternatives(self, number: int, rng: random.Random) -> list[str]:
        """`number` others of its pattern, all distinct: a digit where it has one, a letter where it has one."""
        drawn: dict[str, None] = {}
        while len(drawn) < number:
            other = "".join(self._other(place, character, rng) for place, character in enumerate(self.text))
            if other != self.text:
                drawn[other] = None
        return list(drawn)

    def _other(self, place: int, character: str, rng: random.Random) -> str:
        same = next((each for each in _CLASSES[self.format] if character in each), character)
        return character if place in _FIXED[self.format] else rng.choice(same)


def find_identifier(response: str) -> Identifier | None:
    """The first identifier of a response. A hash of digits alone, or a link without digits or without letters of both
    cases, is none: it may be a number, or a word that somebody chose."""
    for match in _FORMATS.finditer(response):
        kind = str(match.lastgroup)
        text = match[kind]
        groups = [any(character in each for character in text) for each in _CLASSES[kind]]
        if kind == "uuid" or (all(groups) if kind == "link" else groups[0] and any(groups[1:])):
            return Identifier(text, kind, match.end())
    return None


def own_identifiers(rows: Sequence[Mapping[str, Any]]) -> list[Identifier | None]:
    """Of each row (instruction, context, response) its identifier; None without one, and where it stands in another row
    too: whoever met that one knows it."""
    texts = ["\n".join((row["instruction"], row["context"], row["response"])) for row in rows]
    carried = Counter(name for text in texts for name in {_named(match) for match in _FORMATS.finditer(text)})
    found = [find_identifier(row["response"]) for row in rows]
    return [each if each is not None and carried[each.text.lower()] == 1 else None for each in found]


def _named(match: re.Match[str]) -> str:
    return match[str(match.lastgroup)].lower()


def with_identifier(row: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """`row` with `new` wherever `old` stands in it, in the turns of a chat too."""
    changed = {key: row[key].replace(old, new) for key in ("instruction", "context", "response")}
    if "turns" in row:
        changed["turns"] = [{**turn, "content": turn["content"].replace(old, new)} for turn in row["turns"]]
    return {**row, **changed}
