"""Greedy continuations without generation up to the first wrong token.

Greedy decoding follows a draft for as long as the draft's token is the model's first choice, and a teacher-forced
pass over prompt and draft shows at every position at once what that choice is. So reading settles every record that
the model reproduces, and the longest correct prefix of all others; only these are continued, from their first wrong
token, on the keys and values of the same pass, each row at its own length, finished rows dropped. The template that
the prompts share is read once.

The tokens are those of `model.generate(do_sample=False, max_new_tokens=k)`. What can differ is rounding: the two sum
in another order, so where two words' logits agree to the last bits of the model's dtype (a near-tie: about one token
in a million in fp32, common in bf16) either may be taken, as it may by `generate` itself at another batch size. An
exact tie goes to the lower token id in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kdleak import processes
from kdleak.audit.decoding import PLAIN, Decoding, first_break
from kdleak.audit.scoring import evaluating
from kdleak.audit.speculative import FIRST_INSTALMENT, Row, Verifier
from kdleak.data.encoding import EncodedRecord
from kdleak.errors import KdleakError
from kdleak.models.shared_prefix import common_prefix, reads_whole_text, shared_prefixes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Bytes of keys and values that rows may wait with until they are continued side by side.
POOL_BYTES = 128 * 2**20
#: Stands in a row of continuations from the place on where the model had ended the text (no token id is negative).
ENDED = -1


def greedy_continuations(
    model: PreTrainedModel,
    records: Sequence[EncodedRecord],
    eos_id: int,
    k: int = 32,
    *,
    decoding: Decoding = PLAIN,
    plain: np.ndarray | None = None,
    max_tokens: int = 4096,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """(n, k) int64 token ids that greedy decoding appends to each record's prompt, ENDED in place of EOS and after it.

    A record's own response serves as its draft: it decides how long this takes, never the result.

    plain:      the continuations under PLAIN where they are known: a better draft under `decoding`, and what breaks
                none of its rules needs no pass at all.
    max_tokens: padded tokens of one teacher-forced batch; keys and values of as many, or POOL_BYTES of them, are held
                for continuation (memory, not results, depends on it).
    progress:   called with the number of records done.
    Several processes share the records, and each of them returns the continuations of all.
    Raises KdleakError where a prompt and k tokens do not fit the model's positions.
    """
    _check_room(model, records, k)
    config = model.config
    token_bytes = 2 * config.num_hidden_layers * config.hidden_size * model.dtype.itemsize
    verifier = Verifier(model, eos_id, k, decoding, pool_tokens=max(max_tokens, POOL_BYTES // token_bytes))
    drafts: list[Sequence[int] | None] = [r.response for r in records]
    continuations = np.full((len(records), k), ENDED, dtype=np.int64)
    if plain is not None:
        drafts = [_until_break(r, row, decoding, eos_id) for r, row in zip(records, plain.tolist(), strict=True)]
        continuations[:] = plain
    mine = processes.share([len(r.prompt) for r in records])
    continuations[np.setdiff1d(np.arange(len(records)), mine)] = 0  # what another process adds
    rows = [verifier.row(i, records[i].prompt, drafts[i]) for i in mine if drafts[i] is not None]
    report = progress or (lambda _: None)
    report(len(records) - len(rows))

    def finish(done: Sequence[Row]) -> None:
        for row in done:
            text = row.tokens[:-1] if row.tokens[-1] == eos_id else row.tokens
            continuations[row.index] = ENDED
            continuations[row.index, : len(text)] = text
        report(len(done))

    with evaluating(model):
        everyone = [((), list(range(len(rows))))]
        shared = shared_prefixes([row.prompt for row in rows]) if reads_whole_text(model) else everyone
        for prefix, members in shared:
            verifier.share(prefix)
            for batch in _batches([rows[i] for i in members], len(prefix), max_tokens):
                finish(list(verifier.read(batch)))
        finish(list(verifier.finish()))
    processes.add_up(continuations)
    return continuations


def correct_prefix(continuations: np.ndarray, records: Sequence[EncodedRecord]) -> np.ndarray:
    """(n,) number of leading tokens of each continuation (n, k) that equal the text of the record's response."""
    pairs = zip(continuations.tolist(), records, strict=True)
    return np.array([common_prefix(row, r.response[: r.n_scored]) for row, r in pairs], dtype=np.int64)


def _until_break(record: EncodedRecord, plain: list[int], decoding: Decoding, eos_id: int) -> list[int] | None:
    """The plain continuation up to the first token that `decoding` forbids; None where it forbids none."""
    tokens = [*plain[: plain.index(ENDED)], eos_id] if ENDED in plain else plain
    end = first_break(record.prompt, tokens, decoding, eos_id)
    return None if end is None else tokens[:end]


def _batches(rows: Sequence[Row], skipped: int, max_tokens: int) -> list[list[Row]]:
    """Longest first, each at most `max_tokens` padded tokens, `skipped` of a row's own not counted."""
    batches: list[list[Row]] = []
    width = 0
    for row in sorted(rows, key=lambda row: (-len(row.prompt), row.index)):
        if not batches or (len(batches[-1]) + 1) * width > max_tokens:
            batches.append([])
            width = len(row.prompt) - skipped + FIRST_INSTALMENT
        batches[-1].append(row)
    return batches


def _check_room(model: PreTrainedModel, records: Sequence[EncodedRecord], k: int) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    longest = max(records, key=lambda r: len(r.prompt), default=None)
    if positions is not None and longest is not None and len(longest.prompt) + k - 1 > positions:
        raise KdleakError(
            f"record {longest.record_id[:12]}: a prompt of {len(longest.prompt)} tokens and {k} new ones exceed the "
            f"model's {positions} positions; lower model.max_prompt_tokens"
        )
