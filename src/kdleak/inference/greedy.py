"""Greedy continuations that generate nothing which a teacher-forced pass has already shown.

Greedy decoding reproduces a response for as long as its tokens are the model's first choice, and one pass over prompt
and response shows at every position at once what that choice is. So scoring settles every record that the model
reproduces, and the beginning of all others; these are continued from their first token of another kind. A second
decoding follows the first for as long as it allows the same tokens, and is continued from there.

The tokens are those of `model.generate(do_sample=False, max_new_tokens=k)`. What can differ is rounding: the two sum
in another order, so where two tokens' logits agree to the last bits of the model's dtype (a near-tie: about one token
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
from kdleak.data.batching import packed
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.decoding import PLAIN, Ban, Decoding
from kdleak.inference.generation import Component, continue_batch
from kdleak.inference.scoring import evaluating, token_statistics
from kdleak.inference.shared_prefix import common_prefix
from kdleak.models.architecture import positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.inference.token_statistics import TokenStatistics

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

    known:      how each record's plain continuation begins (`known_starts`); None: it is found out by scoring.
    max_tokens: padded tokens of one batch (memory, not results, depends on it).
    progress:   advanced by the continuations done, len(decodings) a record in all.
    Several processes share the records, and each of them returns the continuations of all.
    Raises KdleakError where a prompt and k tokens do not fit the model's positions.
    """
    _check_room(model, records, k)
    if known is None:
        known = known_starts(token_statistics(model, records, max_tokens=max_tokens), records)
    continuations = np.zeros((len(decodings), len(records), k), dtype=np.int64)
    shard = distributed.shard_by_length([len(r.prompt) for r in records])
    prompts, starts = [records[i].prompt for i in shard], [_ended(known[i], eos_id, k) for i in shard]
    with evaluating(model):
        for number, decoding in enumerate(decodings):
            texts = _complete(model, decoding, prompts, starts, eos_id, k, max_tokens, progress)
            for i, text in zip(shard, texts, strict=True):
                row = [token for token in text if token != eos_id]
                continuations[number, i] = row + [ENDED] * (k - len(row))
            starts = texts if decoding.free else starts
    distributed.all_reduce_sum_(continuations)
    return continuations


def _complete(
    model: PreTrainedModel,
    decoding: Decoding,
    prompts: Sequence[tuple[int, ...]],
    starts: Sequence[tuple[int, ...]],
    eos_id: int,
    k: int,
    max_tokens: int,
    progress: Advance | None,
) -> list[tuple[int, ...]]:
    """The continuations under `decoding`, of k tokens or ending with EOS, given how the plain ones begin."""
    bans = [Ban(decoding, prompt, eos_id) for prompt in prompts]
    texts = [ban.allowed_prefix(start) for ban, start in zip(bans, starts, strict=True)]
    open_rows = [i for i, text in enumerate(texts) if len(text) < k and eos_id not in text]
    report = progress or (lambda _: None)
    report(len(texts) - len(open_rows))
    for batch in packed([len(prompts[i]) + k for i in open_rows], max_tokens):
        rows = [open_rows[j] for j in batch]
        read = [prompts[i] + texts[i] for i in rows]
        limits = [k - len(texts[i]) for i in rows]
        allowed = None if decoding.free else [bans[i] for i in rows]
        for i, more in zip(rows, continue_batch([Component(model)], read, limits, eos_id, bans=allowed), strict=True):
            texts[i] += more
        report(len(rows))
    return texts


def _ended(start: Sequence[int], eos_id: int, k: int) -> tuple[int, ...]:
    """`start` up to its first EOS, k tokens at most."""
    start = tuple(start[:k])
    return start[: start.index(eos_id) + 1] if eos_id in start else start


def known_starts(statistics: TokenStatistics, records: Sequence[EncodedRecord]) -> list[tuple[int, ...]]:
    """What a teacher-forced pass tells of each plain greedy continuation: the response for as long as each of its
    tokens is the model's first choice, then what the model chooses in place of the next, where that was kept."""
    starts = []
    for r, begin, end in zip(records, statistics.offsets[:-1], statistics.offsets[1:], strict=True):
        right = int(np.argmax(np.append(statistics.missed[begin:end], True)))
        chosen = () if statistics.argmax is None else statistics.argmax[begin + right : min(begin + right + 1, end)]
        starts.append((*r.response[:right], *(int(token) for token in chosen)))
    return starts


def correct_prefix(continuations: np.ndarray, records: Sequence[EncodedRecord]) -> np.ndarray:
    """(n,) number of leading tokens of each continuation (n, k) that equal the text of the record's response."""
    pairs = zip(continuations.tolist(), records, strict=True)
    return np.array([common_prefix(row, r.response[: r.n_scored]) for row, r in pairs], dtype=np.int64)


def _check_room(model: PreTrainedModel, records: Sequence[EncodedRecord], k: int) -> None:
    longest = max(records, key=lambda r: len(r.prompt), default=None)
    if longest is not None and len(longest.prompt) + k - 1 > positions(model.config):
        raise KdleakError(
            f"record {longest.record_id[:12]}: a prompt of {len(longest.prompt)} tokens and {k} new ones exceed the "
            f"model's {positions(model.config)} positions; lower model.max_prompt_tokens"
        )
