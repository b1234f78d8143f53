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

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.core import distributed
from kdleak.core.errors import KdleakError
from kdleak.core.progress import Advance
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.decoding import PLAIN, Decoding
from kdleak.inference.scoring import evaluating
from kdleak.inference.shared_prefix import common_prefix, reads_whole_text, shared_prefixes
from kdleak.inference.speculative import FIRST_INSTALMENT, Row, Verifier

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.inference.token_statistics import TokenStatistics

#: Bytes of keys and values that rows may wait with until they are continued side by side.
POOL_BYTES = 512 * 2**20
#: Stands in a row of continuations from the place on where the model had ended the text (no token id is negative).
ENDED = -1


def greedy_continuations(
    model: PreTrainedModel,
    records: Sequence[EncodedRecord],
    eos_id: int,
    k: int = 32,
    *,
    decoding: Decoding = PLAIN,
    **options: Any,
) -> np.ndarray:
    """(n, k) int64: `continuations_under` one decoding."""
    return continuations_under([decoding], model, records, eos_id, k, **options)[0]


def continuations_under(
    decodings: Sequence[Decoding],
    model: PreTrainedModel,
    records: Sequence[EncodedRecord],
    eos_id: int,
    k: int = 32,
    *,
    known: Sequence[Sequence[int]] | None = None,
    max_tokens: int = 4096,
    progress: Advance | None = None,
) -> np.ndarray:
    """(d, n, k) int64 token ids that greedy decoding under each of `decodings` appends to each record's prompt, ENDED
    in place of EOS and after it.

    A record's own response serves as its draft: it decides how long this takes, never the result.

    decodings:  one, or several of which the first is PLAIN; each costs what it says otherwise than the first.
    known:      a better draft for each record: how its plain continuation is known to begin (`known_starts`).
    max_tokens: padded tokens of one teacher-forced batch; keys and values of as many, or POOL_BYTES of them, are held
                for continuation (memory, not results, depends on it).
    progress:   advanced by the continuations done, len(decodings) a record in all.
    Several processes share the records, and each of them returns the continuations of all.
    Raises KdleakError where a prompt and k tokens do not fit the model's positions.
    """
    _check_room(model, records, k)
    config = model.config
    token_bytes = 2 * config.num_hidden_layers * config.hidden_size * model.dtype.itemsize
    verifier = Verifier(model, eos_id, k, decodings, pool_tokens=max(max_tokens, POOL_BYTES // token_bytes))
    continuations = np.full((len(decodings), len(records), k), ENDED, dtype=np.int64)
    drafts = [r.response for r in records] if known is None else known
    first = FIRST_INSTALMENT if known is None else k
    mine = distributed.shard_by_length([len(r.prompt) for r in records])
    continuations[:, np.setdiff1d(np.arange(len(records)), mine)] = 0  # what another process adds
    rows = [verifier.row(i, records[i].prompt, drafts[i], first) for i in mine]
    advance = progress or (lambda n: None)

    def finish(done: Sequence[Row]) -> None:
        for row in done:
            text = row.tokens[:-1] if row.tokens[-1] == eos_id else row.tokens
            continuations[list(row.bans), row.index, : len(text)] = text
        advance(sum(len(row.bans) for row in done))

    with evaluating(model):
        everyone = [((), list(range(len(rows))))]
        shared = shared_prefixes([row.prompt for row in rows]) if reads_whole_text(model) else everyone
        for prefix, members in shared:
            verifier.share(prefix)
            for batch in _batches([rows[i] for i in members], len(prefix), max_tokens):
                finish(list(verifier.read(batch)))
        finish(list(verifier.finish()))
    distributed.all_reduce_sum_(continuations)
    return continuations


def known_starts(statistics: TokenStatistics, records: Sequence[EncodedRecord]) -> list[tuple[int, ...]]:
    """What a teacher-forced pass tells of each plain greedy continuation: the response for as long as each of its
    tokens is the model's first choice, then what the model chooses in place of the next."""
    starts = []
    for r, begin, end in zip(records, statistics.offsets[:-1], statistics.offsets[1:], strict=True):
        choices = statistics.argmax[begin:end].tolist()
        starts.append(tuple(choices[: common_prefix(choices, r.response) + 1]))
    return starts


def correct_prefix(continuations: np.ndarray, records: Sequence[EncodedRecord]) -> np.ndarray:
    """(n,) number of leading tokens of each continuation (n, k) that equal the text of the record's response."""
    pairs = zip(continuations.tolist(), records, strict=True)
    return np.array([common_prefix(row, r.response[: r.n_scored]) for row, r in pairs], dtype=np.int64)


def _batches(rows: Sequence[Row], skipped: int, max_tokens: int) -> list[list[Row]]:
    """Longest first, each at most `max_tokens` padded tokens, `skipped` of a row's own not counted."""
    batches: list[list[Row]] = []
    width = 0
    for row in sorted(rows, key=lambda row: (-len(row.prompt) - row.first, row.index)):
        if not batches or (len(batches[-1]) + 1) * width > max_tokens:
            batches.append([])
            width = len(row.prompt) - skipped + row.first
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
