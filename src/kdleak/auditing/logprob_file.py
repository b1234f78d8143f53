"""Log-prob files: what a model says of the records of an audit, written by kdleak or by any other engine.

One JSON object a line (docs/audit.md has the schema): a header, then a line a record with the log-probs of its
response's tokens and, as far as the engine knows them, what some attacks read beside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks.registry import ModelPass
from kdleak.auditing.passes import PassRequest, PassResults
from kdleak.core.errors import KdleakError
from kdleak.core.files import replacing_file
from kdleak.data.corpus_files import file_digest
from kdleak.data.sides import MEMBER, NONMEMBER
from kdleak.data.sources.tables import raw_rows
from kdleak.inference.partial_statistics import PartialStatistics

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "kdleak-logprobs/1"
_SIDES = (MEMBER, NONMEMBER)
#: A log-prob above 0 by no more than this is the rounding of 0.
_ROUNDING = 1e-3
#: No statistic of a log-prob is as large.
_LARGEST = 1e30


@dataclass(frozen=True)
class Answers:
    """A model of which a log-prob file says all that is known here.

    about:      the file's header. digest: sha256 of the file.
    statistics: of members and nonmembers, in the lists' order. variants: of the same records put otherwise, by pass.
    population: record ids of the audit's population, which passes over other texts draw from.
    characters: (n,) of each response that the tokens cover. shortened: (n,) whether the prompt lost tokens.
    """

    file: Path
    about: Mapping[str, Any]
    digest: str
    statistics: PartialStatistics
    characters: np.ndarray
    shortened: np.ndarray
    variants: Mapping[str, PartialStatistics] = field(default_factory=dict)
    population: Sequence[str] = ()
    tokenizer: None = None

    def answer(self, request: PassRequest) -> PassResults:
        """What the file holds of `request`; passes that it does not hold are refused by what they need."""
        wanted = [each for each in request.extra if each.name not in self.variants]
        refused = {
            each.name: "needs the model's weights"
            if isinstance(each, ModelPass)
            else f"needs the log-probs of another pass ('{each.name}'), which {self.file.name} does not give"
            for each in wanted
        }
        held = {each.name: self.variants[each.name] for each in request.extra if each.name in self.variants}
        return PassResults(self.statistics, held, refused=refused)


def read_logprobs(path: Path, option: str, records: pd.DataFrame, population: pd.DataFrame | None) -> Answers:
    """The answers of `path` on `records` (record_id, role, place, response, in order).

    population: the audit's. Lines of records that the lists do not have are passed over. Raises KdleakError for a line
    that is none, for a record without a line, and for numbers that no model gives.
    """
    rows = iter(raw_rows(path, option))
    _, about = next(rows, ("", {}))
    if about.get("schema") != SCHEMA:
        raise KdleakError(f'{path}: its first line is no header; a log-prob file begins with {{"schema": "{SCHEMA}"}}')
    main = _Columns(path, records)
    for place, row in rows:
        side = row.get("side")
        if side is not None and side not in _SIDES:
            raise KdleakError(f"{path}, {place}: its side is none of {', '.join(_SIDES)}")
        main.add(place, row)
    main.check_whole()
    return Answers(
        path,
        about,
        file_digest(path),
        main.statistics(),
        np.array(main.characters, np.int64),
        np.array(main.shortened, bool),
        main.variants(),
        () if population is None else population["record_id"].tolist(),
    )


class _Columns:
    """The lines of one table's records, gathered in the table's order."""

    def __init__(self, path: Path, table: pd.DataFrame):
        self.path, self.table = path, table
        ids, places = list(table["record_id"]), [_row_and_message(place) for place in table["place"]]
        self.by_id = {record_id: i for i, record_id in enumerate(ids)}
        self.by_row = {(side, *place): i for i, (side, place) in enumerate(zip(table["role"], places, strict=True))}
        self.lengths = table["response"].str.len().to_numpy()
        self.values: dict[str, list[np.ndarray | None]] = {}
        self.characters, self.shortened = self.lengths.tolist(), [False] * len(ids)

    def add(self, place: str, row: Mapping[str, Any]) -> None:
        where = f"{self.path}, {place}"
        i = self._record(row, where)
        if i is None:
            return
        first = self._column("logprobs")
        if first[i] is not None:
            raise KdleakError(f"{where}: a second line for one record; a record has one line")
        log_probs = _numbers(row.get("logprobs"), "logprobs", where, above=_ROUNDING)
        first[i] = np.minimum(log_probs, 0)
        n = len(log_probs)
        for name, kind in (("mean", _numbers), ("std", _numbers), ("top1", _choices)):
            if row.get(name) is not None:
                self._column(name)[i] = _as_long(kind(row[name], name, where), n, name, where)
        variants = row.get("variants") or {}
        if not isinstance(variants, dict):
            raise KdleakError(f"{where}: variants is no object; it holds a list of log-probs by the pass's name")
        for name, values in variants.items():
            self._column(f"variant {name}")[i] = np.minimum(_numbers(values, "variants", where, above=_ROUNDING), 0)
        covered = row.get("characters", self.characters[i])
        if not isinstance(covered, int) or not 0 < covered <= self.lengths[i]:
            raise KdleakError(
                f"{where}: covers characters that its response does not have; the record has {self.lengths[i]}"
            )
        self.characters[i], self.shortened[i] = covered, row.get("prompt_cut") is True

    def check_whole(self) -> None:
        missing = [i for i, values in enumerate(self._column("logprobs")) if values is None]
        if missing:
            raise KdleakError(
                f"{self.path}: no line for {len(missing)} of {len(self.table)} records (first: "
                f"{self.table['place'].iloc[missing[0]]}); write it again for these lists"
            )

    def statistics(self) -> PartialStatistics:
        columns = {name: self._whole(name) for name in ("mean", "std", "top1")}
        top1 = columns["top1"]
        known = {"mean": columns["mean"], "std": columns["std"], "missed": None if top1 is None else ~top1}
        return self._partial("logprobs", **known)

    def variants(self) -> dict[str, PartialStatistics]:
        """The passes that every record has."""
        names = [name.removeprefix("variant ") for name in self.values if name.startswith("variant ")]
        return {name: self._partial(f"variant {name}") for name in names if self._whole(f"variant {name}") is not None}

    def _partial(self, name: str, **columns: np.ndarray | None) -> PartialStatistics:
        values = [v for v in self.values[name] if v is not None]
        offsets = np.concatenate([[0], np.cumsum([len(v) for v in values], dtype=np.int64)])
        ids = self.table["record_id"].to_numpy(dtype=str)
        return PartialStatistics(ids, offsets, np.concatenate(values), self.path.name, **columns)

    def _column(self, name: str) -> list[np.ndarray | None]:
        return self.values.setdefault(name, [None] * len(self.table))

    def _whole(self, name: str) -> np.ndarray | None:
        """The values of all records; None unless every record has them."""
        values = [v for v in self.values.get(name, []) if v is not None]
        return np.concatenate(values) if len(values) == len(self.table) else None

    def _record(self, row: Mapping[str, Any], where: str) -> int | None:
        """Index of the record that a line is about; None of one that the table does not have."""
        if isinstance(row.get("id"), str):
            return self.by_id.get(row["id"])
        if row.get("side") is None or not isinstance(row.get("row"), int):
            raise KdleakError(f"{where}: names no record; it needs its id, or its side and row")
        return self.by_row.get((row["side"], row["row"], row.get("message", 0)))


def _row_and_message(place: str) -> tuple[int, int]:
    """The numbers of a place such as "members.jsonl, line 3 (message 4)"; 0 for the message where none is named."""
    row, _, message = place.removesuffix(")").partition(" (message ")
    return int(row.rpartition(" ")[2]), int(message or 0)


def _numbers(values: Any, name: str, where: str, above: float = math.inf) -> np.ndarray:
    """(m,) float32, m > 0: finite numbers of at most `above`."""
    whole = isinstance(values, list) and values and all(type(v) in (int, float) for v in values)
    numbers = np.array(values if whole and max(map(abs, values)) < _LARGEST else [math.nan], np.float32)
    if not np.isfinite(numbers).all():
        raise KdleakError(f"{where}: {name} is no list of finite numbers, one a token; write it so")
    if (numbers > above).any():
        raise KdleakError(f"{where}: a log-prob above 0 in {name}; write natural logarithms of probabilities")
    return numbers


def _choices(values: Any, name: str, where: str) -> np.ndarray:
    if not isinstance(values, list) or not all(isinstance(v, bool) for v in values):
        raise KdleakError(f"{where}: {name} is no list of true and false, one a token; write it so")
    return np.array(values, bool)


def _as_long(values: np.ndarray, n: int, name: str, where: str) -> np.ndarray:
    if len(values) != n:
        raise KdleakError(f"{where}: {len(values)} values of {name} for {n} log-probs; it needs one a token")
    return values


def write_logprobs(path: Path, about: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> None:
    """Write the header and `lines`, whole or not at all, for this user's eyes alone (0600)."""
    with replacing_file(path) as fresh:
        fresh.touch(mode=0o600)
        with fresh.open("w", encoding="utf-8") as stream:
            for line in chain([{"schema": SCHEMA, **about}], lines):
                stream.write(json.dumps(line, allow_nan=False) + "\n")
