"""`synthetic`: the embedded corpus, made from the seed."""

from __future__ import annotations

from collections.abc import Iterator

from kdleak.core.errors import KdleakError
from kdleak.data.sources.registry import Source, source
from kdleak.data.sources.rows import SourceRow


@source("synthetic")
class Synthetic(Source):
    """`data.rows` records of `kdleak.data.synthetic`; their roles are drawn by hash."""

    def check(self) -> None:
        total = sum(dict(self.data.sizes).values())
        if total > self.data.rows:
            raise KdleakError(
                f"data.sizes: {total} records are asked for, but rows makes {self.data.rows}; raise data.rows"
            )
        if self.data.roles == "column":
            raise KdleakError("data.roles: the synthetic corpus has no role column; use roles: hash")

    def rows(self, seed: int) -> Iterator[SourceRow]:
        from kdleak.data.synthetic import generate

        return (SourceRow(record) for record in generate(self.data.rows, seed))

    @property
    def origin(self) -> str:
        return "synthetic"
