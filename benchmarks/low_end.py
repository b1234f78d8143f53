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


def compared(scores: np.ndarray, member: np.ndarray, owner: np.ndarray, seed: int) -> dict[str, Any]:
    """scores (n, 4) in the order TRIED, BEATEN; owner: (n,) the group of each record."""
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(owner == g) for g in range(owner.max() + 1)]
    found = tprs(scores, np.arange(len(scores)), member)
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[g] for g in generator.integers(len(groups), size=len(groups))])
        drawn.append(gains(tprs(scores, rows, member)))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {
        **dict(zip((*TRIED, *BEATEN), found.round(3).tolist(), strict=True)),
        "gain": {
            name: [round(float(x), 3) for x in (gains(found)[i], low[i], high[i])] for i, name in enumerate(TRIED)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="TPR at 1 % FPR of the learned attacks, paired with the EZ attacks'")
    parser.add_argument("project", type=Path)
    project = Project(parser.parse_args().project)
    records = read_parquet(project.records)
    groups = dict(zip(records["record_id"], records["group_id"].astype(str), strict=True))
    baseline, students = as_sides(read_parquet(project.scores("sft"))), {}
    for path in sorted(project.scores("kd").parent.parent.glob("*/scores.parquet")):
        name = path.parent.name
        table = as_sides(read_parquet(path))
        if name == "sft":
            continue
        judged: Any = SimpleNamespace(kind=LEAK)
        _, ensemble = list_verdict(table, {"no_kd": baseline}, judged, PASSED, groups)
        columns = table.assign(ensemble=ensemble)[[*TRIED, *BEATEN]].to_numpy(np.float64)
        _, owner = np.unique([groups[i] for i in table["record_id"]], return_inverse=True)
        control = json.loads(project.membership(name).read_text())["controls"]["placebo"]["learned"]
        placebo = {"placebo_auc": control["auc"], "placebo_ci95": control["auc_ci95"]}
        students[name] = compared(columns, (table["role"] == MEMBER).to_numpy(), owner, len(students)) | placebo
    won = {
        f"{name}_{what}": sum(s["gain"][name][i] > 0 for s in students.values())
        for name in TRIED
        for i, what in ((0, "above"), (1, "interval_above"))
    }
    print(json.dumps({"fpr": FPR, "students": students, "of": len(students), **won}, indent=1))


if __name__ == "__main__":
    main()
