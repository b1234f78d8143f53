"""`kdleak compare`: figures over method, attack, family, size and seed, as tables for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from kdleak.core.errors import KdleakError
from kdleak.core.files import replacing_file, write_csv
from kdleak.render.palette import STYLES
from kdleak.render.wording import number, with_interval
from kdleak.report.experiments import Result, results_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from kdleak.core.paths import Project

_KEYS = ["family", "size", "protocol", "settings", "method", "measure"]
#: What a column takes beside its text: two spaces and a line.
_FRAME = 3


@dataclass(frozen=True)
class Comparison:
    """table: as `summarised` makes it; sources: experiments, the workspace counted; outdated: results left out."""

    table: pd.DataFrame
    sources: int
    outdated: int


def compared(project: Project, names: Sequence[str] = (), all_commits: bool = False) -> Comparison:
    """The figures of the experiments `names`, or of all of HEAD (of every commit), and of the workspace.

    KdleakError where there is no result at all.
    """
    found, outdated = results_of(project, names, all_commits)
    if not found:
        what = f"{outdated} results are outdated or away" if outdated else "no experiment and no results"
        raise KdleakError(f"nothing to compare: {what}; run 'dvc repro' or 'dvc exp run'")
    return Comparison(summarised(found), len({result.experiment for result in found}), outdated)


def print_comparison(comparison: Comparison) -> None:
    """The tables, as wide as the terminal (a pipe: 80 columns), and what they are made of."""
    from rich.console import Console

    print_tables(comparison.table, Console())
    print(
        f"Results of {comparison.sources} experiment(s), the workspace counted and shared results once;\n"
        "± is the standard deviation over seeds. Intervals: --csv, --json, or --out FILE."
    )
    if comparison.outdated:
        print(
            f"{comparison.outdated} result(s) left out: outdated ('dvc repro' makes them anew) or not in DVC's cache\n"
            "('dvc exp pull' brings them where there is a remote)"
        )


def write_table(table: pd.DataFrame, path: Path) -> None:
    """The whole table as CSV or, under the name FILE.md, as Markdown."""
    if path.suffix not in (".csv", ".md"):
        raise KdleakError(f"--out {path.name}: a table is written as CSV or Markdown; name it FILE.csv or FILE.md")
    if path.suffix == ".csv":
        write_csv(table, path)
    else:
        with replacing_file(path) as fresh:
            fresh.write_text(markdown(table), encoding="utf-8")


def summarised(found: Sequence[Result]) -> pd.DataFrame:
    """A row for each family, size, protocol, settings, method and measure: n_seeds, seeds, mean, sd, low, high.

    The interval of one seed is that of its records; of several it is Student's t over the seeds, whose spread is
    what another training would show. settings: those that differ among the results, "" where none does.
    """
    import pandas as pd

    differing = _differing(found)
    rows: dict[tuple, list[Result]] = {}
    for result in found:
        settings = " ".join(f"{k}={result.settings[k]}" for k in differing if k in result.settings)
        key = (result.family, result.size, result.protocol, settings, result.method, result.measure)
        rows.setdefault(key, []).append(result)
    order = {name: place for place, name in enumerate(STYLES)}
    table = pd.DataFrame([dict(zip(_KEYS, key, strict=True)) | _over_seeds(each) for key, each in rows.items()])
    ranks = table["method"].map(lambda name: order.get(name, len(order)))
    # Stable: measures stay in the order in which the attacks are listed.
    table = table.assign(rank=ranks).sort_values([*_KEYS[:4], "rank"], kind="stable", ignore_index=True)
    return table.drop(columns="rank")


def _differing(found: Iterable[Result]) -> list[str]:
    """Settings that have more than one value among results of one method."""
    values: dict[tuple[str, str], set] = {}
    for result in found:
        for key, value in result.settings.items():
            values.setdefault((result.method, key), set()).add(value)
    return sorted({key for (_, key), seen in values.items() if len(seen) > 1})


def _over_seeds(results: Sequence[Result]) -> dict[str, object]:
    by_seed = {result.seed: result for result in results}
    values = np.array([result.value for result in by_seed.values()])
    sd, (low, high) = math.nan, (results[0].low, results[0].high)
    if len(values) > 1:
        sd = float(values.std(ddof=1))
        reach = float(stdtrit(len(values) - 1, 0.975)) * sd / math.sqrt(len(values))
        low, high = values.mean() - reach, values.mean() + reach
    return {
        "n_seeds": len(values),
        "seeds": ",".join(map(str, sorted(by_seed))),
        "mean": round(float(values.mean()), 6),
        "sd": round(sd, 6),
        "low": None if low is None else round(float(low), 6),
        "high": None if high is None else round(float(high), 6),
    }


def markdown(table: pd.DataFrame) -> str:
    """The whole table, a part for each family, size, protocol and settings."""
    parts = []
    for key, part in table.groupby(_KEYS[:4], sort=False):
        lines = [
            f"## {_title(key)}",
            "",
            "| method | measure | mean [95 % interval] | sd | seeds |",
            "|---|---|---|---|---|",
        ]
        for row in part.itertuples():
            shown = with_interval(row.mean, (row.low, row.high))
            lines.append(f"| {row.method} | {row.measure} | {shown} | {number(row.sd)} | {row.seeds} |")
        parts.append("\n".join(lines) + "\n")
    note = "One seed: the interval of its records. Several: Student's t over the seeds.\n"
    return "\n".join(["# Comparison\n", note, *parts])


def print_tables(table: pd.DataFrame, console: Console) -> None:
    """Methods down, measures across; in as many tables as the console's width asks for."""
    from rich.table import Table

    for key, part in table.groupby(_KEYS[:4], sort=False):
        cells: dict[str, dict[str, str]] = {}  # measure -> method -> figure; attacks first
        for row in sorted(part.itertuples(), key=lambda row: not row.measure.startswith("auc ")):
            cells.setdefault(row.measure.replace(" ", "\n"), {})[row.method] = _cell(row.mean, row.sd)
        methods = list(dict.fromkeys(part["method"]))
        console.print(_title(key), style="bold", highlight=False)
        for columns in _fitting(cells, console.width - max(map(len, [*methods, "method"])) - _FRAME - 1):
            shown = Table("method")
            for column in columns:
                shown.add_column(column, justify="right")
            for method in methods:
                shown.add_row(method, *(cells[column].get(method, "") for column in columns))
            console.print(shown)


def _fitting(cells: Mapping[str, Mapping[str, str]], room: int) -> Iterator[list[str]]:
    """The columns, parted so that each part is at most `room` characters wide, or one column."""
    part: list[str] = []
    left = room
    for column, figures in cells.items():
        width = max(map(len, [*column.split("\n"), *figures.values()])) + _FRAME
        if part and width > left:
            yield part
            part, left = [], room
        part.append(column)
        left -= width
    if part:
        yield part


def _title(key: tuple) -> str:
    family, size, protocol, settings = key
    return ", ".join(part for part in (family, f"student {size}", protocol, settings) if part)


def _cell(mean: float, sd: float) -> str:
    return number(mean) if math.isnan(sd) else f"{number(mean)}±{number(sd)}"
