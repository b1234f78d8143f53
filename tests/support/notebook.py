"""Run a notebook's cells in this process, without Jupyter; `python -m tests.support.notebook FILE` stores the outputs.

An output is what a cell printed, and the `str` of its last expression.
"""

from __future__ import annotations

import ast
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


def executed(notebook: dict[str, Any]) -> list[str]:
    """The text that each code cell gives, run from top to bottom in one namespace."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [_run("".join(cell["source"]), namespace) for cell in cells]


def stored(notebook: dict[str, Any]) -> list[str]:
    """The text that each code cell gave when the notebook was last run."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return ["".join(line for output in cell["outputs"] for line in output["text"]) for cell in cells]


def _run(source: str, namespace: dict[str, Any]) -> str:
    tree, shown = ast.parse(source), io.StringIO()
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with redirect_stdout(shown):
        exec(compile(tree, "<cell>", "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
            if value is not None:
                print(value)
    return shown.getvalue()


def store(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    texts = iter(executed(notebook))
    for count, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
        text = next(texts)
        cell["execution_count"] = count
        output = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
        cell["outputs"] = [output] if text else []
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    store(Path(sys.argv[1]))
