"""How often the verdict on a whole list is wrong, and how often it finds what is there, on a study's own scores.

    python benchmarks/list_verdict.py PROJECT [AUDITS]

PROJECT: a folder with the results of `dvc repro -P`. Null audits are lists that were parted by chance, groups whole:
half of them the records of the no-KD student, half the non-members of a student that leaks, beside its baseline. Found:
lists of true members, as a whole or in part, against as many non-members. Mild: lists of records that nobody used, of
which the one has more of the records that any model finds easy: the student did not learn from it. No model is run;
prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from kdleak.auditing.controls import PASSED
from kdleak.auditing.judgement import NONE
from kdleak.auditing.list_verdict import ALPHA, list_verdict, signals_of
from kdleak.core.files import read_parquet
from kdleak.core.paths import Project
from kdleak.data.sides import MEMBER, NONMEMBER, as_sides
from kdleak.stats import clopper_pearson
from kdleak.stats.list_test import CrossFit, list_test

if TYPE_CHECKING:
    import pandas as pd

#: Records a side of a null audit; student, records a side and share of members of what is to be found.
NULL_SIDE = 100
PLANTED = (
    *(("kd", 50, 1.0), ("kd", 25, 1.0), ("seqkd", 100, 1.0), ("seqkd", 25, 1.0), ("minillm", 25, 1.0)),
    *(("kd", 100, 0.5), ("kd", 100, 0.25), ("kd", 100, 0.1), ("seqkd", 100, 0.25)),
)
PERMUTATIONS = 999
#: Of lists that differ a little: the share of the easier half of the records that one of them gets.
EASY = 0.65


class Study:
    """Scores tables of a project by model, with each record's group."""

    def __init__(self, project: Project):
        self.project = project
        records = read_parquet(project.records)
        self.groups = dict(zip(records["record_id"], records["group_id"].astype(str), strict=True))

    def table(self, name: str) -> pd.DataFrame:
        return as_sides(read_parquet(self.project.scores(name))).sort_values("record_id", ignore_index=True)

    def p_value(self, student: pd.DataFrame, baseline: pd.DataFrame | None, member: np.ndarray, seed: int) -> float:
        """Of lists in the rows of `student`, member (n,); baseline: the no-KD student's table of all records."""
        nulls = [] if baseline is None else [baseline.set_index("record_id").loc[student["record_id"]]]
        owner = np.array([self.groups[i] for i in student["record_id"]])
        _, signals = signals_of(student, nulls)
        return list_test(CrossFit(signals, owner, seed), member, PERMUTATIONS, seed, owner).p_value


def by_chance(study: Study, table: pd.DataFrame, generator: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of whole groups, about NULL_SIDE a side, and to which side each went."""
    owner = np.array([study.groups[i] for i in table["record_id"]])
    order = generator.permutation(np.unique(owner))
    place = {group: i for i, group in enumerate(order)}
    rank = np.array([place[group] for group in owner])
    chosen = rank < np.sort(rank)[min(2 * NULL_SIDE, len(rank)) - 1] + 1
    return table[chosen].reset_index(drop=True), rank[chosen] % 2 == 0


def null_audits(study: Study, audits: int) -> dict:
    """P-values of lists that nothing tells apart."""
    from scipy.stats import kstest

    sft, kd = study.table("sft"), study.table("kd")
    outside, found = kd[kd["role"] != MEMBER].reset_index(drop=True), []
    for seed in range(audits):
        generator = np.random.default_rng([seed, 7])
        rows, member = by_chance(study, sft if seed % 2 else outside, generator)
        found.append(study.p_value(rows, None if seed % 2 else sft, member, seed))
    wrong = sum(p <= ALPHA for p in found)
    low, high = clopper_pearson(wrong, audits)
    return {
        "audits": audits,
        "ks_p": float(kstest(found, "uniform").pvalue),
        "false_at_alpha": wrong,
        "share_ci95": [round(float(low), 4), round(float(high), 4)],
        "deciles": np.histogram(found, 10, (0, 1))[0].tolist(),
    }


def planted(study: Study, audits: int, say: Callable[[str], None]) -> list[dict]:
    """The share of lists that were used, in whole or in part, that is found."""
    sft, rows = study.table("sft"), []
    for name, side, share in PLANTED:
        table, found = study.table(name), []
        inside, outside = table[table["role"] == MEMBER], table[table["role"] != MEMBER]
        for seed in range(audits):
            generator, used = np.random.default_rng([seed, 8]), round(share * side)
            picked = generator.choice(len(inside), used, False), generator.choice(len(outside), 2 * side - used, False)
            index = np.concatenate([inside.index[picked[0]], outside.index[picked[1]]])
            found.append(study.p_value(table.loc[index].reset_index(drop=True), sft, np.arange(2 * side) < side, seed))
        hits = sum(p <= ALPHA for p in found)
        row = {"student": name, "records_a_side": side, "share_used": share, "audits": audits, "found": hits}
        say(json.dumps(row))
        rows.append(row)
    return rows


def mild_differences(study: Study, audits: int) -> list[dict]:
    """What the verdict says of lists that differ in themselves, by little, without and with the baseline beside.

    Records are the no-KD student's, so that both lists were never used; a record that it finds easier than the median
    (attack `loss`) comes into the list with a probability of EASY. The blind battery, which sees the texts alone, is
    taken to have passed.
    """
    sft, kd = study.table("sft"), study.table("kd")
    outside = kd[kd["role"] != MEMBER].reset_index(drop=True)
    baseline = sft.set_index("record_id").loc[outside["record_id"]].reset_index()
    easy = (baseline["loss"] > baseline["loss"].median()).to_numpy()
    rows = []
    for beside in ({}, {"no_kd": baseline}):
        said: Counter[str] = Counter()
        for seed in range(audits):
            member = np.random.default_rng([seed, 9]).random(len(outside)) < np.where(easy, EASY, 1.0 - EASY)
            lists = outside.assign(role=np.where(member, MEMBER, NONMEMBER))
            judged = SimpleNamespace(kind=NONE)
            report, _ = list_verdict(lists, beside, judged, PASSED, study.groups, seed)  # pyright: ignore[reportArgumentType]
            said[report["kind"]] += 1
        rows.append({"baseline": bool(beside), "audits": audits, "said": dict(said)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("audits", type=int, nargs="?", default=200)
    given = parser.parse_args()
    study = Study(Project(given.project))
    null = null_audits(study, given.audits)
    found = planted(study, given.audits // 2, lambda line: print(line, file=sys.stderr))
    mild = mild_differences(study, min(20, given.audits))
    print(json.dumps({"alpha": ALPHA, "null": null, "planted": found, "mild_differences": mild}, indent=1))


if __name__ == "__main__":
    main()
