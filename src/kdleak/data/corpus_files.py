"""A corpus in a file of one's own, a document at a time: it may be larger than memory, and is never read whole.

.txt:     documents between blank lines; one of more than `LONGEST` characters is cut into several.
.jsonl:   an object with a `text` a line.
.parquet: a column `text`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from kdleak.core.errors import KdleakError

#: Characters from which on a document of plain text is cut.
LONGEST = 100_000
#: Characters that a line of JSON may have: a line is held in memory as a whole.
LONGEST_LINE = 16_000_000


def check_corpus_file(path: Path) -> None:
    """KdleakError unless there is a file that this process may read."""
    if not path.is_file() or not os.access(path, os.R_OK):
        raise KdleakError(
            f"kd.lm_corpus: {path} cannot be read: no such file, or no right to; give its path from the project's root"
        )


def file_digest(path: Path) -> str:
    """sha256 of the file's bytes."""
    check_corpus_file(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def documents(path: Path) -> Iterator[str]:
    """The documents of the file that are not blank, in its order, without white space around them."""
    read = {".txt": _paragraphs, ".jsonl": _json_documents, ".parquet": _rows}[path.suffix]
    # A lone surrogate, which JSON can spell, is no character: it becomes the replacement character.
    return filter(None, (text.encode("utf-8", "replace").decode().strip() for text in read(path)))


def _lines(path: Path, longest: int) -> Iterator[str]:
    """Its lines; what a line has beyond `longest` characters comes as lines of their own."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            while line := stream.readline(longest):
                yield line
    except UnicodeDecodeError:
        raise KdleakError(f"kd.lm_corpus: {path} cannot be read as UTF-8 text; convert it to UTF-8") from None


def _paragraphs(path: Path) -> Iterator[str]:
    held, characters = [], 0
    for line in _lines(path, LONGEST):
        if not line.strip() or characters >= LONGEST:
            yield "".join(held)
            held, characters = [], 0
        held.append(line)
        characters += len(line)
    yield "".join(held)


def _json_documents(path: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(path, LONGEST_LINE), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise KdleakError(
                f"kd.lm_corpus: {path}, line {number}: must be a JSON object with a 'text', of 16 million characters "
                "at most; write one a line"
            )
        yield text


def _rows(path: Path) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as table:
            for batch in table.iter_batches(batch_size=256, columns=["text"], use_threads=False):
                yield from (text or "" for text in batch.column("text").cast(pyarrow.string()).to_pylist())
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise KdleakError(
            f"kd.lm_corpus: {path}: not a Parquet file with a text in each row's 'text' ({type(error).__name__}); "
            "write or fetch it again"
        ) from error
