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


def fastest(function, tables: dict[str, pd.DataFrame], repeats: int = 5) -> dict[str, float]:
    """Seconds of the fastest of some calls on each table, taken in turns so that other load meets all alike."""
    best = dict.fromkeys(tables, float("inf"))
    for _ in range(repeats):
        for name, table in tables.items():
            started = time.perf_counter()
            function(table)
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DOLLY
    frame = pd.DataFrame([json.loads(line) for line in path.open(encoding="utf-8")])[FIELDS]
    frame["role"] = [("private", "heldout", "public")[i % 3] for i in range(len(frame))]
    twice = pd.concat([frame, frame.assign(**frame[FIELDS].map(substituted))], ignore_index=True)
    tables = {"once": frame, "twice": twice, "6000": frame.head(6000)}
    groups = fastest(group_ids, tables)
    overlap = fastest(ngram_overlap, tables)
    print(
        json.dumps(
            {
                "rows": len(frame),
                "groups": len(set(group_ids(frame))),
                "groups_twice": len(set(group_ids(twice))),
                "seconds": round(groups["once"], 2),
                "seconds_twice": round(groups["twice"], 2),
                "ratio": round(groups["twice"] / groups["once"], 2),
                "first_6000_rows_seconds": round(groups["6000"], 2),
                "ngram_overlap_seconds": round(overlap["once"], 2),
                "ngram_overlap_ratio": round(overlap["twice"] / overlap["once"], 2),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
