"""How one model is asked about a record: its template, its tokenizer, its first token.

Models with different tokenizers each encode the text for themselves. Prompt and response are tokenized together, as
they stand in training, and split where the response's characters begin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kdleak.auditing.conversations import Turn
from kdleak.core.errors import KdleakError, nearest
from kdleak.data.encoding import EncodedRecord, prompt_text

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

#: Templates by name; any other text with {instruction} in it is a template of the user's own.
TEMPLATES = ("auto", "alpaca", "chat", "plain")
_FIELD = re.compile(r"\{(instruction|context)\}")
#: Stands for the instruction where it is to be seen what a template puts after it; no text contains it.
_MARK = "\ue000"


@dataclass(frozen=True)
class Limits:
    """Tokens of a prompt, and of prompt and response; what exceeds them is cut."""

    prompt: int = 256
    total: int = 512


@dataclass(frozen=True)
class Encoded:
    """records: token ids; characters: (n,) how many characters of each response they cover."""

    records: list[EncodedRecord]
    characters: np.ndarray


def choose_template(name: str, shape: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The template that `name` means for records of `shape` (instruction, prompt, messages or text).

    auto: instructions and chats go into the tokenizer's chat template, or without one into the study's (alpaca);
    prompts and texts stay as they are. Raises KdleakError for a name that is none.
    """
    if name == "auto":
        if shape not in ("instruction", "messages"):
            return "plain"
        return "chat" if tokenizer.chat_template else "alpaca"
    if name not in TEMPLATES and "{instruction}" not in name:
        raise KdleakError(f"--template: '{name}' is unknown; {nearest(name, TEMPLATES)} or a text with {{instruction}}")
    if name == "chat" and not tokenizer.chat_template:
        raise KdleakError("--template chat: the student's tokenizer has no chat template; use alpaca or plain")
    return "plain" if shape == "text" else name


class ModelEncoder:
    """Encodes records as one model reads them: a prompt of at most `limits.prompt` tokens, then the response.

    A prompt that is too long loses what stands before the template's tail; without a tail, its first tokens. A text
    without a prompt follows the tokenizer's first token (BOS, else EOS), which a prompt follows too where the
    tokenizer puts it there by itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, limits: Limits):
        if not tokenizer.is_fast:
            raise KdleakError(f"tokenizer {type(tokenizer).__name__} has no character offsets; use a fast tokenizer")
        self.tokenizer = tokenizer
        self.template = template
        self.limits = limits
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if first is None:
            raise KdleakError(
                "the tokenizer defines neither bos_token nor eos_token; a text has nothing to follow; name one"
            )
        self.first = first
        self.puts_first = template != "chat" and tokenizer("a")["input_ids"][:1] == [first]

    @property
    def eos_id(self) -> int:
        """What ends a text; -1, which no token is, where the tokenizer has nothing of the kind."""
        return -1 if self.tokenizer.eos_token_id is None else self.tokenizer.eos_token_id

    def prompt(self, instruction: str, context: str, turns: Sequence[Turn] = ()) -> str:
        """The text that the model reads before the response.

        turns: of a chat, all that was said; a chat template takes them as they are. Any other takes the last user turn
        for the instruction, and what was said before for the context.
        """
        match self.template:
            case "plain":
                if not context:
                    return instruction
                return f"{context}\n{instruction}" if turns else f"{instruction}\n{context}"
            case "alpaca":
                return prompt_text(instruction, context)
            case "chat":
                content = f"{instruction}\n\n{context}" if context else instruction
                return self._chat(turns or [{"role": "user", "content": content}])
        fields = {"instruction": instruction, "context": context}
        return _FIELD.sub(lambda field: fields[field[1]], self.template)

    def _chat(self, turns: Sequence[Turn]) -> str:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            reason = " ".join(str(error).split())[:100]
            raise KdleakError(
                f"the tokenizer's chat template refuses the turns {roles} ({reason}); use --template alpaca or plain"
            ) from None

    def encode(self, frame: pd.DataFrame) -> Encoded:
        """Encode the rows of a table (record_id, instruction, context, response; of chats, turns), in its order."""
        turns = frame["turns"] if "turns" in frame else [()] * len(frame)
        asked = zip(frame["instruction"], frame["context"], turns, strict=True)
        prompts = [self.prompt(*each) for each in asked]
        responses = list(frame["response"])
        found = self.tokenizer(
            [p + r for p, r in zip(prompts, responses, strict=True)],
            add_special_tokens=False,
            # Only a chat template writes special tokens; anywhere else their names are ordinary text.
            split_special_tokens=self.template != "chat",
            return_offsets_mapping=True,
        )
        tail = len(self.prompt(_MARK, "").rpartition(_MARK)[2])
        rows = zip(frame["record_id"], prompts, responses, found["input_ids"], found["offset_mapping"], strict=True)
        records, characters = [], []
        for record_id, prompt, response, ids, offsets in rows:
            record, covered = self._split(record_id, len(prompt), len(response), ids, offsets, tail)
            records.append(record)
            characters.append(covered)
        return Encoded(records, np.array(characters, dtype=np.int64))

    def _split(
        self,
        record_id: str,
        n_prompt: int,
        n_response: int,
        ids: Sequence[int],
        offsets: Sequence[tuple[int, int]],
        tail: int,
    ) -> tuple[EncodedRecord, int]:
        """The record and the characters of its response that are kept. A token across the border is the response's."""
        border = next((i for i, (_, end) in enumerate(offsets) if end > n_prompt), len(ids))
        prompt = self._shortened(ids[:border], [start for start, _ in offsets[:border]], n_prompt - tail)
        if self.puts_first or not prompt:
            prompt = [self.first, *prompt]
        room = self.limits.total - len(prompt)
        kept = list(ids[border : border + room])
        if not kept:
            raise KdleakError(
                f"record {record_id[:12]}: its response has no token, or no room after the prompt; raise --max-tokens"
            )
        whole = border + len(kept) == len(ids)
        covered = n_response if whole else offsets[border + len(kept) - 1][1] - n_prompt
        ended = [self.eos_id] if whole and len(kept) < room and self.eos_id >= 0 else []
        return EncodedRecord(record_id, tuple(prompt), (*kept, *ended), n_scored=len(kept)), covered

    def _shortened(self, ids: Sequence[int], starts: Sequence[int], tail_start: int) -> list[int]:
        """At most `limits.prompt` tokens, the template's tail among them: head and tail, or without a tail the end."""
        if len(ids) <= self.limits.prompt:
            return list(ids)
        tail = [token for token, start in zip(ids, starts, strict=True) if start >= tail_start]
        room = self.limits.prompt - len(tail)
        if room < 0:
            raise KdleakError(
                f"--max-prompt-tokens {self.limits.prompt} has no room for the template's tail; "
                f"give more than {len(tail)}"
            )
        return [*ids[:room], *tail] if tail else list(ids[-self.limits.prompt :])


def encode_alike(frame: pd.DataFrame, encoders: dict[str, ModelEncoder]) -> tuple[dict[str, list[EncodedRecord]], int]:
    """The same text for every model: a response that one of them has to cut is cut for all, at the same character.

    Returns the records by model, and how many responses were cut.
    """
    found = {name: encoder.encode(frame) for name, encoder in encoders.items()}
    shortest = np.min([each.characters for each in found.values()], axis=0)
    lengths = frame["response"].str.len().to_numpy()
    cut = frame.assign(response=[text[:n] for text, n in zip(frame["response"], shortest, strict=True)])
    same = {
        name: each.records if (each.characters == shortest).all() else encoders[name].encode(cut).records
        for name, each in found.items()
    }
    return same, int((shortest < lengths).sum())
