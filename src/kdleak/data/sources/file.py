"""`file`: a JSONL, Parquet or CSV file of the user's, at `data.path`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdleak.data.sources.registry import Source, source
from kdleak.data.sources.rows import SourceRow, to_records
from kdleak.data.sources.tables import check_path, raw_rows


@source("file")
class File(Source):
    """The rows of `data.path`; with `roles: column`, each brings its role."""

    def check(self) -> None:
        check_path(Path(self.data.path))

    def rows(self, seed: int) -> Iterator[SourceRow]:
        return read_file(Path(self.data.path), needs_role=self.data.roles == "column")

    @property
    def origin(self) -> str:
        return self.data.path


def read_file(path: Path, needs_role: bool = False) -> Iterator[SourceRow]:
    """Rows of a file with Dolly's or Alpaca's fields, and `role` where the split is given."""
    return to_records(raw_rows(path), str(path), needs_role)
