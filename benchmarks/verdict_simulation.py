"""Null audits and planted leaks, without a model: how often the verdict says "it leaks". Prints JSON.

    python benchmarks/verdict_simulation.py [audits] [--kept FOLDER]

`audits` (200) null audits of the kinds in tests/support/simulated_audits.py: a student that is its baseline, a context
that all records share, small lists, other scripts, members that are easier under every model, documents with several
records. And as many planted leaks, by size and length of the lists. Outcomes and what the blind battery found are kept
in FOLDER (.kdleak/verdict_simulation), so that a run that was stopped goes on; delete it to start anew. Under two
minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.simulated_audits import NULLS, null_settings, simulated_audit  # noqa: E402

from kdleak.inference.cache import ArrayCache  # noqa: E402
from kdleak.stats import clopper_pearson  # noqa: E402

#: Shifts of the members in standard deviations, and records a side.
SIZES, LENGTHS = (0.25, 0.5, 0.75, 1.0), (50, 150)


class Kept:
    """Outcomes by name, a line of a file each."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.battery = ArrayCache(folder / "battery")
        self.path = folder / "outcomes.jsonl"
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        self.known = {entry["name"]: entry for entry in map(json.loads, lines)}

    def outcome(self, name: str, seed: int, **settings: object) -> dict:
        """{name, kind, auc} of an audit; run if it is not known."""
        if name not in self.known:
            found = simulated_audit(seed, kept=self.battery, **settings)
            self.known[name] = {"name": name, "kind": found.kind, "auc": found.best.auc}
            with self.path.open("a") as file:
                file.write(json.dumps(self.known[name]) + "\n")
        return self.known[name]


def null_audits(audits: int, kept: Kept) -> dict:
    """How many of the null audits say each thing, in all and by kind."""
    by_kind: dict[str, Counter] = {kind: Counter() for kind in NULLS}
    for seed in range(audits):
        kind, settings = null_settings(seed)
        by_kind[kind][kept.outcome(f"null {seed}", seed, **settings)["kind"]] += 1
    total = sum(by_kind.values(), Counter())
    low, high = clopper_pearson(total["leak"], audits)
    return {
        "audits": audits,
        "it leaks": total["leak"],
        "share": total["leak"] / audits,
        "share_ci95": [round(float(low), 4), round(float(high), 4)],
        "said": dict(total),
        "by_kind": {kind: dict(counts) for kind, counts in by_kind.items()},
    }


def planted_leaks(audits: int, kept: Kept) -> list[dict]:
    """The share of planted leaks that is found, by size and number of records a side."""
    each, rows = audits // (len(SIZES) * len(LENGTHS)), []
    for n in LENGTHS:
        outcomes: dict[float, list[dict]] = {size: [] for size in SIZES}
        for seed in range(each):  # the sizes share their texts, and what the blind battery says of them
            for size, found in outcomes.items():
                found.append(kept.outcome(f"leak {size} of {n}, {seed}", 100_000 + seed, n=n, leak=size))
        for size, found in outcomes.items():
            leaks = sum(entry["kind"] == "leak" for entry in found)
            auc = float(np.mean([entry["auc"] for entry in found]))
            rows.append({"records_a_side": n, "shift": size, "best_auc": round(auc, 3), "audits": each, "found": leaks})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audits", type=int, nargs="?", default=200)
    parser.add_argument("--kept", type=Path, default=ROOT / ".kdleak" / "verdict_simulation")
    given = parser.parse_args()
    kept = Kept(given.kept)
    print(json.dumps({"null": null_audits(given.audits, kept), "planted": planted_leaks(given.audits, kept)}, indent=1))


if __name__ == "__main__":
    main()
