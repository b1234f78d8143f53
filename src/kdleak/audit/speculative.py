"""Greedy decoding that verifies drafts: what a model would have written anyway is read in one pass, not generated.

The result is plain greedy decoding's, whatever the drafts (Leviathan et al. 2023, arXiv 2211.17192, at temperature 0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from kdleak.audit.decoding import Ban, Decoding
from kdleak.audit.scoring import head_chunks
from kdleak.data.batching import collate
from kdleak.data.encoding import EncodedRecord
from kdleak.models.forward import decoder
from kdleak.models.kv_cache import RowCache, decode
from kdleak.models.shared_prefix import common_prefix, prefix_cache, repeated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Draft tokens that are read together with the prompt. A model that disagrees with a draft mostly does so early:
#: the rest is read only where all of these were right.
FIRST_INSTALMENT = 8


@dataclass
class Row:
    """A continuation in the making.

    index: the caller's own. draft: the tokens, no EOS among them, that may follow `prompt`.
    tokens: the continuation so far, every one the model's choice. ban: what may not come next.
    """

    index: int
    prompt: tuple[int, ...]
    draft: tuple[int, ...]
    ban: Ban
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


class Verifier:
    """Reads rows batch by batch, and continues, a pool at a time, those that the model would have written otherwise."""

    def __init__(self, model: PreTrainedModel, eos_id: int, k: int, decoding: Decoding, pool_tokens: int):
        """pool_tokens: padded tokens in the cache with which a pool is continued."""
        self.model, self.eos_id, self.k, self.decoding = model, eos_id, k, decoding
        self.device = next(model.parameters()).device
        self._prefix: DynamicCache | None = None
        self._prefix_length = 0
        self._pool: list[tuple[list[Row], RowCache]] = []
        self._pool_tokens = pool_tokens

    def share(self, prefix: Sequence[int]) -> None:
        """All prompts that are read from now on begin with `prefix`, which may be empty."""
        self._prefix_length = len(prefix)
        self._prefix = prefix_cache(self.model, prefix) if prefix else None

    def row(self, index: int, prompt: tuple[int, ...], draft: Sequence[int]) -> Row:
        """A row to read; of `draft` counts what stands before EOS, k - 1 tokens at most."""
        draft = tuple(draft[: self.k - 1])
        if self.eos_id in draft:
            draft = draft[: draft.index(self.eos_id)]
        return Row(index, prompt, draft, Ban(self.decoding, prompt, self.eos_id))

    def read(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Verify the drafts of a batch; yields what this finishes, and the pool where it has become full."""
        cache = self._prefill(rows)
        on_track = [i for i, row in enumerate(rows) if row.rest and not self._done(row)]
        if on_track:
            rest = RowCache.join([self._select(cache, on_track)], room=self.k)
            promising = [rows[i] for i in on_track]
            self._advance(rest, promising, [row.rest for row in promising])
            self._wait(promising, rest)
        off_track = sorted(set(range(len(rows))) - set(on_track))
        self._wait([rows[i] for i in off_track], self._select(cache, off_track))
        yield from (row for row in rows if self._done(row))
        columns = max((part.columns for _, part in self._pool), default=0) + self.k
        if sum(len(waiting) for waiting, _ in self._pool) * columns > self._pool_tokens:
            yield from self.finish()

    def finish(self) -> Iterator[Row]:
        """Continue every row of the pool to its end."""
        if not self._pool:
            return
        cache = RowCache.join([part for _, part in self._pool], room=self.k)
        slots = [row for waiting, _ in self._pool for row in waiting]
        self._pool.clear()
        live = list(range(len(slots)))
        while live:
            # Rows are released in steps: a copy of the cache for every row that ends costs more than it saves.
            if len(live) <= 0.8 * len(slots):
                cache, slots = self._select(cache, live), [slots[i] for i in live]
                live = list(range(len(slots)))
            self._advance(cache, slots, [()] * len(slots))
            yield from (slots[i] for i in live if self._done(slots[i]))
            live = [i for i in live if not self._done(slots[i])]

    def _prefill(self, rows: Sequence[Row]) -> RowCache:
        """Read prompts and first instalments; every row has a token afterwards."""
        instalments = [row.draft[:FIRST_INSTALMENT] for row in rows]
        # The closing token is a target only: there is a prediction after each token of the instalment.
        records = [
            EncodedRecord("", row.prompt[self._prefix_length :], (*instalment, self.eos_id), len(instalment))
            for row, instalment in zip(rows, instalments, strict=True)
        ]
        batch = collate(records, range(len(records))).to(self.device)
        past = repeated(self._prefix, len(rows)) if self._prefix is not None else None
        output = decoder(self.model)(input_ids=batch.input_ids, past_key_values=past, use_cache=True)
        states = output.last_hidden_state
        self._accept(rows, instalments, states.flatten(0, 1).index_select(0, batch.positions))
        return RowCache.of(output.past_key_values)

    def _advance(self, cache: RowCache, rows: Sequence[Row], drafts: Sequence[tuple[int, ...]]) -> None:
        """Feed each row its last token and its draft, and take what the model makes of them."""
        width = 1 + max(len(draft) for draft in drafts)
        fed = [
            (row.tokens[-1], *draft, *[0] * (width - 1 - len(draft))) for row, draft in zip(rows, drafts, strict=True)
        ]
        last = torch.tensor([row.position for row in rows], device=self.device)
        positions = last[:, None] + torch.arange(width, device=self.device)
        states = decode(self.model, cache, torch.tensor(fed, device=self.device), positions)
        wanted = [i * width + j for i, draft in enumerate(drafts) for j in range(1 + len(draft))]
        self._accept(rows, drafts, states.flatten(0, 1)[torch.tensor(wanted, device=self.device)])

    def _accept(self, rows: Sequence[Row], drafts: Sequence[tuple[int, ...]], hidden: torch.Tensor) -> None:
        """Append to each unfinished row its draft as far as the model agrees, then the model's own next token.

        hidden: (m, hidden_size), the states before, and after each token of, each draft, row by row."""
        banned = [words for row, draft in zip(rows, drafts, strict=True) for words in row.ban.along(draft)]
        choices: list[int] = []
        for logits in head_chunks(self.model, hidden):
            _forbid(logits, banned[len(choices) : len(choices) + len(logits)])
            choices += logits.argmax(-1).tolist()
        start = 0
        for row, draft in zip(rows, drafts, strict=True):
            if not self._done(row):
                n = common_prefix(choices[start : start + len(draft)], draft)
                row.tokens += (new := [*draft[:n], choices[start + n]])
                row.ban.extend(new)
            start += len(draft) + 1

    def _wait(self, rows: Sequence[Row], cache: RowCache) -> None:
        """Put the unfinished of `rows` into the pool."""
        waiting = [i for i, row in enumerate(rows) if not self._done(row)]
        if waiting:
            self._pool.append(([rows[i] for i in waiting], self._select(cache, waiting)))

    def _select(self, cache: RowCache, rows: list[int]) -> RowCache:
        return cache.select(torch.tensor(rows, dtype=torch.long, device=self.device))

    def _done(self, row: Row) -> bool:
        return len(row.tokens) == self.k or (bool(row.tokens) and row.tokens[-1] == self.eos_id)


def _forbid(logits: torch.Tensor, banned: Sequence[Sequence[int]]) -> None:
    """Take the words banned[i] out of row i, in place."""
    pairs = [(row, word) for row, words in enumerate(banned) for word in words]
    if pairs:
        rows, words = torch.tensor(pairs, device=logits.device).T
        logits[rows, words] = -torch.inf
