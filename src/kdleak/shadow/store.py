"""The scores of shadow models in results/shadow: a table a kind of model, in it a column a statistic and model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_parquet, write_parquet

#: What is kept of a model: mean log-prob per token, and EZ's share of upward shifts against the model's own base.
STATISTICS = ("loss", "ez")


class ShadowStore:
    """folder: where the tables stand. record_ids: of the records, in the order of every array."""

    def __init__(self, folder: Path, record_ids: Sequence[str]):
        self.folder, self.record_ids = folder, list(record_ids)
        self._tables: dict[str, dict[str, np.ndarray]] = {}

    def path(self, name: str) -> Path:
        """name: `teacher`, or the students' method."""
        return self.folder / f"{name}.parquet"

    def numbers(self, name: str) -> set[int]:
        """The models of that name whose scores are kept."""
        columns = self._table(name)
        return {int(column.removeprefix("loss.")) for column in columns if column.startswith("loss.")}

    def add(self, number: int, scores: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Keep the scores of shadow model `number`: name -> statistic -> (n,)."""
        import pandas as pd

        for name, statistics in scores.items():
            table = self._table(name)
            table |= {f"{each}.{number}": np.asarray(statistics[each], np.float32) for each in STATISTICS}
            order = sorted(table, key=lambda column: (int(column.partition(".")[2]), column))
            frame = {"record_id": self.record_ids, **{column: table[column] for column in order}}
            write_parquet(pd.DataFrame(frame), self.path(name))

    def of(self, name: str, number: int) -> dict[str, np.ndarray]:
        """Statistic -> (n,) float32 of one model."""
        return {each: self._table(name)[f"{each}.{number}"] for each in STATISTICS}

    def values(self, name: str, statistic: str, models: int) -> np.ndarray:
        """(models, n) float64 of the first models. KdleakError where one is not there."""
        if lacking := sorted(set(range(models)) - self.numbers(name)):
            raise KdleakError(f"{self.path(name)}: holds no shadow model {lacking[0]}; run 'dvc repro shadow'")
        return np.stack([self._table(name)[f"{statistic}.{k}"] for k in range(models)]).astype(np.float64)

    def discard(self, names: Collection[str]) -> None:
        """Forget all models of these names."""
        for name in names:
            self._tables.pop(name, None)
            self.path(name).unlink(missing_ok=True)

    @property
    def names(self) -> list[str]:
        """Of what models there are tables."""
        return sorted(path.stem for path in self.folder.glob("*.parquet"))

    def _table(self, name: str) -> dict[str, np.ndarray]:
        if name not in self._tables:
            self._tables[name] = self._read(self.path(name)) if self.path(name).is_file() else {}
        return self._tables[name]

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        frame = read_parquet(path)
        if list(frame.get("record_id", ())) != self.record_ids:
            raise KdleakError(f"{path}: holds other records than data/records.parquet; delete it and run 'dvc repro'")
        return {str(column): frame[column].to_numpy() for column in frame.columns if column != "record_id"}
