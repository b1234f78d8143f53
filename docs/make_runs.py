"""The tables of docs/runs.md, from the small files in results/runs/. `make readme` (or: python docs/make_runs.py).

A whole run becomes such a file in the folder where it ran:

    kdleak results --json | python docs/make_runs.py dolly "Dolly-15k, seed 0" "dvc exp run -P -S data.source=file ..."

The files `controlled` and `paper` are the study in either grid, and stand side by side as well. Between `<!-- NAME -->`
and `<!-- end -->` the page holds what this script wrote there, and a test holds both together.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdleak.core.files import read_json, write_json
from kdleak.render.palette import label
from kdleak.render.wording import COUNTS, REALISED, number, percent, with_interval

ROOT = Path(__file__).resolve().parents[1]
PAGE, FOLDER = ROOT / "docs" / "runs.md", ROOT / "results" / "runs"
#: Measures of `kdleak results --json` that a file keeps.
BEST = "best tpr at 1 % fpr"
KEPT = ("auc loss", "auc ez", BEST, "perplexity", *REALISED.values())
#: What the files of a pretrained model's study, named real-<student>, keep and show.
REAL = ("auc loss", "auc ez", "auc ref_pretrained", "auc wbc", "memorization gap", "copied, members", "copied, others")
NONE = "No run of this kind is kept here yet."

#: A run's figures: model -> measure -> {value, low, high, attack}.
Models = Mapping[str, Mapping[str, Mapping[str, Any]]]


def kept(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """The rows of `kdleak results --json` that a file keeps, by model: its method, and the run that it is of."""
    models: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["measure"] in {*KEPT, *REAL}:
            name = " ".join(filter(None, [row["method"], row["run"]]))
            figure = {key: row[key] for key in ("value", "low", "high", "attack") if row[key] is not None}
            models.setdefault(name, {})[row["measure"]] = figure
    return models


def write_run(name: str, title: str, command: str, rows: Sequence[Mapping[str, Any]]) -> None:
    write_json({"title": title, "command": command, "models": kept(rows)}, FOLDER / f"{name}.json", sort_keys=False)


def runs() -> dict[str, dict[str, Any]]:
    """Name -> content of every file in results/runs/."""
    return {path.stem: read_json(path) for path in sorted(FOLDER.glob("*.json"))}


def every_run() -> str:
    """A heading, the command and the table of each run."""
    parts = [
        f"### {run['title']}\n\n```bash\n{run['command']}\n```\n\n{models_table(run['models'])}"
        for name, run in runs().items()
        if not name.startswith("real-")
    ]
    return "\n\n".join(parts) or NONE


def models_table(models: Models) -> str:
    """Teacher and no-KD student first, then the techniques by falling AUC of `loss`, runs below their technique."""

    def place(name: str) -> tuple[bool, float, str]:
        method = name.split(" ")[0]
        return method not in ("teacher", "sft"), -_value(models.get(method, models[name]), "auc loss"), name

    head = ["model", "`loss`", "`ez`", "best TPR at 1 % FPR", "held-out perplexity", *REALISED.values()]
    rows = [
        [_named(name), _auc(figures, "auc loss"), _auc(figures, "auc ez"), _best(figures),
         number(_value(figures, "perplexity"), 1), *(_realised(figures, each) for each in REALISED.values())]
        for name, figures in sorted(models.items(), key=lambda each: place(each[0]))
    ]  # fmt: skip
    return _table(head, rows)


def both_grids() -> str:
    """Every technique in both grids: leak beside utility."""
    found = runs()
    if not {"controlled", "paper"} <= set(found):
        return NONE
    grids: list[Models] = [found[name]["models"] for name in ("controlled", "paper")]
    names = [name for name in grids[0] if name in grids[1] and " " not in name]
    names.sort(key=lambda name: (name not in ("teacher", "sft"), -_value(grids[0][name], "auc loss")))
    head = [
        "model",
        *(f"{what}, {grid}" for what in ("`loss`", "held-out perplexity") for grid in ("controlled", "paper")),
    ]
    rows = [
        [_named(name), *(_auc(grid[name], "auc loss") for grid in grids),
         *(number(_value(grid[name], "perplexity"), 1) for grid in grids)]
        for name in names
    ]  # fmt: skip
    return _table(head, rows)


def real_runs() -> str:
    """Heading, command and table of each study of a pretrained model, by student."""
    parts = [
        f"### {run['title']}\n\n```bash\n{run['command']}\n```\n\n{_real_table(run['models'])}"
        for name, run in runs().items()
        if name.startswith("real-")
    ]
    return "\n\n".join(parts) or NONE


def _real_table(models: Models) -> str:
    head = ["model", *(f"`{m.removeprefix('auc ')}`" for m in REAL[:4]), *REAL[4:], "held-out perplexity"]
    order = sorted(models, key=lambda name: (name not in ("teacher", "sft"), name != "teacher", name))
    rows = [
        [_named(name), *(_auc(models[name], measure) for measure in REAL[:5]),
         *(percent(_value(models[name], measure)) for measure in REAL[5:]),
         number(_value(models[name], "perplexity"), 1)]
        for name in order
    ]  # fmt: skip
    return _table(head, rows)


PARTS: dict[str, Callable[[], str]] = {"runs": every_run, "grids": both_grids, "real": real_runs}


def filled(page: str) -> str:
    """`page` with every marked part as the files have it."""

    def part(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{PARTS[found[1]]()}\n<!-- end -->"

    return re.sub(rf"<!-- ({'|'.join(PARTS)}) -->.*?<!-- end -->", part, page, flags=re.DOTALL)


def _named(name: str) -> str:
    method, _, run = name.partition(" ")
    return f"{label(method)}, `{run}`" if run else label(method)


def _value(figures: Mapping[str, Any], measure: str) -> float:
    return figures.get(measure, {}).get("value", math.nan)


def _auc(figures: Mapping[str, Any], measure: str) -> str:
    found = figures.get(measure)
    return with_interval(found["value"], (found.get("low"), found.get("high"))) if found else ""


def _best(figures: Mapping[str, Any]) -> str:
    found = figures.get(BEST)
    if not found:
        return ""
    ends = [percent(found.get(end)) for end in ("low", "high")]
    shown = f" [{', '.join(ends)}]" if "low" in found else ""
    return f"{percent(found['value'])}{shown} (`{found['attack']}`)"


def _realised(figures: Mapping[str, Any], words: str) -> str:
    value = figures.get(words, {}).get("value")
    if value is None:
        return ""
    return number(value, 0) if words in COUNTS else number(value, 2) if words == "threshold" else percent(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def main(arguments: Sequence[str]) -> None:
    if arguments:
        name, title, command = arguments
        write_run(name, title, command, json.load(sys.stdin))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page), encoding="utf-8")
    print(f"docs/runs.md: {'current' if filled(page) == page else 'written'}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
