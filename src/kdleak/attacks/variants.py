"""The same records put to the model otherwise: lower-cased, or behind a prefix of non-members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kdleak.attacks.registry import PassInput, TextPass
from kdleak.data.encoding import EncodedRecord, Encoder, decoded
from kdleak.inference.token_statistics import TokenStatistics

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

#: Tokens of the prefix of non-members, where `options` do not say.
PREFIX_TOKENS = 128


def lowercased(encoder: Encoder, records: pd.DataFrame) -> list[EncodedRecord]:
    """`records` with the response in lower case; prompts and record ids stay."""
    return encoder.encode_frame(records.assign(response=records["response"].str.lower()))


#: ReCaLL's shots, at most (Xie et al. 2024, sec. 4).
SHOTS = 12


def prefixed(
    records: Sequence[EncodedRecord], shots: Sequence[EncodedRecord], *, max_prefix: int, max_positions: int
) -> list[EncodedRecord]:
    """`records` behind one fixed prefix: the responses of up to `SHOTS` of `shots`, in order, as far as `max_prefix`
    tokens reach; longer ones are passed over.

    As in the authors' code the texts follow each other bare: no template, no EOS, nothing between them. Where prefix
    and record together exceed `max_positions`, the prefix loses its first tokens; the record never does.
    """
    prefix: tuple[int, ...] = ()
    used = 0
    for shot in shots:
        if used < SHOTS and len(prefix) + shot.n_scored <= max_prefix:
            prefix += shot.response[: shot.n_scored]
            used += 1
    placed = []
    for r in records:
        room = max(0, max_positions - len(r.prompt) - len(r.response))
        placed.append(replace(r, prompt=prefix[max(0, len(prefix) - room) :] + r.prompt))
    return placed


def _prefixed_records(inputs: PassInput) -> list[EncodedRecord]:
    longest = inputs.options.get("prefix_tokens", PREFIX_TOKENS)
    return prefixed(inputs.records, inputs.population, max_prefix=longest, max_positions=inputs.max_positions)


LOWERCASE = TextPass("lowercase", lambda inputs: lowercased(inputs.encoder, inputs.frame))
PREFIXED = TextPass("prefixed", _prefixed_records, needs_population=True)


def argmax_texts(tokenizer: PreTrainedTokenizerBase, statistics: TokenStatistics) -> list[str]:
    """What the model's greedy choices spell at the scored positions of each record, given the true text before each;
    none where these were not kept."""
    if statistics.argmax is None:
        return []
    pieces = np.split(statistics.argmax, statistics.offsets[1:-1])
    return decoded(tokenizer, [piece.tolist() for piece in pieces])
