"""What code a command runs, read from the source alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import kdleak
from kdleak.core.fingerprint import Entries, SourceTree
from kdleak.pipeline.validate import BY_METHOD, ENTRIES, fingerprint
from tests.support.pipeline_project import ROOT

FILES = {
    "kdleak/__init__.py": "from kdleak.shown import table",
    "kdleak/shown.py": "import kdleak.stage",
    "kdleak/stage.py": '"""A stage."""\nfrom kdleak import helper\nfrom kdleak.methods import METHODS\n',
    "kdleak/helper.py": """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdleak.typed import Type

def late():
    '''Says.'''
    from kdleak.deep import inside  # noqa
    return inside.value + 1
""",
    "kdleak/typed.py": "Type = int",
    "kdleak/deep/__init__.py": "",
    "kdleak/deep/inside.py": "from ..near import x\nvalue = x",
    "kdleak/deep/unused.py": "value = 2",
    "kdleak/deep/words/list.yaml": "- a\n",
    "kdleak/near.py": "x = 1",
    "kdleak/methods/__init__.py": "import importlib, pkgutil\n"
    "for m in pkgutil.iter_modules(__path__):\n    importlib.import_module(m.name)\n",
    "kdleak/methods/a.py": "from kdleak.registry import method\n@method('a', source='x')\nclass A: pass\n",
    "kdleak/methods/b.py": "from kdleak.methods.a import A\nfrom kdleak.registry import method\n"
    "@method('b')\nclass B(A): pass\n",
    "kdleak/registry.py": "def method(name, source=''): return lambda made: made\n",
}


@pytest.fixture
def tree(tmp_path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def names(tree: Path, **options: object) -> set[str]:
    return {module.name.removeprefix("kdleak.") for module in SourceTree(tree).closure("kdleak.stage", **options)}


def printed(tree: Path, method: str | None = None) -> str:
    source = SourceTree(tree)
    entries = [Entries("kdleak.methods", "method", method)] if method else []
    return source.fingerprint(source.closure("kdleak.stage", entries=entries))


def test_imports_are_followed_into_functions_and_packages_and_not_for_type_checkers(tree):
    everything = {"stage", "helper", "deep", "deep.inside", "near", "methods", "methods.a", "methods.b", "registry"}
    assert names(tree) == everything
    assert names(tree, leave_out=["kdleak.deep", "kdleak.registry"]) == everything - {
        "deep", "deep.inside", "near", "registry"
    }  # fmt: skip


def test_of_a_registry_only_the_method_that_is_run_and_what_it_builds_on_are_followed(tree):
    found = {name: names(tree, entries=[Entries("kdleak.methods", "method", name)]) for name in ("a", "b")}
    assert "methods.b" not in found["a"] and {"methods.a", "methods.b"} <= found["b"]


def change(tree: Path, name: str, old: str, new: str) -> None:
    file = tree / "kdleak" / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage.py", '"""A stage."""', '"""Another\n\nwording."""\n# and a comment\n'),
        ("helper.py", "'''Says.'''", ""),
        ("helper.py", "# noqa", "# type: ignore"),
        ("helper.py", "kdleak.typed import Type", "kdleak.typed import Other"),
        ("deep/unused.py", "2", "3"),
        ("typed.py", "int", "str"),
        ("__init__.py", "table", "other"),
    ],
)
def test_what_decides_nothing_leaves_the_fingerprint_as_it_is(tree, file, old, new):
    before = printed(tree)
    change(tree, file, old, new)
    assert printed(tree) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("helper.py", "+ 1", "+ 2"),
        ("near.py", "1", "2"),
        ("registry.py", "source=''", "source='y'"),
        ("methods/a.py", "'x'", "'y'"),
    ],
)
def test_code_at_any_depth_changes_the_fingerprint(tree, file, old, new):
    before = printed(tree)
    change(tree, file, old, new)
    assert printed(tree) != before


def test_a_file_that_is_data_beside_the_code_counts_and_what_python_compiles_does_not(tree):
    before = printed(tree)
    (tree / "kdleak/deep/__pycache__").mkdir()
    (tree / "kdleak/deep/__pycache__/inside.cpython-311.pyc").write_bytes(b"compiled")
    assert printed(tree) == before
    change(tree, "deep/words/list.yaml", "a", "b")
    assert printed(tree) != before


def test_a_new_method_changes_the_fingerprint_of_no_other(tree):
    before = printed(tree, "a")
    (tree / "kdleak/methods/c.py").write_text("from kdleak.registry import method\n@method('c')\nclass C: pass\n")
    change(tree, "methods/b.py", "pass", "x = 1")
    assert printed(tree, "a") == before and printed(tree) != before


def test_every_stage_has_an_entry_and_no_fingerprint_takes_the_code_in():
    source = SourceTree(Path(kdleak.__file__).parents[1])
    assert source.folder == ROOT / "src"
    before = set(sys.modules)
    for stage in ENTRIES:
        text = fingerprint(source, stage, "kd" if stage in BY_METHOD else None)
        assert ENTRIES[stage] in text and "kdleak.cli" not in text and "kdleak.tracking" not in text
    assert set(sys.modules) == before


def test_code_that_makes_no_pass_is_that_of_the_judge_stages_alone():
    source = SourceTree(ROOT / "src")
    measure, judge = (
        {line.split()[1] for line in fingerprint(source, stage).splitlines()} for stage in ("measure", "judge")
    )
    assert {"kdleak.attacks.mope", "kdleak.attacks.variants", "kdleak.inference.scoring"} <= measure
    assert {"kdleak.attacks.rmia", "kdleak.stats.delong", "kdleak.memorization.report"} <= judge - measure
    assert not {name for name in judge if name.startswith("kdleak.report")}
