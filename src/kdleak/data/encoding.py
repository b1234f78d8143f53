"""From a record to token ids: the study's Alpaca-style template, and truncation that keeps its tail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

_INTRO_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
_INTRO = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
#: Where the prompt ends; truncation never cuts into it.
TAIL = "\n\n### Response:\n"


def prompt_text(instruction: str, context: str) -> str:
    """The prompt of the study (Taori et al. 2023), with and without input."""
    if context:
        return f"{_INTRO_WITH_INPUT}\n\n### Instruction:\n{instruction}\n\n### Input:\n{context}{TAIL}"
    return f"{_INTRO}\n\n### Instruction:\n{instruction}{TAIL}"


@dataclass(frozen=True)
class EncodedRecord:
    """Token ids of one record: `prompt`, then `response` (which ends with EOS unless it was truncated).

    `n_scored` is the number of response tokens that belong to the text (EOS is trained on, never scored).
    """

    record_id: str
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    n_scored: int


class Encoder:
    """Encodes records with one tokenizer, under the limits of the study (prompt <= 256, total <= 512 tokens).

    Text is data: a special token's string inside a record is encoded as ordinary characters.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int = 256, max_tokens: int = 512):
        if not tokenizer.is_fast:
            raise KdleakError(f"tokenizer {type(tokenizer).__name__} has no character offsets; use a fast tokenizer")
        if tokenizer.eos_token_id is None:
            raise KdleakError("the tokenizer defines no eos_token; a response could never be learned to end; name one")
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens
        self.max_tokens = max_tokens

    def encode(self, record_id: str, instruction: str, context: str, response: str) -> EncodedRecord:
        """Encode one record; raises KdleakError where the response yields no token."""
        return self._join(record_id, *self._tokenize([prompt_text(instruction, context)], [response])[0])

    def encode_frame(self, frame: pd.DataFrame) -> list[EncodedRecord]:
        """Encode the rows of a records table, in its order."""
        prompts = [prompt_text(i, c) for i, c in zip(frame["instruction"], frame["context"], strict=True)]
        pairs = self._tokenize(prompts, list(frame["response"]))
        return [self._join(rid, *pair) for rid, pair in zip(frame["record_id"], pairs, strict=True)]

    def introduction_length(self, context: str) -> int:
        """Tokens of the template before "### Instruction:", the same in every prompt with, or without, a context."""
        introduction = _INTRO_WITH_INPUT if context else _INTRO
        return len(self.tokenizer(introduction, add_special_tokens=False)["input_ids"])

    def _tokenize(self, prompts: list[str], responses: list[str]) -> Iterable[tuple[list[int], list[int]]]:
        if not prompts:
            return []
        options = {"add_special_tokens": False, "split_special_tokens": True}
        # A lone surrogate is no character and cannot be encoded: it becomes the replacement character.
        prompts = [p.encode("utf-8", "replace").decode() for p in prompts]
        responses = [r.encode("utf-8", "replace").decode() for r in responses]
        encoded = self.tokenizer(prompts, return_offsets_mapping=True, **options)
        prompt_ids = [
            self._truncate(ids, [start for start, _ in offsets], len(text) - len(TAIL))
            for ids, offsets, text in zip(encoded["input_ids"], encoded["offset_mapping"], prompts, strict=True)
        ]
        return list(zip(prompt_ids, self.tokenizer(responses, **options)["input_ids"], strict=True))

    def _truncate(self, ids: list[int], starts: list[int], tail_start: int) -> list[int]:
        """Keep the head and the whole tail; what is cut comes from the middle."""
        if len(ids) <= self.max_prompt_tokens:
            return ids
        tail = [i for i, start in zip(ids, starts, strict=True) if start >= tail_start]
        room = self.max_prompt_tokens - len(tail)
        if room < 0:
            raise KdleakError(
                f"max_prompt_tokens = {self.max_prompt_tokens} has no room for the template's tail; "
                f"raise it to more than {len(tail)}"
            )
        return ids[:room] + tail

    def _join(self, record_id: str, prompt: list[int], response: list[int]) -> EncodedRecord:
        if not response:
            raise KdleakError(
                f"record {record_id[:12]}: the response has no token; give it a text or remove the record"
            )
        room = self.max_tokens - len(prompt)
        kept = response[:room]
        ended = (*kept, self.tokenizer.eos_token_id) if len(response) < room else tuple(kept)
        return EncodedRecord(record_id, tuple(prompt), ended, n_scored=len(kept))
