"""From tables of scores to `memorization.json`: what a model reproduces verbatim, against the no-KD student.

Every figure is a mean over members, a mean over non-members, and their signed gap with an interval; where a no-KD
table is given, each stands beside that student's (`no_kd`) and beside the same figure of the differences on each
record (`excess`): the gap of these is what distillation added.

Tables: `records` has a row a record and the columns KEYS, `length`, `log_p` and FIGURES (NaN where undefined);
`facts` a row a private fact: record_id, role, task, fact (its number in the record), kind, in_prompt, extracted, log_p;
`canaries` a row a secret: record_id, repetitions, log_perplexity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.core.errors import KdleakError
from kdleak.data.sides import MEMBER, NONMEMBER
from kdleak.memorization.canary_report import canary_report
from kdleak.memorization.extraction import discoverable
from kdleak.stats.gap import Gap, mean_gap, mean_interval

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("record_id", "role", "task", "group_id")
#: Prefix lengths of the exact match.
EXACT = (8, 16, 32, 50)
#: Columns of `records` that become figures.
FIGURES = (
    "token_accuracy",
    "token_accuracy_as_published",
    "correct_prefix",
    "reproduced",
    "rouge_l",
    "edit_similarity",
    *(f"exact_{k}" for k in EXACT),
)
#: Figures given for each task too.
TASK_FIGURES = ("token_accuracy", "token_accuracy_as_published", "reproduced", "rouge_l", "edit_similarity")
#: The paper's thresholds on the teacher's token accuracy.
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)
#: n and p of (n, p)-discoverable extraction.
SAMPLES = (1, 10, 100, 1_000, 10_000)
PROBABILITIES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Memorization:
    """What one model reproduces: the three tables of this module's docstring, the last two where there are any."""

    records: pd.DataFrame
    facts: pd.DataFrame | None = None
    canaries: pd.DataFrame | None = None


def memorization_report(
    audited: Memorization,
    *,
    teacher: Memorization | None = None,
    no_kd: Memorization | None = None,
) -> dict[str, Any]:
    """The content of `memorization.json` for one model; `teacher` and `no_kd` stay None where it is one of these.

    Row order has no effect. Raises KdleakError where a role has no record, or where the tables are of other records.
    """
    records = _sorted(audited.records[audited.records["role"].isin([MEMBER, NONMEMBER])])
    member = (records["role"] == MEMBER).to_numpy()
    if not member.any() or member.all():
        raise KdleakError(f"an audit needs records of both roles '{MEMBER}' and '{NONMEMBER}'")
    baseline = _aligned(records, no_kd.records, "no-KD student") if no_kd is not None else None
    teachers = _aligned(records, teacher.records, "teacher") if teacher is not None else None
    everything = np.ones(len(records), dtype=bool)
    figures = _Figures(records, baseline, member)
    known = [name for name in FIGURES if name in records]  # the published script's decoding is not always made
    report: dict[str, Any] = {
        "n_members": int(member.sum()),
        "n_nonmembers": int((~member).sum()),
        **{name: figures.column(name, everything) for name in known if not name.startswith("exact_")},
        "exact_match": {str(k): figures.column(f"exact_{k}", everything) for k in EXACT},
        "extraction": {"discoverable": _discoverable(figures, everything)},
        "tasks": {
            task: {n: figures.column(n, (records["task"] == task).to_numpy()) for n in TASK_FIGURES if n in known}
            for task in sorted(records["task"].unique())
        },
    }
    if audited.facts is not None and len(audited.facts):
        other = no_kd.facts if no_kd is not None else None
        report["extraction"]["facts"] = _facts(audited.facts, other, records.set_index("record_id")["group_id"])
    if audited.canaries is not None and (audited.canaries["repetitions"] > 0).any():
        other = no_kd.canaries if no_kd is not None else None
        report["extraction"]["canaries"] = canary_report(audited.canaries, other)
    if teachers is not None:
        report["inheritance"] = _inheritance(records, teachers, baseline, member)
        if baseline is not None:
            report["inherited"] = _inherited(records, teachers, baseline, member)
    return report


def headline_figures(report: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a `memorization.json` by which models are compared, flat."""
    accuracy, canaries = report["token_accuracy"], report["extraction"].get("canaries")
    figures = {
        "token_accuracy_members": accuracy["members"],
        "token_accuracy_nonmembers": accuracy["nonmembers"],
        "token_accuracy_gap": accuracy["gap"],
        "token_accuracy_gap_low": accuracy["gap_ci95"][0],
        "token_accuracy_gap_high": accuracy["gap_ci95"][1],
        "reproduced_members": report["reproduced"]["members"],
        "reproduced_nonmembers": report["reproduced"]["nonmembers"],
    }
    if "facts" in report["extraction"]:
        facts = report["extraction"]["facts"]["all"]
        figures |= {"facts_extracted_members": facts["members"], "facts_extracted_nonmembers": facts["nonmembers"]}
    if canaries is not None:
        figures |= {f"exposure_{n}x": level["exposure"] for n, level in canaries["repetitions"].items()}
    if "inherited" in report:
        figures["inherited_records"] = report["inherited"]["records"]["members"]
        low, high = accuracy["excess"]["gap_ci95"]
        excess = {"": accuracy["excess"]["gap"], "_low": low, "_high": high}
        figures |= {f"excess_token_accuracy_gap{end}": value for end, value in excess.items()}
    return figures


@dataclass(frozen=True)
class _Figures:
    """Columns of the model's table, beside those of the no-KD student's, as gaps."""

    audited: pd.DataFrame
    no_kd: pd.DataFrame | None
    member: np.ndarray

    def column(self, name: str, rows: np.ndarray) -> dict[str, Any]:
        other = None if self.no_kd is None else self.no_kd[name].to_numpy(np.float64)
        return self.values(self.audited[name].to_numpy(np.float64), other, rows)

    def values(self, audited: np.ndarray, no_kd: np.ndarray | None, rows: np.ndarray) -> dict[str, Any]:
        figure = self._gap(audited, rows)
        if no_kd is not None:
            figure |= {"no_kd": self._gap(no_kd, rows), "excess": self._gap(audited - no_kd, rows)}
        return figure

    def _gap(self, values: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        groups = self.audited["group_id"].to_numpy()
        ins, outs = rows & self.member, rows & ~self.member
        return plain(mean_gap(values[ins], values[outs], groups[ins], groups[outs]))


def plain(gap: Gap) -> dict[str, Any]:
    """A gap under the report's keys."""
    return {
        "members": gap.members,
        "nonmembers": gap.nonmembers,
        "gap": gap.gap,
        "gap_ci95": [gap.low, gap.high],
        "n_members": gap.n_members,
        "n_nonmembers": gap.n_nonmembers,
    }


def _discoverable(figures: _Figures, rows: np.ndarray) -> dict[str, dict[str, Any]]:
    """By n, then p: the share of records whose first tokens n samples contain with probability p."""

    no_kd = figures.no_kd

    def share(table: pd.DataFrame, n: int, p: float) -> np.ndarray:
        return np.where(table["reproduced"].notna(), discoverable(table["log_p"].to_numpy(), n, p), np.nan)

    return {
        str(n): {
            f"{p:g}": figures.values(share(figures.audited, n, p), None if no_kd is None else share(no_kd, n, p), rows)
            for p in PROBABILITIES
        }
        for n in SAMPLES
    }


def _facts(audited: pd.DataFrame, no_kd: pd.DataFrame | None, groups: pd.Series) -> dict[str, Any]:
    """Shares of facts extracted, by kind; facts that the prompt states are `copied`, and in no other figure. groups: by
    record id; the facts of a group's records are one draw."""
    order = ["record_id", "fact"]
    audited = audited[audited["role"].isin([MEMBER, NONMEMBER])].sort_values(order, ignore_index=True)
    if no_kd is not None:
        no_kd = no_kd[no_kd["role"].isin([MEMBER, NONMEMBER])].sort_values(order, ignore_index=True)
        assert no_kd is not None  # rows of a table are a table
        if not audited[order].equals(no_kd[order]):
            raise KdleakError("the no-KD student's facts are not this model's; run both memorization stages again")
    owners = audited["record_id"].map(groups).fillna(audited["record_id"])
    figures = _Figures(audited.assign(group_id=owners), no_kd, (audited["role"] == MEMBER).to_numpy())
    copied = audited["in_prompt"].to_numpy()
    kinds = {kind: (audited["kind"] == kind).to_numpy() & ~copied for kind in sorted(audited["kind"].unique())}
    return {
        "all": figures.column("extracted", ~copied),
        "copied": figures.column("extracted", copied),
        "kinds": {kind: figures.column("extracted", rows) for kind, rows in kinds.items()},
        "probability": {kind: figures.values(*_probabilities(audited, no_kd), rows) for kind, rows in kinds.items()},
    }


def _probabilities(audited: pd.DataFrame, no_kd: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray | None]:
    return np.exp(audited["log_p"].to_numpy()), None if no_kd is None else np.exp(no_kd["log_p"].to_numpy())


def _inheritance(
    audited: pd.DataFrame, teacher: pd.DataFrame, no_kd: pd.DataFrame | None, member: np.ndarray
) -> list[dict[str, Any]]:
    """The paper's curve: accuracy on the members that the teacher knows better than each threshold; and on the
    non-members that it does, which nobody has seen."""
    curve = []
    for threshold in THRESHOLDS:
        known = (teacher["token_accuracy"] > threshold).to_numpy()
        point: dict[str, Any] = {"threshold": threshold, **_accuracies(audited, teacher, no_kd, known & member)}
        point["nonmembers"] = _accuracies(audited, teacher, no_kd, known & ~member)
        curve.append(point)
    return curve


def _accuracies(
    audited: pd.DataFrame, teacher: pd.DataFrame, no_kd: pd.DataFrame | None, rows: np.ndarray
) -> dict[str, Any]:
    """Mean token accuracies of `rows` with their intervals, and the student's `excess` over the no-KD student's on the
    same records; records of a group are one draw. Null where there are no rows."""
    tables = {"student_accuracy": audited, "teacher_accuracy": teacher, "no_kd_accuracy": no_kd}
    values = {n: table.loc[rows, "token_accuracy"].to_numpy() for n, table in tables.items() if table is not None}
    groups = audited.loc[rows, "group_id"].to_numpy()
    point: dict[str, Any] = {"n": int(rows.sum())}
    for name, column in values.items():
        mean, low, high = mean_interval(column, groups)
        point |= {name: mean if len(groups) else None, f"{name}_ci95": [low, high]}
    if no_kd is not None:
        difference = values["student_accuracy"] - values["no_kd_accuracy"]
        mean, low, high = mean_interval(difference, groups, least=-1.0)
        point["excess"] = {"difference": mean if len(groups) else None, "ci95": [low, high]}
    return point


def _inherited(audited: pd.DataFrame, teacher: pd.DataFrame, no_kd: pd.DataFrame, member: np.ndarray) -> dict[str, Any]:
    """Records that teacher and student reproduce and the no-KD student does not, as shares of those long enough."""
    by_teacher, by_student, by_no_kd = (table["reproduced"].to_numpy() for table in (teacher, audited, no_kd))
    hits = np.where(np.isnan(by_teacher), np.nan, (by_teacher == 1) & (by_student == 1) & (by_no_kd == 0))
    groups = audited["group_id"].to_numpy()
    gap = plain(mean_gap(hits[member], hits[~member], groups[member], groups[~member]))
    counts = {"members": int(np.nansum(hits[member])), "nonmembers": int(np.nansum(hits[~member]))}
    of_teacher = {"members": int((by_teacher[member] == 1).sum()), "nonmembers": int((by_teacher[~member] == 1).sum())}
    return {"share": gap, "records": counts, "reproduced_by_teacher": of_teacher}


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("record_id", ignore_index=True)


def _aligned(records: pd.DataFrame, other: pd.DataFrame, whose: str) -> pd.DataFrame:
    """The rows of `other` that `records` has, in its order."""
    aligned = _sorted(other[other["record_id"].isin(records["record_id"])])
    if not aligned[["record_id", "role"]].equals(records[["record_id", "role"]]):
        raise KdleakError(f"the {whose}'s table is of other records; run its memorization stage again")
    return aligned
