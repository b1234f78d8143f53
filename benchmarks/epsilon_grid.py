"""The chain of bounds under every defence of the default grid: no student may lie above its teacher's accountant.

    python benchmarks/epsilon_grid.py [--project .] [--defences dp_sgd,blend] [--all-strengths]

In a project whose bases, teacher and no-KD student are trained, with epsilon.canaries in its params.yaml: an audit a
defence, at its last strength or at all, into results/epsilon/report.json beside what stands there. Of the default
study an audit takes minutes. JSON on standard output: bounds, accountant's ε, and the links that are broken.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kdleak.certify.chain import BROKEN
from kdleak.certify.names import defence_key
from kdleak.config.load import load_params
from kdleak.core.files import read_json
from kdleak.core.paths import Project
from kdleak.defend.grid import GridPoint, default_grid
from kdleak.pipeline.epsilon import certify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--defences", default="", help="by name, with commas; else all")
    parser.add_argument("--all-strengths", action="store_true")
    asked = parser.parse_args()
    project = Project(asked.project.resolve())
    params = load_params(project.params)
    wanted = asked.defences.split(",") if asked.defences else None
    grid, broken = default_grid(), []
    for defence in grid if asked.all_strengths else {each.name: each for each in grid}.values():
        if wanted and defence.name not in wanted:
            continue
        point = GridPoint(defence, params.seed).settings(params)
        certify(point, project)
        found = read_json(project.epsilon_report)["audits"][defence_key(point)]
        bounds = {name: each["one_run"]["epsilon_lower"] for name, each in found["models"].items()}
        links = [link for link in found["chain"] if link["state"] == BROKEN]
        broken += links
        print(json.dumps({"defence": defence_key(point), "accountant": found["accountant"], "bounds": bounds,
                          "broken": links}), flush=True)  # fmt: skip
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
