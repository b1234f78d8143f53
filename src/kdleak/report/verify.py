"""`kdleak verify`: do the results of this folder say what a revision's say?

A verdict that turned from reproduced to contradicted, or back, is a difference. One that came from or went to a state
without a side (inconclusive, depends on the attack) is told and is none: its interval lies at a border, which the order
of floating-point sums can cross. Figures are compared within a tolerance each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_csv, read_json
from kdleak.report.experiments import checked_out, revision_of
from kdleak.report.study.findings import CONTRADICTED, DEPENDS, INCONCLUSIVE, REPRODUCED

if TYPE_CHECKING:
    from kdleak.core.paths import Project

#: How far a figure may lie from the committed one, by what its name ends in: a little above the largest difference
#: between two runs of the default study on one processor with one thread and with two (.025, .025, .116, .033, .003,
#: 1.0 %; of 272, 192, 272, 14, 14, 14 figures). TPR at 1 % FPR hangs on the five highest non-members; ROUGE-L of SeqKD
#: on which text the teacher sampled.
TOLERANCES = {
    "auc": 0.03,
    "excess": 0.03,
    "tpr_at_1pct_fpr": 0.15,
    "rouge_l": 0.04,
    "token_accuracy_gap": 0.005,
    "perplexity": 0.05,
}
#: Verdicts that take no side, and those beside which they lie.
_BORDER = {INCONCLUSIVE, DEPENDS}
_JUDGED = {REPRODUCED, CONTRADICTED, *_BORDER}
#: A share of the committed figure.
_RELATIVE = ("perplexity",)


@dataclass(frozen=True)
class Difference:
    """A verdict that changed, or a figure outside its tolerance. committed, here: None where there is none."""

    what: str
    committed: Any
    here: Any


@dataclass(frozen=True)
class Verification:
    """verdicts, figures: how many were compared. moved: verdicts that came from or went to a state without a side."""

    revision: str
    verdicts: int
    figures: int
    differences: tuple[Difference, ...]
    moved: tuple[Difference, ...] = ()


def verified(project: Project, revision: str = "HEAD") -> Verification:
    """The results in the folder against those that git has of `revision`. KdleakError where either has none."""
    with checked_out(project, revision_of(project, revision)) as committed:
        if not committed.metrics.is_file():
            raise KdleakError(f"{revision} holds no results/metrics.json; name a commit that holds results")
        verdicts = _both(_verdicts, committed.findings, project.findings)
        figures = _both(_headline, committed.metrics, project.metrics)
        figures |= _both(_table, committed.attacks_table, project.attacks_table)
        figures |= _both(_table, committed.models_table, project.models_table)
    changed = [Difference(what, *pair) for what, pair in verdicts.items() if pair[0] != pair[1]]
    moved = tuple(each for each in changed if _sideless(each))
    differ = [each for each in changed if each not in moved]
    differ += [Difference(what, *pair) for what, pair in figures.items() if not _close(what, *pair)]
    return Verification(revision, len(verdicts), len(figures), tuple(differ), moved)


def print_verification(result: Verification) -> None:
    """What differs, a line each, and the answer; 80 columns."""
    for each in (*result.differences, *result.moved):
        print(f"{each.what}: {_shown(each.here)} here, {_shown(each.committed)} in {result.revision}")
    print(f"{result.verdicts} verdicts and {result.figures} figures compared. Tolerances:")
    print("  " + ", ".join(f"{name} {_tolerance(name)}" for name in list(TOLERANCES)[:3]))
    print("  " + ", ".join(f"{name} {_tolerance(name)}" for name in list(TOLERANCES)[3:]))
    if result.moved:
        print("A verdict beside inconclusive lies at its border: moved, and no difference.")
    if result.differences:
        print(f"{len(result.differences)} differ: the results here are not those of {result.revision}.")
    else:
        print(f"The results here say what those of {result.revision} say.")


def _both(read: Callable[[Path], dict[str, Any]], committed: Path, here: Path) -> dict[str, tuple[Any, Any]]:
    """What stands in either file, by name: (committed, here). Nothing where git holds no such file."""
    if not committed.is_file():
        return {}
    before, now = read(committed), read(here)
    return {what: (before.get(what), now.get(what)) for what in dict.fromkeys([*before, *now])}


def _verdicts(path: Path) -> dict[str, str]:
    return {f"claim {each['claim']}": each["verdict"] for each in read_json(path)["findings"]}


def _headline(path: Path) -> dict[str, Any]:
    """metrics.json. Its best_attack is left out: the first two often lie within a hair of each other."""
    return {name: value for name, value in read_json(path).items() if name == "method" or _kind(name)}


def _table(path: Path) -> dict[str, float]:
    """The figures of attacks.csv or models.csv, by model, attack and column."""
    table = read_csv(path)
    keys = [key for key in ("method", "attack") if key in table]
    rows = {" ".join(str(row[key]) for key in keys): row for row in table.to_dict("records")}
    return {f"{name} {c}": row[c] for name, row in rows.items() for c in table if _kind(c) and row[c] == row[c]}


def _sideless(change: Difference) -> bool:
    """Whether both runs judged the claim, and one of the two took no side."""
    both = {change.committed, change.here}
    return both <= _JUDGED and bool(both & _BORDER)


def _kind(name: str) -> str | None:
    """The tolerance that a figure's name asks for; the ends of intervals have none."""
    return next((kind for kind in TOLERANCES if name.endswith(kind)), None)


def _close(what: str, committed: Any, here: Any) -> bool:
    kind = _kind(what)
    if kind is None or committed is None or here is None:
        return committed == here
    scale = abs(committed) if kind in _RELATIVE else 1.0
    return abs(here - committed) <= TOLERANCES[kind] * scale


def _tolerance(name: str) -> str:
    return f"±{100 * TOLERANCES[name]:g} %" if name in _RELATIVE else f"±{TOLERANCES[name]:g}"


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else f"{value:.4g}"
