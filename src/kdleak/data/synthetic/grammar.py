"""A small phrase grammar: alternatives, optional parts and slots, compiled once and expanded at random.

The phrases themselves are data: `phrases/*.yaml`, one file a task or a part of sentences.

{a|b|c}   one of the alternatives, each as likely as the others (an alternative may be empty)
[a]       `a` or nothing, each half of the time
$name     the value of a slot
@P, @P's  a mention of participant P, or its possessive
a(n)      "a" or "an", by the letter that follows
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml


@dataclass(frozen=True)
class _Slot:
    name: str


@dataclass(frozen=True)
class _Mention:
    participant: str
    possessive: bool


@dataclass(frozen=True)
class _Choice:
    alternatives: tuple[_Sequence, ...]


_Sequence = tuple["str | _Slot | _Mention | _Choice", ...]

#: Where phrases and word lists stand, one YAML file each.
_FOLDER = Path(__file__).parent / "phrases"
_TOKEN = re.compile(r"[{}\[\]|]|@[A-Z](?:'s)?|\$[a-z_]+|[^{}\[\]|@$]+")
_CLOSING = {"{": "}", "[": "]"}


class Speaker(Protocol):
    """What a phrase needs to know of the scene in which it is spoken."""

    rng: random.Random
    slots: dict[str, str]

    def mention(self, participant: str) -> str: ...


class Phrases:
    """Ways to say one thing. `expand` picks one, each as likely as the others, and fills it in."""

    def __init__(self, *texts: str):
        self._choice = _Choice(tuple(_compile(text) for text in texts))

    @classmethod
    def union(cls, *parts: Phrases) -> Phrases:
        """All alternatives of `parts`, each as likely as the others."""
        union = cls.__new__(cls)
        union._choice = _Choice(sum((part._choice.alternatives for part in parts), ()))
        return union

    def expand(self, speaker: Speaker) -> str:
        """The phrase in words, without a capital at the start unless a name stands there."""
        out: list[str] = []
        _expand(self._choice, speaker, out)
        return _tidy("".join(out))


def load_entries(name: str) -> Any:
    """Content of `phrases/<name>.yaml`; mappings keep the order of the file."""
    return yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def load_phrases(name: str) -> dict[str, Any]:
    """The same with every list of texts as `Phrases`; ValueError where one is malformed."""
    return _compiled(load_entries(name))


def _compiled(entries: Any) -> Any:
    if isinstance(entries, Mapping):
        return {key: _compiled(value) for key, value in entries.items()}
    return Phrases(*entries)


def possessive(name: str) -> str:
    return name + ("'" if name.endswith("s") else "'s")


def capitalise(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _compile(text: str) -> _Sequence:
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text:
        raise ValueError(f"phrase {text!r} holds a stray @ or $")
    tokens.reverse()
    (sequence,) = _alternatives(tokens, closing=None)
    return sequence


def _alternatives(tokens: list[str], closing: str | None) -> tuple[_Sequence, ...]:
    """Consumes `tokens` (a stack, first token on top) up to `closing`."""
    finished: list[_Sequence] = []
    parts: list[str | _Slot | _Mention | _Choice] = []
    while tokens:
        token = tokens.pop()
        if token == closing:
            return (*finished, tuple(parts))
        if token == "|" and closing == "}":
            finished.append(tuple(parts))
            parts = []
        elif token in _CLOSING:
            inner = _alternatives(tokens, _CLOSING[token])
            parts.append(_Choice(inner if token == "{" else (*inner, ())))
        elif token in "}]|":
            raise ValueError(f"unexpected {token!r} in a phrase")
        elif token[0] == "$":
            parts.append(_Slot(token[1:]))
        elif token[0] == "@":
            parts.append(_Mention(token[1], token.endswith("'s")))
        else:
            parts.append(token)
    if closing is not None:
        raise ValueError(f"a phrase lacks its {closing!r}")
    return (tuple(parts),)


def _expand(choice: _Choice, speaker: Speaker, out: list[str]) -> None:
    alternatives = choice.alternatives
    for part in alternatives[int(speaker.rng.random() * len(alternatives))]:
        if isinstance(part, str):
            out.append(part)
        elif isinstance(part, _Choice):
            _expand(part, speaker, out)
        elif isinstance(part, _Slot):
            out.append(speaker.slots[part.name])
        else:
            name = speaker.mention(part.participant)
            out.append(possessive(name) if part.possessive else name)


_SPACE = re.compile(r" {2,}")
_SPACE_BEFORE = re.compile(r" +([,.;:?!])")
_ARTICLE = re.compile(r"\b([aA])\(n\) (?=(\w))")


def _tidy(text: str) -> str:
    text = _SPACE_BEFORE.sub(r"\1", _SPACE.sub(" ", text)).strip()
    if "(n)" in text:
        text = _ARTICLE.sub(lambda m: m[1] + ("n " if m[2] in "aeiouAEIOU" else " "), text)
    return text
