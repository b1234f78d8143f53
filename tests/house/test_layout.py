"""The house stands as it is drawn: arrows point downwards, no circle, nothing loose at the top, files of one idea."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.support.pipeline_project import ROOT

SOURCES = sorted((ROOT / "src" / "kdleak").rglob("*.py"))
#: Lines of a file; lines of a function without signature and docstring (it fits a screen).
LONGEST_FILE, LONGEST_FUNCTION = 299, 50


def test_arrows_point_downwards_and_there_is_no_circle(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS, "see what lint-imports says"


def test_nothing_is_loose_at_the_top():
    loose = {path.name for path in SOURCES if path.parent.name == "kdleak"}
    assert loose == {"__init__.py", "__main__.py", "api.py"}


def test_the_test_folders_are_the_rooms():
    rooms = {path.parent.name for path in SOURCES if path.name == "__init__.py" and path.parents[1].name == "kdleak"}
    tested = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("__")}
    others = {"house", "packaging", "support", "robustness", "docs"}
    assert tested - others <= rooms


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src" / "kdleak")))
def test_a_file_is_one_idea_and_a_function_fits_a_screen(path: Path):
    source = path.read_text()
    tree = ast.parse(source)
    assert source.count("\n") <= LONGEST_FILE
    assert ast.get_docstring(tree) or not tree.body, "a file's docstring says what its idea is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _screen(node)
            assert lines <= LONGEST_FUNCTION, f"{node.name}: {lines} lines"


def _screen(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body without its docstring: the signature and that are the function's page in a manual."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_what_benchmarks_and_docs_import_is_there():
    """They run by hand, so nothing else would tell."""
    for path in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kdleak"):
                module = import_module(node.module)
                missing = [each.name for each in node.names if not hasattr(module, each.name)]
                assert not missing, f"{path.name}: {node.module} has no {missing}"
