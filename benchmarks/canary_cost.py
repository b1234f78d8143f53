"""What coin canaries cost the teacher in held-out perplexity, beside a teacher of as many ordinary records.

    python benchmarks/canary_cost.py [--project .] [--canaries 500] [--seeds 0,1,2]

In a project whose bases are trained: two teachers a seed, of the settings and the defence of its params.yaml. A seed
decides coins, canaries and the order of batches; records and bases are the project's. Target: the rise below a tenth.
JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from kdleak.certify.coins import coin_canaries
from kdleak.config.load import load_params
from kdleak.core.paths import Project
from kdleak.data.records import read_role
from kdleak.pipeline.canary_cost import canary_cost, furnish
from kdleak.pipeline.teacher import fine_tune_teacher

TARGET = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--canaries", type=int, default=500)
    parser.add_argument("--seeds", default="0,1,2")
    asked = parser.parse_args()
    project = Project(asked.project.resolve())
    costs = []
    for seed in map(int, asked.seeds.split(",")):
        params = load_params(project.params).model_copy(update={"seed": seed})
        place = Path(tempfile.mkdtemp(prefix="canary-cost-"))
        coins = coin_canaries(read_role(project.records, "auxiliary"), asked.canaries, seed)
        own = furnish(place / "canaries", project, coins)
        fine_tune_teacher(params, own)
        cost = canary_cost(coins, params, own, place / "ordinary")
        costs.append({"seed": seed, "planted": int(coins["repetitions"].sum())} | cost)
        print(json.dumps(costs[-1]), file=sys.stderr, flush=True)
        shutil.rmtree(place)
    print(json.dumps({"target": TARGET, "met": all(each["cost"] < TARGET for each in costs), "costs": costs}, indent=1))


if __name__ == "__main__":
    main()
