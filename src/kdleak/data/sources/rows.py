"""A row with Dolly's or Alpaca's fields becomes a record; one that cannot is an error that says where and why.

An error quotes nothing out of a row: a header may be a record (a CSV without one), a task may be free text.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kdleak.core.errors import KdleakError
from kdleak.data.records import ROLES, Fact, Record

#: Accepted field names: Dolly's, then Alpaca's.
_CONTEXT = ("context", "input")
_RESPONSE = ("response", "output")
_TASK = ("category", "task")
#: The task of a row whose source names none.
NO_TASK = "unspecified"
#: A task, or a kind of fact, that is a name. Results show it; any other text of the field stays with the records.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
#: Field names that everyone uses, and that an error may therefore show.
_USUAL = {
    *("instruction", "context", "input", "response", "output", "prompt", "completion", "messages", "text"),
    *("category", "task", "role", "facts", "question", "answer", "conversations", "id", "content", "query", "label"),
}


@dataclass(frozen=True)
class SourceRow:
    """A record and, where the source brings a split of its own, its role."""

    record: Record
    role: str | None = None


def to_records(
    rows: Iterable[tuple[str, dict[str, Any]]], origin: str, needs_role: bool = False
) -> Iterator[SourceRow]:
    """`rows` (place, fields) as records; `origin` is what errors call the source.

    needs_role: each row brings a `role` of its own.
    """
    empty = True
    for place, row in rows:
        empty = False
        yield _row(row, f"{origin}, {place}", needs_role)
    if empty:
        raise KdleakError(f"{origin}: no record in it; it needs one record a line")


def _row(row: dict[str, Any], place: str, needs_role: bool) -> SourceRow:
    response = _text(row, _RESPONSE, place)
    if is_blank(response):
        raise KdleakError(f"{place}: the response is empty; give it a text or remove the row")
    record = Record(
        task=task_name(_text(row, _TASK, place, default=NO_TASK)),
        instruction=_text(row, ("instruction",), place),
        context=_text(row, _CONTEXT, place, default=""),
        response=response,
        facts=_facts(row.get("facts"), response, place),
    )
    if not needs_role:
        return SourceRow(record)
    role = row.get("role")
    if role not in ROLES:
        raise KdleakError(f"{place}: its role is none; data.roles=column needs one of {', '.join(ROLES)}")
    return SourceRow(record, role)


def _text(row: dict[str, Any], names: tuple[str, ...], place: str, default: str | None = None) -> str:
    for name in names:
        if (value := row.get(name)) is not None:
            if not isinstance(value, str):
                raise KdleakError(
                    f"{place}: field '{name}' is {type(value).__name__}, not a text; write it as a string"
                )
            return well_formed(value)
    if default is not None:
        return default
    raise KdleakError(
        f"{place}: no '{names[0]}'; it has {field_names(row)}; fields must be instruction, context, response "
        "(Dolly) or instruction, input, output (Alpaca)"
    )


def field_names(row: Iterable[str]) -> str:
    """The usual names among a row's fields, and how many others it has, whose names may be a record's text."""
    names = [name for name in row if isinstance(name, str)]
    usual = [f"'{name}'" for name in names if name in _USUAL]
    others = len(names) - len(usual)
    counted = [f"{others} field{'s' * (others > 1)} of {'other' if usual else 'unusual'} names"] if others else []
    return ", ".join([*usual[:8], *counted]) or "no field"


def task_name(text: str) -> str:
    """The task as results may show it: a short name as it is, other text as eight digits of its hash."""
    return _short(text, "task") if text else NO_TASK


def _short(text: str, what: str) -> str:
    if _NAME.fullmatch(text):
        return text
    return f"{what}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing of `text`: spaces, controls, marks of no width."""
    return all(unicodedata.category(c) in ("Cc", "Cf", "Zs", "Zl", "Zp") for c in text)


def well_formed(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which JSON can spell and no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _facts(value: object, response: str, place: str) -> tuple[Fact, ...]:
    """Optional `facts`: a list of {kind, value} whose values stand verbatim in the response."""
    if not value:
        return ()
    try:
        facts = tuple(Fact(_short(well_formed(str(f["kind"])), "fact"), well_formed(str(f["value"]))) for f in value)  # type: ignore[union-attr]
    except (TypeError, KeyError):
        raise KdleakError(f"{place}: facts is no list of {{kind, value}}; write one or leave it out") from None
    for fact in facts:
        if fact.value not in response:
            raise KdleakError(f"{place}: a fact does not stand in the response; quote it verbatim")
    return facts
