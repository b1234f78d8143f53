"""Where an attacker accuses few: do `learned` and the cross-fitted ensemble name more members than the EZ attacks?

    python benchmarks/low_end.py PROJECT

PROJECT: a folder with the results of `dvc repro -P`. For each student the TPR at 1 % FPR of `learned`, of the ensemble
of all attackers' attacks (the verdict on a list: weights from the other half of the records) and of the better of `ez`
and `ez_no_kd`, and the paired difference with a 95 % interval: 2,000 resamples of the groups of both sides, thresholds
and the choice of the better one made anew in each. No model is run; prints JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from kdleak.auditing.controls import PASSED
from kdleak.auditing.judgement import LEAK
from kdleak.auditing.list_verdict import list_verdict
from kdleak.core.files import read_parquet
from kdleak.core.paths import Project
from kdleak.data.sides import MEMBER, as_sides
from kdleak.stats.operating_points import at_rate

FPR, RESAMPLES = 0.01, 2000
BEATEN = ("ez", "ez_no_kd")
TRIED = ("learned", "ensemble")


def tprs(scores: np.ndarray, rows: np.ndarray, member: np.ndarray) -> np.ndarray:
    """(k,) TPR at `FPR` of the columns of scores (n, k) over the records `rows`."""
    inside, outside = scores[rows[member[rows]]], scores[rows[~member[rows]]]
    return np.array([at_rate(inside[:, j], outside[:, j], FPR)[1] / len(inside) for j in range(scores.shape[1])])


def gains(found: np.ndarray) -> np.ndarray:
    """By how much each of TRIED exceeds the better of BEATEN; found: TPRs in the order TRIED, BEATEN."""
    return found[: len(TRIED)] - found[len(TRIED) :].max()


def resampled(tables: dict[str, np.ndarray], member: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(resamples, students, TRIED) gains; tables: name -> (n, 4) scores in the order TRIED, BEATEN.
    owner: (n,) the group of each record, drawn with replacement, for all students alike."""
    generator = np.random.default_rng(0)
    groups = [np.flatnonzero(owner == g) for g in range(owner.max() + 1)]
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[g] for g in generator.integers(len(groups), size=len(groups))])
        drawn.append([gains(tprs(scores, rows, member)) for scores in tables.values()])
    return np.array(drawn)


def summary(tables: dict[str, np.ndarray], member: np.ndarray, owner: np.ndarray) -> dict[str, Any]:
    """Of each student, TPRs and gains with intervals; and of all: the mean gain, and on how many it is above 0."""
    drawn, every = resampled(tables, member, owner), np.arange(len(member))
    found = {name: tprs(scores, every, member) for name, scores in tables.items()}
    students: dict[str, dict[str, Any]] = {
        name: dict(zip((*TRIED, *BEATEN), values.round(3).tolist(), strict=True)) for name, values in found.items()
    }
    together: dict[str, Any] = {"students": len(tables)}
    for i, tried in enumerate(TRIED):
        own = [float(gains(values)[i]) for values in found.values()]
        for j, name in enumerate(tables):
            students[name][f"{tried}_gain"] = [round(x, 3) for x in (own[j], *_interval(drawn[:, j, i]))]
        together[tried] = {
            "above": sum(gain > 0 for gain in own),
            "intervals_above": sum(each[f"{tried}_gain"][1] > 0 for each in students.values()),
            "mean_gain": [round(x, 3) for x in (float(np.mean(own)), *_interval(drawn[:, :, i].mean(1)))],
        }
    return {"fpr": FPR, **together, "by_student": students}


def _interval(drawn: np.ndarray) -> list[float]:
    return np.quantile(drawn, [0.025, 0.975]).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description="TPR at 1 % FPR of the learned attacks, paired with the EZ attacks'")
    parser.add_argument("project", type=Path)
    project = Project(parser.parse_args().project)
    records = read_parquet(project.records)
    groups = dict(zip(records["record_id"], records["group_id"].astype(str), strict=True))
    names = sorted(path.parent.name for path in project.scores("kd").parent.parent.glob("*/scores.parquet"))
    read = {name: as_sides(read_parquet(project.scores(name))).sort_values("record_id") for name in names}
    baseline, tables, placebos = read.pop("sft"), {}, {}
    judged: Any = SimpleNamespace(kind=LEAK)
    for name, table in read.items():
        _, ensemble = list_verdict(table, {"no_kd": baseline}, judged, PASSED, groups)
        tables[name] = table.assign(ensemble=ensemble)[[*TRIED, *BEATEN]].to_numpy(np.float64)
        control = json.loads(project.membership(name).read_text())["controls"]["placebo"]["learned"]
        placebos[name] = [control["auc"], *control["auc_ci95"]]
    _, owner = np.unique([groups[i] for i in baseline["record_id"]], return_inverse=True)
    result = summary(tables, (baseline["role"] == MEMBER).to_numpy(), owner)
    print(json.dumps(result | {"placebo_of_learned": placebos}, indent=1))


if __name__ == "__main__":
    main()
