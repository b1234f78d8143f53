"""Records with a mark in every field, and where that mark stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tests.support.standalone_models import people

MARK = "Qzx~Vantry"
#: Where private text may lie, below a project's root.
PRIVATE_FOLDERS = ("data", "models", ".kdleak")


def marked(n: int, seed: int) -> list[dict[str, Any]]:
    """Records with the mark in every field, tasks and facts too."""
    rows = []
    for number, row in enumerate(people(n, seed)):
        response = f"{MARK} {row['response']}"
        rows.append(
            {
                "instruction": f"{MARK} {row['instruction']}",
                "context": f"{MARK} of case {seed} {number}",
                "response": response,
                "category": f"{MARK} kind",
                "facts": [{"kind": f"{MARK} fact", "value": response}],
            }
        )
    return rows


def leaks(root: Path, private: tuple[str, ...] = PRIVATE_FOLDERS) -> list[str]:
    """Files outside the private entries of `root`, and names of any, that hold the mark."""
    found = [str(p) for p in root.rglob("*") if MARK in p.name]
    for path in root.rglob("*"):
        if path.is_file() and path.relative_to(root).parts[0] not in private and _holds(path):
            found.append(str(path))
    return found


def _holds(path: Path) -> bool:
    try:
        held = pd.read_parquet(path).to_csv().encode() if path.suffix == ".parquet" else path.read_bytes()
    except (ValueError, OSError):  # no Parquet, whatever it is called
        held = path.read_bytes()
    return any(form in held for form in (MARK.encode(), MARK.encode("utf-16-le")))
