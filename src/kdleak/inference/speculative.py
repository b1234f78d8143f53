"""Greedy decoding that verifies drafts: what a model would have written anyway is read in one pass, not generated.

The result is plain greedy decoding's, whatever the drafts (Leviathan et al. 2023, arXiv 2211.17192, at temperature 0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from kdleak.data.batching import collate
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.decoding import Ban, Decoding
from kdleak.inference.forward import decoder
from kdleak.inference.kv_cache import RowCache, decode, read_at
from kdleak.inference.scoring import head_chunks
from kdleak.inference.shared_prefix import common_prefix, prefix_cache, repeated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens of a mere guess that are read together with the prompt. A model that disagrees with a draft mostly does so
#: early: the rest is read only where all of these were right.
FIRST_INSTALMENT = 8


@dataclass
class Row:
    """A continuation in the making.

    index: the caller's own. draft: the tokens, no EOS among them, that may follow `prompt`; `first` of them are read
    with it. bans: what may not come next, by number of the decoding, for all decodings that have gone the same way
    so far, the freest first. tokens: the continuation so far, every one the model's choice.
    """

    index: int
    prompt: tuple[int, ...]
    draft: tuple[int, ...]
    first: int
    bans: dict[int, Ban]
    tokens: list[int] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Where the last token stands; its keys and values are not in the cache yet."""
        return len(self.prompt) + len(self.tokens) - 1

    @property
    def rest(self) -> tuple[int, ...]:
        """What is left of the draft if all tokens so far were the draft's, else nothing."""
        n = len(self.tokens)
        return self.draft[n:] if tuple(self.tokens) == self.draft[:n] else ()

    def extend(self, tokens: Sequence[int]) -> None:
        """Take the model's next words, which every decoding of the row allows."""
        self.tokens += tokens
        for ban in self.bans.values():
            ban.extend(tokens)

    def split(self, decoding: int, tokens: Sequence[int]) -> Row:
        """Let `decoding` go a way of its own, which begins with `tokens`."""
        fork = Row(self.index, self.prompt, (), 0, {decoding: self.bans.pop(decoding)}, list(self.tokens))
        fork.extend(tokens)
        return fork


#: A row, and which row of a cache holds the keys and values of what it has read.
Placed = tuple[int, Row]


class Verifier:
    """Reads rows batch by batch, and continues, a pool at a time, those that the model would have written otherwise.

    Several decodings share a row for as long as they take the same words, and what they have read where they part.
    """

    def __init__(self, model: PreTrainedModel, eos_id: int, k: int, decodings: Sequence[Decoding], pool_tokens: int):
        """decodings: one, or several of which the first forbids nothing. pool_tokens: padded tokens in the cache with
        which a pool is continued."""
        if len(decodings) > 1 and not decodings[0].free:
            raise ValueError("the first of several decodings must forbid nothing")
        self.model, self.eos_id, self.k, self.decodings = model, eos_id, k, decodings
        self.device = next(model.parameters()).device
        self._prefix: DynamicCache | None = None
        self._prefix_length = 0
        self._pool: list[tuple[list[Row], RowCache]] = []
        self._pool_tokens = pool_tokens

    def share(self, prefix: Sequence[int]) -> None:
        """All prompts that are read from now on begin with `prefix`, which may be empty."""
        self._prefix_length = len(prefix)
        self._prefix = prefix_cache(self.model, prefix) if prefix else None

    def row(self, index: int, prompt: tuple[int, ...], draft: Sequence[int], first: int) -> Row:
        """A row to read; of `draft` counts what stands before EOS, k - 1 tokens at most."""
        draft = tuple(draft[: self.k - 1])
        if self.eos_id in draft:
            draft = draft[: draft.index(self.eos_id)]
        bans = {i: Ban(decoding, prompt, self.eos_id) for i, decoding in enumerate(self.decodings)}
        return Row(index, prompt, draft, min(first, len(draft)), bans)

    def read(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Verify the drafts of a batch; yields what this finishes, and the pool where it has become full."""
        cache, forks = self._prefill(rows)
        yield from self._sort([*enumerate(rows), *forks], cache)
        columns = max((part.columns for _, part in self._pool), default=0) + self.k
        if sum(len(waiting) for waiting, _ in self._pool) * columns > self._pool_tokens:
            yield from self._continue_pool()

    def finish(self) -> Iterator[Row]:
        """Continue every row that waits to its end."""
        while self._pool:
            yield from self._continue_pool()

    def _sort(self, placed: Sequence[Placed], cache: RowCache) -> Iterator[Row]:
        """Yield what is finished, read on where a draft may hold further, let the others wait."""
        yield from (row for _, row in placed if self._done(row))
        on_track = [(i, row) for i, row in placed if row.rest and not self._done(row)]
        if on_track:
            rest = RowCache.join([self._select(cache, [i for i, _ in on_track])], room=self.k)
            rows = [row for _, row in on_track]
            forks = self._advance(rest, rows, [row.rest for row in rows])
            yield from self._sort([*enumerate(rows), *forks], rest)
        reading = {id(row) for _, row in on_track}
        self._wait([(i, row) for i, row in placed if id(row) not in reading], cache)

    def _continue_pool(self) -> Iterator[Row]:
        """Continue the rows of the pool to their ends; what splits off takes their places or waits for the next."""
        cache = RowCache.join([part for _, part in self._pool], room=self.k)
        slots = [row for waiting, _ in self._pool for row in waiting]
        self._pool.clear()
        live = list(range(len(slots)))
        while live:
            # Rows are released in steps: a copy of the cache for every row that ends costs more than it saves.
            if len(live) <= 0.8 * len(slots):
                cache, slots = self._select(cache, live), [slots[i] for i in live]
                live = list(range(len(slots)))
            forks = self._advance(cache, slots, [()] * len(slots))
            yield from (slots[i] for i in live if self._done(slots[i]))
            yield from (fork for _, fork in forks if self._done(fork))
            for i, fork in forks:
                if self._done(slots[i]):
                    slots[i] = fork
            self._wait([(i, fork) for i, fork in forks if slots[i] is not fork], cache)
            live = [i for i in live if not self._done(slots[i])]

    def _prefill(self, rows: Sequence[Row]) -> tuple[RowCache, list[Placed]]:
        """Read prompts and first instalments; every row has a token afterwards. Returns what splits off too."""
        instalments = [row.draft[: row.first] for row in rows]
        # The closing token is a target only: there is a prediction after each token of the instalment.
        records = [
            EncodedRecord("", row.prompt[self._prefix_length :], (*instalment, self.eos_id), len(instalment))
            for row, instalment in zip(rows, instalments, strict=True)
        ]
        batch = collate(records, range(len(records))).to(self.device)
        if self._prefix is None:
            output = decoder(self.model)(input_ids=batch.input_ids, use_cache=True)
        else:
            columns = self._prefix_length + batch.input_ids.shape[1]
            positions = torch.arange(self._prefix_length, columns, device=self.device)[None]
            output = read_at(self.model, repeated(self._prefix, len(rows)), batch.input_ids, positions, columns)
        states = output.last_hidden_state
        forks = self._accept(rows, instalments, states.flatten(0, 1).index_select(0, batch.positions))
        return RowCache.of(output.past_key_values), forks

    def _advance(self, cache: RowCache, rows: Sequence[Row], drafts: Sequence[tuple[int, ...]]) -> list[Placed]:
        """Feed each row its last token and its draft, and take what the model makes of them; returns what splits off,
        placed in `cache`."""
        width = 1 + max(len(draft) for draft in drafts)
        fed = [
            (row.tokens[-1], *draft, *[0] * (width - 1 - len(draft))) for row, draft in zip(rows, drafts, strict=True)
        ]
        last = torch.tensor([row.position for row in rows], device=self.device)
        positions = last[:, None] + torch.arange(width, device=self.device)
        states = decode(self.model, cache, torch.tensor(fed, device=self.device), positions)
        wanted = [i * width + j for i, draft in enumerate(drafts) for j in range(1 + len(draft))]
        return self._accept(rows, drafts, states.flatten(0, 1)[torch.tensor(wanted, device=self.device)])

    def _accept(self, rows: Sequence[Row], drafts: Sequence[tuple[int, ...]], hidden: torch.Tensor) -> list[Placed]:
        """Append to each unfinished row its draft as far as the model agrees, then the model's own next token; returns
        the decodings that may not go along, as rows of their own.

        hidden: (m, hidden_size), the states before, and after each token of, each draft, row by row."""
        banned = [
            dict(zip(row.bans, words, strict=True))
            for row, draft in zip(rows, drafts, strict=True)
            for words in zip(*(ban.along(draft) for ban in row.bans.values()), strict=True)
        ]
        choices: list[dict[int, int]] = []
        for logits in head_chunks(self.model, hidden):
            choices += _choices(logits, banned[len(choices) : len(choices) + len(logits)])
        forks, start = [], 0
        for i, (row, draft) in enumerate(zip(rows, drafts, strict=True)):
            if not self._done(row):
                own, leader = choices[start : start + len(draft) + 1], next(iter(row.bans))
                n = common_prefix([choice[leader] for choice in own[:-1]], draft)
                new = [*draft[:n], own[n][leader]]
                for other in list(row.bans)[1:]:
                    parting = next((j for j, token in enumerate(new) if own[j][other] != token), None)
                    if parting is not None:
                        forks.append((i, row.split(other, [*new[:parting], own[parting][other]])))
                row.extend(new)
            start += len(draft) + 1
        return forks

    def _wait(self, placed: Sequence[Placed], cache: RowCache) -> None:
        """Put the unfinished of `placed` into the pool."""
        waiting = [(i, row) for i, row in placed if not self._done(row)]
        if waiting:
            needed = max(row.position for _, row in waiting)
            self._pool.append(([row for _, row in waiting], self._select(cache, [i for i, _ in waiting], needed)))

    def _select(self, cache: RowCache, rows: list[int], columns: int | None = None) -> RowCache:
        return cache.select(torch.tensor(rows, dtype=torch.long, device=self.device), columns)

    def _done(self, row: Row) -> bool:
        return len(row.tokens) == self.k or (bool(row.tokens) and row.tokens[-1] == self.eos_id)


def _choices(logits: torch.Tensor, banned: Sequence[dict[int, list[int]]]) -> list[dict[int, int]]:
    """The word that each decoding takes at each of m places. logits: (m, vocabulary), overwritten. banned: m times what
    each forbids there, the freest first."""
    _forbid(logits, [next(iter(words.values())) for words in banned])
    choices = [dict.fromkeys(words, token) for words, token in zip(banned, logits.argmax(-1).tolist(), strict=True)]
    clashes = [(i, d) for i, words in enumerate(banned) for d in words if choices[i][d] in words[d]]
    if clashes:
        again = logits[[i for i, _ in clashes]]
        _forbid(again, [banned[i][d] for i, d in clashes])
        for (i, d), token in zip(clashes, again.argmax(-1).tolist(), strict=True):
            choices[i][d] = token
    return choices


def _forbid(logits: torch.Tensor, banned: Sequence[Sequence[int]]) -> None:
    """Take the words banned[i] out of row i, in place."""
    pairs = [(row, word) for row, words in enumerate(banned) for word in words]
    if pairs:
        rows, words = torch.tensor(pairs, device=logits.device).T
        logits[rows, words] = -torch.inf
