"""Chat records: the `messages` of a row, as everyone fine-tunes on them.

The last assistant turn is the response; all turns before it are its prompt, system turns and earlier answers too. To
audit each answer of a conversation, give a row for each. What follows the last assistant turn is not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdleak.core.errors import KdleakError
from kdleak.data.sources import well_formed
from kdleak.data.templates import Turn

_ROLES = ("system", "user", "assistant")


def read_messages(value: Any, place: str) -> tuple[list[Turn], str]:
    """The turns before the last assistant turn, the last of them the user's, and that turn's text.

    value: a list of {role, content}, or one as JSON (a cell of CSV). Raises KdleakError for what is no conversation.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):  # no JSON, a number of too many digits, or nested too deep
            raise KdleakError(f"{place}: field 'messages' is a text that is no JSON; give a list of messages") from None
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise KdleakError(f"{place}: field 'messages' is {type(value).__name__}, not a list of messages")
    turns = [_turn(message, f"{place}, message {number}") for number, message in enumerate(value, start=1)]
    answers = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    if not answers:
        raise KdleakError(f"{place}: its messages have no assistant turn; there is no response to audit")
    before, response = turns[: answers[-1]], turns[answers[-1]]["content"]
    if not before or before[-1]["role"] != "user":
        raise KdleakError(f"{place}: no user turn stands right before the last assistant turn")
    return before, response


def transcript(turns: Sequence[Turn], system: bool = True) -> str:
    """Turns as plain text, a line each, for templates that know no roles. system: whether system turns are among it."""
    kept = [turn for turn in turns if system or turn["role"] != "system"]
    return "\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in kept)


def _turn(message: Any, place: str) -> Turn:
    if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
        role = message.get("role") if isinstance(message, Mapping) else None
        named = "a role of another name" if role else "no role"
        raise KdleakError(f"{place}: it has {named}; a message needs a role ({', '.join(_ROLES)}) and a content")
    content = message.get("content")
    if isinstance(content, Iterable) and not isinstance(content, str | Mapping):
        content = _joined(list(content), place)
    if not isinstance(content, str):
        raise KdleakError(f"{place}: its content is {type(content).__name__}, not a text")
    return {"role": message["role"], "content": well_formed(content)}


def _joined(parts: Sequence[Any], place: str) -> str:
    """A content in parts, all of which must be text."""
    for part in parts:
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
            raise KdleakError(f"{place}: its content has a part that is no text; only texts can be audited")
    return "".join(part["text"] for part in parts)
