"""The rows of a table on disk (JSONL, Parquet, CSV), each with the place where it stands.

What is wrong with a row is said by its place, never in its words.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdleak.core.errors import KdleakError, naming, nearest

#: Bytes of a line of JSONL: no record has more.
_LONGEST_LINE = 2**28


def check_path(path: Path, option: str = "data.path") -> None:
    """Refuse what is no readable, non-empty file; `option` is where its name was given."""
    if not is_utf8(str(path)):
        raise KdleakError(f"{option}: {path}: its name is not UTF-8; rename it")
    if path.is_dir():
        raise KdleakError(f"{option}: {path} is a folder; name the JSONL, Parquet or CSV file in it")
    if path.exists() and not path.is_file():
        raise KdleakError(f"{option}: {path} is no regular file; copy its content into one")
    if not path.is_file():
        hint = " (queued experiments need an absolute path)" if option == "data.path" else ""
        raise KdleakError(f"{option}: {path}: no such file{hint}")
    if path.stat().st_size == 0:
        raise KdleakError(f"{option}: {path} is empty; it needs one record a line")
    if path.suffix not in _READERS:
        raise KdleakError(f"{option}: {path}: unknown format '{path.suffix}'; {nearest(path.suffix, _READERS)}")


def is_utf8(name: str) -> bool:
    """Whether a file name is text: others reach Python as lone surrogates, which no result file can hold."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def raw_rows(path: Path, option: str = "data.path") -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, fields) of each row of a JSONL, Parquet or CSV file; place says which line or row it is."""
    check_path(path, option)
    with naming(path):
        yield from _READERS[path.suffix](path)


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), b""), start=1):
            place = f"line {number}"
            if len(line) == _LONGEST_LINE:
                raise KdleakError(f"{path}, {place}: longer than {_LONGEST_LINE:,} bytes; write one record a line")
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
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
            except (RecursionError, ValueError) as error:
                what = "nested too deep" if isinstance(error, RecursionError) else "a number of too many digits"
                raise KdleakError(
                    f"{path}, {place}: not readable as JSON ({what}); write texts in plain fields"
                ) from None
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
        raise KdleakError(
            f"{path}: not a readable Parquet file ({type(error).__name__}); write or fetch it again"
        ) from error


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)  # a text may be long
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = reader.fieldnames or []
            if len(names) != len(set(names)):
                raise KdleakError(f"{path}: two columns of one name in its header; rename one")
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
