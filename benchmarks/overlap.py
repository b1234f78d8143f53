"""Time of the near-duplicate search on all of Dolly-15k, and on twice the rows.

    PYTHONPATH=src python benchmarks/overlap.py [databricks-dolly-15k.jsonl]

The second half of the doubled corpus is the first with every word replaced by another: as varied, and as full of
duplicates, as the original. Prints JSON; `ratio` must stay at or below 2.2, `seconds` below 60 on two cores.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pandas as pd

from kdleak.data.overlap import group_ids, ngram_overlap

DOLLY = Path(__file__).resolve().parents[2] / "shared" / "data" / "databricks-dolly-15k.jsonl"
FIELDS = ["instruction", "context", "response"]


def substituted(text: str) -> str:
    """Every word replaced by a word of its own, the same each time."""
    return re.sub(r"\w+", lambda word: word[0][::-1] + "q", text)


def seconds(function, *arguments) -> tuple[float, object]:
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DOLLY
    frame = pd.DataFrame([json.loads(line) for line in path.open(encoding="utf-8")])[FIELDS]
    twice = pd.concat([frame, frame.map(substituted)], ignore_index=True)
    group_ids(frame.head(100))  # imports
    runs = {name: [seconds(group_ids, table) for _ in range(3)] for name, table in (("once", frame), ("twice", twice))}
    once, double = (min(s for s, _ in runs[name]) for name in ("once", "twice"))
    roled = {
        n: t.assign(role=["private", "heldout"] * (len(t) // 2) + ["public"] * (len(t) % 2))
        for n, t in (("once", frame), ("twice", twice))
    }
    overlap = {name: min(seconds(ngram_overlap, table)[0] for _ in range(3)) for name, table in roled.items()}
    print(
        json.dumps(
            {
                "rows": len(frame),
                "groups": len(set(runs["once"][0][1])),
                "groups_twice": len(set(runs["twice"][0][1])),
                "seconds": round(once, 2),
                "seconds_twice": round(double, 2),
                "ratio": round(double / once, 2),
                "first_6000_rows_seconds": round(seconds(group_ids, frame.head(6000))[0], 2),
                "ngram_overlap_seconds": round(overlap["once"], 2),
                "ngram_overlap_ratio": round(overlap["twice"] / overlap["once"], 2),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
