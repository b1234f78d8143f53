"""From a record to the text of its prompt: the study's Alpaca-style template, a chat template, or one of the user's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: One message of a chat: its `role` (system, user or assistant) and its `content`, a text.
Turn = Mapping[str, str]

_INTRO_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
_INTRO = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
#: Where the study's prompt ends; truncation never cuts into it.
TAIL = "\n\n### Response:\n"
#: Templates by name; any other text with {instruction} in it is a template of the user's own.
TEMPLATES = ("auto", "alpaca", "chat", "plain")
_FIELD = re.compile(r"\{(instruction|context)\}")
#: Stands for the instruction to find out what a template puts after it; no text contains it.
_MARK = "\ue000"


def prompt_text(instruction: str, context: str) -> str:
    """The prompt of the study (Taori et al. 2023), with and without input."""
    if context:
        return f"{_INTRO_WITH_INPUT}\n\n### Instruction:\n{instruction}\n\n### Input:\n{context}{TAIL}"
    return f"{_INTRO}\n\n### Instruction:\n{instruction}{TAIL}"


def introduction(context: str) -> str:
    """What `prompt_text` puts before "### Instruction:", the same in every prompt with, or without, a context."""
    return _INTRO_WITH_INPUT if context else _INTRO


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


def render_prompt(
    template: str,
    tokenizer: PreTrainedTokenizerBase,
    instruction: str,
    context: str,
    turns: Sequence[Turn] = (),
) -> str:
    """The text that a model reads before the response.

    turns: of a chat, all messages before the response; a chat template takes them as they are. Any other takes the last
    user turn for the instruction, and the turns before it for the context.
    """
    match template:
        case "plain":
            if not context:
                return instruction
            return f"{context}\n{instruction}" if turns else f"{instruction}\n{context}"
        case "alpaca":
            return prompt_text(instruction, context)
        case "chat":
            content = f"{instruction}\n\n{context}" if context else instruction
            return _chat(tokenizer, turns or [{"role": "user", "content": content}])
    fields = {"instruction": instruction, "context": context}
    return _FIELD.sub(lambda field: fields[field[1]], template)


def tail_length(template: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """Characters that `template` puts between the instruction (and context) and the response."""
    return len(render_prompt(template, tokenizer, _MARK, "").rpartition(_MARK)[2])


def _chat(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    try:
        text = tokenizer.apply_chat_template([*map(dict, turns)], tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program, and says what it likes: the record, for instance
        roles = ", ".join(turn["role"] for turn in turns)
        raise KdleakError(
            f"the tokenizer's chat template refuses the turns {roles} ({type(error).__name__}); "
            "use --template alpaca or plain"
        ) from error
    return str(text)
