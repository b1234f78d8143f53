"""Chat records: the `messages` of a row, as everyone fine-tunes on them.

Every assistant turn that answers a user or a tool is a record: its text is the response, all turns before it are its
prompt, system turns, earlier answers, calls of tools and what these gave too. What the assistant reasoned before an
answer stands in the prompt as well, right before it; it is never scored. What follows the last answer is not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdleak.core.errors import KdleakError
from kdleak.data.encoding import Encoder
from kdleak.data.sources import is_blank, well_formed
from kdleak.data.templates import Turn

#: Roles of messages; a reasoning turn is a part of the assistant's next one.
_ROLES = ("system", "developer", "user", "assistant", "tool", "reasoning")
#: Where messages of today hold what was reasoned, and what else a chat template may ask for.
_REASONING, _PASSED_ON = ("reasoning_content", "reasoning", "thinking"), ("tool_calls", "tool_call_id", "name")
#: Levels of a call's arguments.
_DEEPEST = 32
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """One assistant turn. turns: before it; where it was reasoned, an assistant turn with that text is the last of
    them. response: its text. message: its number among the messages, from 1."""

    turns: list[Turn]
    response: str
    message: int


def read_messages(value: Any, place: str) -> list[Answer]:
    """The answers of one conversation, in order: one at least.

    value: a list of {role, content}, or one as JSON (a cell of CSV). Raises KdleakError for what is no conversation.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):  # no JSON, a number of too many digits, or nested too deep
            raise KdleakError(f"{place}: field 'messages' is a text that is no JSON; give a list of messages") from None
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise KdleakError(f"{place}: field 'messages' is {type(value).__name__}, not a list of messages")
    turns = _folded([_turn(message, f"{place}, message {number}") for number, message in enumerate(value, start=1)])
    said = [i for i, (_, turn) in enumerate(turns) if turn["role"] == "assistant"]
    if not said:
        raise KdleakError(f"{place}: its messages have no assistant turn; there is no response to audit")
    found = [_answer(turns, i) for i in said if _answers(turns, i)]
    if found:
        return found
    if is_blank(turns[said[-1]][1]["content"]):
        raise KdleakError(f"{place}: the last assistant turn is empty; give it a text or remove the row")
    raise KdleakError(f"{place}: no user or tool turn stands right before an assistant turn")


def asking(turns: Sequence[Turn]) -> Sequence[Turn]:
    """`turns` without what was reasoned last: the last of them is the one that is answered."""
    return turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns


def transcript(turns: Sequence[Turn], system: bool = True) -> str:
    """Turns as plain text, a line each, for templates that know no roles. system: whether system turns are among it."""
    kept = [turn for turn in turns if system or turn["role"] not in ("system", "developer")]
    return "\n".join(f"{turn['role'].capitalize()}: {_text(turn)}" for turn in kept)


class ChatEncoder(Encoder):
    """An encoder that puts what was reasoned before an answer behind the template's prompt, as the model wrote it."""

    def prompt(self, instruction: str, context: str, turns: Sequence[Turn] = ()) -> str:
        asked = asking(turns)
        return super().prompt(instruction, context, asked) + "".join(turn["content"] for turn in turns[len(asked) :])


def _folded(turns: Sequence[Turn]) -> list[tuple[int, Turn]]:
    """(number from 1, turn), a reasoning turn as a part of the assistant's after it; one that nothing follows is left
    out."""
    folded, thought = [], ""
    for number, turn in enumerate(turns, start=1):
        if turn["role"] == "reasoning":
            thought += turn["content"]
        elif turn["role"] == "assistant" and thought.strip():
            folded.append((number, {"reasoning_content": thought, **turn}))
            thought = ""
        else:
            folded.append((number, turn))
    return folded


def _answers(turns: Sequence[tuple[int, Turn]], i: int) -> bool:
    """Whether assistant turn i has a text that answers somebody; a call of a tool alone is context."""
    return i > 0 and turns[i - 1][1]["role"] in ("user", "tool") and not is_blank(_parted(turns[i][1])[1])


def _answer(turns: Sequence[tuple[int, Turn]], i: int) -> Answer:
    number, turn = turns[i]
    thought, response = _parted(turn)
    before = [each for _, each in turns[:i]]
    return Answer([*before, {"role": "assistant", "content": thought}] if thought else before, response, number)


def _parted(turn: Turn) -> tuple[str, str]:
    """What was reasoned in an assistant turn, with the marks around it ("": nothing), and its answer."""
    if own := turn.get("reasoning_content", ""):
        return _marked(own), turn["content"]
    found = _THOUGHT.match(turn["content"])
    return (found[0], turn["content"][found.end() :]) if found else ("", turn["content"])


def _marked(thought: str) -> str:
    return f"<think>\n{thought.strip()}\n</think>\n\n"


def _text(turn: Turn) -> str:
    """A turn's content, behind what was reasoned and before the calls of tools, which a transcript shows as JSON."""
    calls = json.dumps(turn["tool_calls"]) if "tool_calls" in turn else ""
    thought = _marked(turn["reasoning_content"]) if "reasoning_content" in turn else ""
    return thought + "\n".join(part for part in (turn["content"], calls) if part)


def _turn(message: Any, place: str) -> Turn:
    if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
        role = message.get("role") if isinstance(message, Mapping) else None
        named = "a role of another name" if role else "no role"
        raise KdleakError(f"{place}: it has {named}; a message needs a role ({', '.join(_ROLES)}) and a content")
    content = message.get("content")
    extra: dict[str, Any] = {key: _plain(message[key], place) for key in _PASSED_ON if _given(message.get(key))}
    if content is None and "tool_calls" in extra:
        content = ""
    if isinstance(content, Iterable) and not isinstance(content, str | Mapping):
        content = _joined(list(content), place)
    if not isinstance(content, str):
        raise KdleakError(f"{place}: its content is {type(content).__name__}, not a text")
    thoughts = [message[key] for key in _REASONING if isinstance(message.get(key), str) and message[key].strip()]
    extra |= {"reasoning_content": well_formed(thoughts[0])} if thoughts else {}
    return {"role": message["role"], "content": well_formed(content), **extra}


def _given(value: Any) -> bool:
    return value is not None and (not hasattr(value, "__len__") or len(value) > 0)


def _plain(value: Any, place: str, depth: int = 0) -> Any:
    """A value as JSON has it; columns of Parquet hold arrays, and None for what an object lacks."""
    if depth > _DEEPEST:
        raise KdleakError(f"{place}: a value in it is nested more than {_DEEPEST} deep")
    if isinstance(value, Mapping):
        return {str(key): _plain(each, place, depth + 1) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each, place, depth + 1) for each in value]
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, bool | int | float):
        return value
    raise KdleakError(f"{place}: it holds a {type(value).__name__}; a message holds texts, numbers, lists and objects")


def _joined(parts: Sequence[Any], place: str) -> str:
    """A content in parts, all of which must be text."""
    for part in parts:
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
            raise KdleakError(f"{place}: its content has a part that is no text; only texts can be audited")
    return "".join(part["text"] for part in parts)
