"""Which words greedy decoding may take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Decoding:
    """Words that greedy decoding may not take.

    no_repeat_ngram: no n-gram of prompt and continuation may occur twice (0: no such rule).
    suppress_eos:    the continuation may not end (min_length = max_length).
    """

    no_repeat_ngram: int = 0
    suppress_eos: bool = False

    @property
    def free(self) -> bool:
        """Whether every word is allowed everywhere."""
        return not self.no_repeat_ngram and not self.suppress_eos


PLAIN = Decoding()
#: The published script: no_repeat_ngram_size = 6, and a minimum length that no continuation can fall short of.
AS_PUBLISHED = Decoding(no_repeat_ngram=6, suppress_eos=True)


class Ban:
    """The words that `decoding` forbids after a sequence that grows."""

    def __init__(self, decoding: Decoding, tokens: Sequence[int], eos_id: int):
        self._always = [eos_id] if decoding.suppress_eos else []
        self._n = decoding.no_repeat_ngram
        self._tail: tuple[int, ...] = ()
        self._followers: dict[tuple[int, ...], list[int]] = {}
        self.extend(tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Let the sequence grow by `tokens`."""
        if not self._n:
            return
        for token in tokens:
            if len(self._tail) == self._n - 1:
                self._followers.setdefault(self._tail, []).append(token)
            self._tail = self._shifted(self._tail, token)

    def words(self) -> list[int]:
        """Token ids that may not come next."""
        return self._always + self._followers.get(self._tail, [])

    def along(self, draft: Sequence[int]) -> list[list[int]]:
        """The words forbidden before, and after each token of, a draft, were the sequence to grow by it."""
        if not self._n:
            return [self._always] * (len(draft) + 1)
        if not draft:
            return [self.words()]
        banned, tail, ahead = [self.words()], self._tail, {}
        for token in draft:
            if len(tail) == self._n - 1:
                ahead.setdefault(tail, []).append(token)
            tail = self._shifted(tail, token)
            banned.append(self._always + self._followers.get(tail, []) + ahead.get(tail, []))
        return banned

    def _shifted(self, tail: tuple[int, ...], token: int) -> tuple[int, ...]:
        return (*tail, token)[max(0, len(tail) + 2 - self._n) :]
