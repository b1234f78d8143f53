"""Where records come from: the embedded corpus, a file of the user's, a data set of the hub.

Every source yields `SourceRow`s; a row that cannot be one is an error that names the file, the row and the remedy.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError, brief, nearest
from kdleak.data.records import ROLES, Fact, Record

if TYPE_CHECKING:
    from kdleak.config.schema import Data, Hub

#: Accepted field names: Dolly's, then Alpaca's.
_CONTEXT = ("context", "input")
_RESPONSE = ("response", "output")
_TASK = ("category", "task")
#: The task of a row whose source names none.
NO_TASK = "unspecified"


@dataclass(frozen=True)
class SourceRow:
    """A record and, where the source brings a split of its own, its role."""

    record: Record
    role: str | None = None


def read_source(data: Data, seed: int) -> Iterator[SourceRow]:
    """The rows of the source that `data` names, before any filter."""
    match data.source:
        case "synthetic":
            from kdleak.data.synthetic import generate

            return (SourceRow(record) for record in generate(data.rows, seed))
        case "file":
            return read_file(Path(data.path), needs_role=data.roles == "column")
        case "hub":
            return _rows(read_hub(data.hub), f"{data.hub.name}@{data.hub.revision[:8]}", data.roles == "column")
    raise KdleakError(f"data.source: '{data.source}' is unknown")


def check_path(path: Path, option: str = "data.path") -> None:
    """Refuse what is no readable, non-empty file; `option` is where its name was given."""
    if path.is_dir():
        raise KdleakError(f"{option}: {path} is a folder; name the JSONL, Parquet or CSV file in it")
    if not path.is_file():
        hint = " (queued experiments need an absolute path)" if option == "data.path" else ""
        raise KdleakError(f"{option}: {path}: no such file{hint}")
    if path.stat().st_size == 0:
        raise KdleakError(f"{option}: {path} is empty; it needs one record a line")
    if path.suffix not in _READERS:
        raise KdleakError(f"{option}: {path}: unknown format '{path.suffix}'; {nearest(path.suffix, _READERS)}")


def raw_rows(path: Path, option: str = "data.path") -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, fields) of each row of a JSONL, Parquet or CSV file; place says which line or row it is."""
    check_path(path, option)
    return _READERS[path.suffix](path)


def read_file(path: Path, needs_role: bool = False) -> Iterator[SourceRow]:
    """Rows of a JSONL, Parquet or CSV file with Dolly's or Alpaca's fields, and `role` where the split is given."""
    return _rows(raw_rows(path), str(path), needs_role)


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            place = f"line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise KdleakError(
                    f"{path}, {place}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8"
                ) from None
            except json.JSONDecodeError as error:
                cut = (
                    "the line is cut off"
                    if error.pos >= len(line.rstrip()) - 1 or "Unterminated" in error.msg
                    else error.msg
                )
                raise KdleakError(f"{path}, {place}: not valid JSON ({cut}); write one whole object a line") from None
            if not isinstance(row, dict):
                raise KdleakError(f"{path}, {place}: not a JSON object; write one object with named fields a line")
            yield place, row


def _read_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in table.iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except Exception as error:  # a damaged file makes Arrow stumble over anything: pages, types, encodings
        raise KdleakError(f"{path}: not a readable Parquet file ({brief(error)}); write or fetch it again") from None


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)  # a text may be long
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            for row in reader:
                place = f"line {reader.line_num}"
                if None in row or None in row.values():
                    raise KdleakError(f"{path}, {place}: not as many fields as the header names; quote what has commas")
                yield place, row
    except UnicodeDecodeError as error:
        raise KdleakError(f"{path}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
    except csv.Error as error:
        raise KdleakError(
            f"{path}, line {reader.reader.line_num}: not valid CSV ({error}); quote texts as RFC 4180 says"
        ) from None


_READERS = {".jsonl": _read_jsonl, ".json": _read_jsonl, ".parquet": _read_parquet, ".csv": _read_csv}


def read_hub(hub: Hub) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a pinned hub data set; KdleakError where it cannot be reached."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(hub.name, revision=hub.revision, split=hub.split)
    except (ConnectionError, OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise KdleakError(
            f"data.hub: {hub.name} cannot be fetched ({reason[:160]}); download it and use data.source=file"
        ) from None
    return ((f"row {i}", row) for i, row in enumerate(table, start=1))


def _rows(rows: Iterable[tuple[str, dict[str, Any]]], origin: str, needs_role: bool) -> Iterator[SourceRow]:
    empty = True
    for place, row in rows:
        empty = False
        yield _row(row, f"{origin}, {place}", needs_role)
    if empty:
        raise KdleakError(f"{origin}: no record in it; it needs one record a line")


def _row(row: dict[str, Any], place: str, needs_role: bool) -> SourceRow:
    response = _text(row, _RESPONSE, place)
    if not response.strip():
        raise KdleakError(f"{place}: the response is empty; give it a text or remove the row")
    record = Record(
        task=_text(row, _TASK, place, default=NO_TASK) or NO_TASK,
        instruction=_text(row, ("instruction",), place),
        context=_text(row, _CONTEXT, place, default=""),
        response=response,
        facts=_facts(row.get("facts"), response, place),
    )
    if not needs_role:
        return SourceRow(record)
    role = row.get("role")
    if role not in ROLES:
        raise KdleakError(f"{place}: role is {role!r}; data.roles=column needs one of {', '.join(ROLES)}")
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
    have = ", ".join(f"'{name}'" for name in list(row)[:8]) or "no field"
    raise KdleakError(
        f"{place}: no '{names[0]}'; it has {have}; fields must be instruction, context, response "
        "(Dolly) or instruction, input, output (Alpaca)"
    )


def well_formed(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which JSON can spell and no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _facts(value: object, response: str, place: str) -> tuple[Fact, ...]:
    """Optional `facts`: a list of {kind, value} whose values stand verbatim in the response."""
    if not value:
        return ()
    try:
        facts = tuple(Fact(well_formed(str(f["kind"])), well_formed(str(f["value"]))) for f in value)  # type: ignore[union-attr]
    except (TypeError, KeyError):
        raise KdleakError(f"{place}: facts is no list of {{kind, value}}; write one or leave it out") from None
    for fact in facts:
        if fact.value not in response:
            raise KdleakError(
                f"{place}: a fact of kind '{fact.kind}' does not stand in the response; quote it verbatim"
            )
    return facts
