"""The figures of README.md, copied from results/ and the example. `make readme` (or: python docs/make_readme.py).

Between `<!-- NAME -->` and `<!-- end -->` a page holds what this script wrote there, and a test holds both together.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kdleak.config.load import load_params
from kdleak.core.paths import BASELINE, TEACHER, Project
from kdleak.report.study.markdown import Tables

ROOT = Path(__file__).resolve().parents[1]
PROJECT = Project(ROOT)
PAGES = ("README.md",)
#: Attacks of the README's four rows.
ATTACKS = ("loss", "ref_pretrained", "ez", "teacher_aware")


def headline() -> str:
    """Four attacks down; teacher, student and no-KD student across."""
    params, tables = load_params(PROJECT.params), Tables.read(PROJECT)
    student, sizes = params.kd.method, tables.models.loc[TEACHER]
    head = ["attack", "teacher", f"student (`{student}`)", "no-KD student"]
    rows = [
        [f"`{attack}`", *(tables.auc(model, attack) for model in (TEACHER, student, BASELINE))] for attack in ATTACKS
    ]
    return (
        _table(head, rows)
        + f"\n\nAUC [95 % interval] of {sizes['members']} members against {sizes['nonmembers']} non-members; "
        f".5 is chance. By `loss` the student lies {tables.excess(student, 'loss')} "
        "above the no-KD student."
    )


def verdict() -> str:
    """What the example notebook's audit says, as it was last run."""
    notebook = json.loads((ROOT / "examples" / "audit_a_student.ipynb").read_text(encoding="utf-8"))
    outputs = ["".join(output["text"]) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    said = next(text for text in outputs if "non-members" in text)
    return "```console\n" + "".join(said.splitlines(keepends=True)[:3]) + "```"


PARTS: dict[str, Callable[[], str]] = {
    "headline": headline,
    "verdict": verdict,
}


def filled(page: str) -> str:
    """`page` with every marked part as the results have it."""

    def part(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{PARTS[found[1]]()}\n<!-- end -->"

    return re.sub(rf"<!-- ({'|'.join(PARTS)}) -->.*?<!-- end -->", part, page, flags=re.DOTALL)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def main() -> None:
    for name in PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        (ROOT / name).write_text(filled(page), encoding="utf-8")
        print(f"{name}: {'current' if filled(page) == page else 'written'}", file=sys.stderr)


if __name__ == "__main__":
    main()
