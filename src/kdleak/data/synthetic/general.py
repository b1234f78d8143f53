"""A general corpus: prose on nature, crafts and the sky, for an LM loss that is not of the records' domain.

It stands in for OpenWebText, which DistiLLM's and MiniLLM's papers take. Document i follows from (seed, i) alone. Its
phrases are its own: no sentence, name or detail of the records' grammar stands in it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from kdleak.data.synthetic.grammar import Phrases, capitalise, load_entries

_ENTRIES = load_entries("general")
_WORDS: dict[str, list[str]] = _ENTRIES["words"]


@dataclass(frozen=True)
class _Subject:
    """things: what a text may be about; opening: its first sentence; body: sentences that may follow, each once."""

    things: tuple[str, ...]
    opening: Phrases
    body: tuple[Phrases, ...]


_SUBJECTS = tuple(
    _Subject(tuple(entry["thing"]), Phrases(*entry["opening"]), tuple(map(Phrases, entry["body"])))
    for entry in _ENTRIES["subjects"].values()
)


class _Drawn(dict[str, str]):
    """Values of slots, each drawn anew wherever it is named, but for those that are set."""

    def __init__(self, rng: random.Random, **fixed: str):
        super().__init__(fixed)
        self._rng = rng

    def __missing__(self, name: str) -> str:
        return self._rng.choice(_WORDS[name])


class _Essay:
    """Speaks of one thing (`kdleak.data.synthetic.grammar.Speaker`)."""

    def __init__(self, rng: random.Random, thing: str):
        self.rng = rng
        self.slots: dict[str, str] = _Drawn(rng, thing=thing)

    def mention(self, participant: str) -> str:
        raise ValueError(f"@{participant}: nobody is mentioned in the general corpus")

    def sentence(self, phrases: Phrases) -> str:
        return f"{capitalise(phrases.expand(self))}."


def general_documents(seed: int) -> Iterator[str]:
    """Documents without end, of five to eight sentences on one thing; document i depends on `seed` and i only."""
    for i in itertools.count():
        rng = random.Random(f"general/{seed}/{i}")
        subject = rng.choice(_SUBJECTS)
        essay = _Essay(rng, rng.choice(subject.things))
        body = rng.sample(subject.body, rng.randint(4, 7))
        yield " ".join(essay.sentence(phrases) for phrases in (subject.opening, *body))
