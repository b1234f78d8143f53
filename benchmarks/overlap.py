"""Time of the near-duplicate search on all of Dolly-15k, and on twice the rows.

    PYTHONPATH=src python benchmarks/overlap.py [databricks-dolly-15k.jsonl]

The second half of the doubled corpus is the first with every word replaced by another: as varied, and as full of
duplicates, as the original. Prints JSON; `ratio` must stay at or below 2.2, `seconds` below 60 on two cores.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pandas as pd

from kdleak.data.overlap import group_ids, ngram_overlap

DOLLY = Path(__file__).resolve().parents[2] / "shared" / "data" / "databricks-dolly-15k.jsonl"
FIELDS = ["instruction", "context", "response"]


_LOWER, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
_ROTATED = str.maketrans(
    _LOWER + _LOWER.upper() + _DIGITS,
    _LOWER[13:] + _LOWER[:13] + (_LOWER[13:] + _LOWER[:13]).upper() + _DIGITS[5:] + _DIGITS[:5],
)


def substituted(text: str) -> str:
    """Every word replaced by a word of its own, of the same length and the same each time."""
    return text.translate(_ROTATED)


def fastest(function, tables: dict[str, pd.DataFrame], repeats: int = 6) -> dict[str, tuple[float, float]]:
    """(wall, processor) seconds, the least of some calls on each table, taken in turns so that other load meets all.

    The search runs in one thread, so processor time is what a quiet machine's clock would show.
    """
    best = dict.fromkeys(tables, (float("inf"), float("inf")))
    for _ in range(repeats):
        for name, table in tables.items():
            wall, processor = time.perf_counter(), time.process_time()
            function(table)
            spent = (time.perf_counter() - wall, time.process_time() - processor)
            best[name] = (min(best[name][0], spent[0]), min(best[name][1], spent[1]))
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
                "wall_seconds": round(groups["once"][0], 2),
                "seconds": round(groups["once"][1], 2),
                "seconds_twice": round(groups["twice"][1], 2),
                "ratio": round(groups["twice"][1] / groups["once"][1], 2),
                "seconds_first_6000": round(groups["6000"][1], 2),
                "ngram_overlap_seconds": round(overlap["once"][1], 2),
                "ngram_overlap_ratio": round(overlap["twice"][1] / overlap["once"][1], 2),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
