"""150,000 records through the data and checks stages: memory bounded, time linear in their number.

    python benchmarks/records.py [--rows 37500 75000 150000]

Each number of rows runs in a process of its own: a JSONL file of the embedded corpus' records goes through both
stages as a user's file does (near-duplicates grouped, roles drawn, every expectation evaluated, Data Docs written).
JSON on standard output. `seconds` is processor time, which other load does not change; `ratio` divides a size's by
the one before and must stay at or below 2.2 for twice the rows; `peak_mib` is the whole process at its largest.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

#: Shares of the rows that each role is given; what is left over makes up for duplicates and for the draw.
SHARES = {"private": 0.15, "public": 0.15, "heldout": 0.15, "auxiliary": 0.35}
PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"


def spent(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it returned."""
    started = time.process_time()
    result = function()
    return round(time.process_time() - started, 1), result


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_rows(rows: int, path: Path) -> None:
    from kdleak.data.synthetic import generate

    with path.open("w", encoding="utf-8") as stream:
        for record in generate(rows, seed=0):
            stream.write(json.dumps(asdict(record)) + "\n")


def both_stages(rows: int, path: Path) -> dict[str, Any]:
    """Seconds and peak memory of the two stages over the rows in `path`."""
    from kdleak.config.load import parse_params
    from kdleak.core.paths import Project
    from kdleak.pipeline.checks import run_gate
    from kdleak.pipeline.data import write_records

    content = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    sizes = {role: int(share * rows) for role, share in SHARES.items()}
    content["data"] |= {"source": "file", "path": str(path), "sizes": sizes}
    params, project = parse_params(content), Project(path.parent)
    before = peak_mib()
    data, prepared = spent(lambda: write_records(params.data, params.seed, project))
    after_data = peak_mib()
    checks, report = spent(lambda: run_gate(params, project))
    return {
        "rows": rows,
        "bytes": path.stat().st_size,
        "duplicates": prepared.duplicates,
        "records": report["n_records"],
        "seconds": {"data": data, "checks": checks, "both": round(data + checks, 1)},
        "peak_mib": {"before": before, "data": after_data, "both": peak_mib()},
    }


def measured(rows: int) -> dict[str, Any]:
    """The figures of one size, from two processes of its own: one writes the file, one reads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.jsonl")
        for step in ("--write", "--measure"):
            command = [sys.executable, __file__, step, path, "--rows", str(rows)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[37_500, 75_000, 150_000])
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write_rows(given.rows[0], given.write)
    elif given.measure:
        print(json.dumps(both_stages(given.rows[0], given.measure)))
    else:
        sizes = [measured(rows) for rows in given.rows]
        ratios = {
            stage: [round(b["seconds"][stage] / a["seconds"][stage], 2) for a, b in pairwise(sizes)]
            for stage in ("data", "checks", "both")
        }
        print(json.dumps({"sizes": sizes, "ratio": ratios}, indent=1))


if __name__ == "__main__":
    main()
