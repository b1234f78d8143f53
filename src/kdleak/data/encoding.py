"""From a record to token ids, for training and for audits alike.

Prompt and response are tokenized together and split where the response's characters begin: the response has the tokens
that it has in the text as a whole, for tokenizers that mark the start of a text (SentencePiece) too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from kdleak.core.errors import KdleakError
from kdleak.core.limits import within_limits
from kdleak.data.templates import Turn, introduction, prompt_text, render_prompt, tail_length

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


#: Characters of a token; the longest of real vocabularies have a few hundred.
_LONGEST_TOKEN = 1024


@dataclass(frozen=True)
class EncodedRecord:
    """Token ids of one record: `prompt`, then `response` (which ends with EOS unless it was truncated).

    `n_scored` is the number of response tokens that belong to the text (EOS is trained on, never scored).
    """

    record_id: str
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    n_scored: int


@dataclass(frozen=True)
class Encoded:
    """records: n encoded records.

    spans:      of each, (m, 2) first and last + 1 character of every token of the response, truncated ones included,
                counted from the response's first; a token across the border to the prompt begins below 0.
    characters: (n,) characters of each response that its record covers.
    shortened:  (n,) whether the prompt was longer than its limit and lost tokens.
    """

    records: list[EncodedRecord]
    spans: list[np.ndarray]
    characters: np.ndarray
    shortened: np.ndarray


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a response; `Encoder` refuses a tokenizer that has none."""
    return cast("int", tokenizer.eos_token_id)


def first_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that a text without a prompt follows: BOS, or EOS where the tokenizer has none."""
    bos = cast("int | None", tokenizer.bos_token_id)
    return eos_id(tokenizer) if bos is None else bos


def decoded(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], skip_special_tokens: bool = False
) -> list[str]:
    """The text of each of `rows` of token ids. A decoder is a program of the model folder's: it runs within limits."""
    tokens = sum(map(len, rows))

    def decode() -> list[str]:
        texts = [str(tokenizer.decode([*row], skip_special_tokens=skip_special_tokens)) for row in rows]
        if (characters := sum(map(len, texts))) > _LONGEST_TOKEN * tokens:
            raise KdleakError(
                f"the tokenizer's decoder makes {characters:,} characters of {tokens:,} tokens; use another model"
            )
        return texts

    return within_limits(decode, "putting what the model says into text", tokens)


class Encoder:
    """Encodes records with one tokenizer, within `max_prompt_tokens`, and `max_tokens` of prompt and response.

    template: `alpaca` (the study's), `chat` (the tokenizer's own), `plain`, or a text with {instruction}, {context}.

    A prompt that is too long loses what stands before the template's tail; without a tail, its first tokens. BOS stands
    first where the tokenizer puts it there by itself; a text without a prompt follows it (or EOS) in any case. Text is
    data: a special token's string inside a record is encoded as ordinary characters, except in a chat template.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_prompt_tokens: int = 256,
        max_tokens: int = 512,
        template: str = "alpaca",
    ):
        if not tokenizer.is_fast:
            raise KdleakError(f"tokenizer {type(tokenizer).__name__} has no character offsets; use a fast tokenizer")
        if tokenizer.eos_token_id is None:
            raise KdleakError("the tokenizer defines no eos_token; a response could never be learned to end; name one")
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens
        self.max_tokens = max_tokens
        self.template = template
        self._first = first_id(tokenizer)
        first = within_limits(lambda: tokenizer("a")["input_ids"][:1], "tokenizing a letter")
        self.starts_with_bos = template != "chat" and first == [self._first]

    @property
    def eos_id(self) -> int:
        return eos_id(self.tokenizer)

    def prompt(self, instruction: str, context: str, turns: Sequence[Turn] = ()) -> str:
        """The text that the model reads before the response (`kdleak.data.templates.render_prompt`)."""
        return render_prompt(self.template, self.tokenizer, instruction, context, turns)

    def encode(self, record_id: str, instruction: str, context: str, response: str) -> EncodedRecord:
        """Encode one record; raises KdleakError where no token of the response is left."""
        return self._encode([record_id], [self.prompt(instruction, context)], [response]).records[0]

    def encode_frame(self, frame: pd.DataFrame) -> list[EncodedRecord]:
        """Encode the rows of a records table, in its order."""
        return self.encode_with_spans(frame).records

    def encode_with_spans(self, frame: pd.DataFrame) -> Encoded:
        """Encode the rows of a table (record_id, instruction, context, response; of chats, turns), in its order."""
        turns = frame["turns"] if "turns" in frame else [()] * len(frame)
        fields = list(zip(frame["instruction"], frame["context"], turns, strict=True))
        record_ids, responses = list(frame["record_id"]), list(frame["response"])
        characters = sum(map(len, responses)) + sum(len(text) for each in fields for text in each[:2])
        return within_limits(
            lambda: self._encode(record_ids, [self.prompt(*each) for each in fields], responses),
            "putting the records into the model's template and tokenizing them",
            characters,
        )

    def introduction_length(self, context: str) -> int:
        """Tokens before "### Instruction:" in every prompt of the study's template with, or without, a context."""
        ends = [end for _, end in self._tokenize([prompt_text("", context)])["offset_mapping"][0]]
        return self.starts_with_bos + sum(end <= len(introduction(context)) for end in ends)

    def _encode(self, record_ids: list[str], prompts: list[str], responses: list[str]) -> Encoded:
        if not record_ids:
            return Encoded([], [], np.zeros(0, np.int64), np.zeros(0, bool))
        # A lone surrogate is no character and cannot be encoded: it becomes the replacement character.
        prompts, responses = ([t.encode("utf-8", "replace").decode() for t in each] for each in (prompts, responses))
        encoded = self._tokenize([p + r for p, r in zip(prompts, responses, strict=True)])
        tail = tail_length(self.template, self.tokenizer)
        rows = zip(record_ids, prompts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        pairs = [self._split(record_id, len(prompt), ids, offsets, tail) for record_id, prompt, ids, offsets in rows]
        lengths = [len(text) for text in responses]
        covered = [
            length if record.n_scored == len(spans) else spans[record.n_scored - 1, 1]
            for (record, spans), length in zip(pairs, lengths, strict=True)
        ]
        limit = self.max_prompt_tokens - self.starts_with_bos
        offsets = zip(encoded["offset_mapping"], prompts, strict=True)
        shortened = [sum(end <= len(prompt) for _, end in each) > limit for each, prompt in offsets]
        records, spans = [record for record, _ in pairs], [each for _, each in pairs]
        return Encoded(records, spans, np.array(covered, dtype=np.int64), np.array(shortened, dtype=bool))

    def _tokenize(self, texts: list[str]) -> dict[str, list]:
        split = self.template != "chat"
        return dict(
            self.tokenizer(texts, split_special_tokens=split, add_special_tokens=False, return_offsets_mapping=True)
        )

    def _split(
        self, record_id: str, n_prompt: int, ids: Sequence[int], offsets: Sequence[tuple[int, int]], tail: int
    ) -> tuple[EncodedRecord, np.ndarray]:
        """The record, and the spans of its response's tokens. A token across the border is the response's."""
        border = next((i for i, (_, end) in enumerate(offsets) if end > n_prompt), len(ids)) if n_prompt else 0
        prompt = self._truncated(ids[:border], [start for start, _ in offsets[:border]], n_prompt - tail)
        if self.starts_with_bos or not prompt:
            prompt = [self._first, *prompt]
        room = self.max_tokens - len(prompt)
        kept = ids[border : border + room]
        if not kept:
            raise KdleakError(
                f"record {record_id[:12]}: its response has no token, or no room after the prompt; "
                "give it a text, or raise max_tokens"
            )
        ended = [self.eos_id] if border + len(kept) == len(ids) and len(kept) < room else []
        spans = np.array(offsets[border:], dtype=np.int64) - n_prompt
        return EncodedRecord(record_id, tuple(prompt), (*kept, *ended), n_scored=len(kept)), spans

    def _truncated(self, ids: Sequence[int], starts: Sequence[int], tail_start: int) -> list[int]:
        """At most as many tokens as a prompt may have: the head and the template's tail, or without a tail the end."""
        limit = self.max_prompt_tokens - self.starts_with_bos
        if len(ids) <= limit:
            return list(ids)
        tail = [token for token, start in zip(ids, starts, strict=True) if start >= tail_start]
        room = limit - len(tail)
        if room < 0:
            raise KdleakError(
                f"max_prompt_tokens = {self.max_prompt_tokens} has no room for the template's tail; "
                f"raise it to more than {len(tail)}"
            )
        return [*ids[:room], *tail] if tail else list(ids[-limit:])
