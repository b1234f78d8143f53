"""Rules that forbid greedy decoding some tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Decoding:
    """Tokens that greedy decoding may not take.

    no_repeat_ngram: no n-gram of prompt and continuation may occur twice (0: no such rule).
    suppress_eos:    the continuation may not end (min_length = max_length).
    """

    no_repeat_ngram: int = 0
    suppress_eos: bool = False

    @property
    def free(self) -> bool:
        """Whether every token is allowed everywhere."""
        return not self.no_repeat_ngram and not self.suppress_eos


PLAIN = Decoding()
#: The published script: no_repeat_ngram_size = 6, and a minimum length that no continuation can fall short of.
AS_PUBLISHED = Decoding(no_repeat_ngram=6, suppress_eos=True)


class Ban:
    """The tokens that `decoding` forbids after a sequence that grows."""

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
            self._tail = (*self._tail, token)[max(0, len(self._tail) + 2 - self._n) :]

    def tokens(self) -> list[int]:
        """Token ids that may not come next."""
        return self._always + self._followers.get(self._tail, [])

    def allowed_prefix(self, text: Sequence[int]) -> tuple[int, ...]:
        """`text` up to its first token that is forbidden where it stands; the sequence grows by it."""
        for i, token in enumerate(text):
            if token in self.tokens():
                return tuple(text[:i])
            self.extend([token])
        return tuple(text)
