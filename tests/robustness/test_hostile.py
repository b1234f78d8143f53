"""The hostile inputs of hostile/*.yaml: every one ends in one clear line and exit 1, or is handled. `make hostile`
prints how many of each. A new input is a line of a table there."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kdleak.auditing.lists import read_lists
from kdleak.cli import main
from kdleak.config.load import load_params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.core.tensor_store import TensorStore
from kdleak.data.sources import read_file
from kdleak.distill.recipes import check_methods
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.families import load_family
from kdleak.models.model_files import content_hash
from tests.support.small_project import change, small_project
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model

TABLES = {path.stem: yaml.safe_load(path.read_text()) for path in (Path(__file__).parent / "hostile").glob("*.yaml")}
PRIVATE, SECRET = "PRIVATE", "SECRET"
#: area -> inputs, refused, handled.
COUNTS: dict[str, tuple[int, int, int]] = {}


class Tried:
    """The inputs of one area, each through kdleak's own `main`; what breaks a promise is collected."""

    def __init__(self, area: str, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture):
        self.area, self._patch, self._captured = area, patch, captured
        self.refused = self.handled = 0
        self.broken: list[str] = []

    def __call__(self, name: object, work: Callable[[], object], refused: bool = False, argv: list | None = None):
        """refused: whether the input must not be taken."""
        self._captured.readouterr()
        code = 0
        with self._patch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if argv is None:
                patch.setattr(main, "app", work)
            else:
                patch.setattr(sys, "argv", argv)
            try:
                main.main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        said = self._captured.readouterr().err
        lines = said.splitlines()
        if code == 0 and not refused:
            self.handled += 1
            return
        self.refused += 1
        clear = code == 1 and len(lines) == 1 and lines[0].startswith("kdleak: error: ") and len(lines[0]) < 700
        if not clear or any(word in said for word in ("unforeseen", "Traceback", PRIVATE, SECRET)):
            self.broken.append(f"{name!r:.150} -> {code}: {said[:300]!r}")

    def done(self) -> None:
        COUNTS[self.area] = (self.refused + self.handled, self.refused, self.handled)
        assert not self.broken, f"{len(self.broken)} broken:\n" + "\n".join(self.broken)


@pytest.fixture
def tried(request, monkeypatch, capsys) -> Iterator[Tried]:
    for variable in ("DVC_STAGE", "KDLEAK_DEBUG", "KDLEAK_SHOW_TEXT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield Tried(request.node.name.removeprefix("test_"), monkeypatch, capsys)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return small_project(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("model") / "model", tokenizer_of(people(30, 1))
    save_checkpoint(tiny_model(layers=1, vocabulary=len(tokenizer), positions=128), tokenizer, folder)
    return folder


def _bomb(entry: dict[str, Any]) -> str:
    return entry.get("begin", "") + entry["repeat"] * entry["times"] + entry.get("end", "")


def test_parameters(tried, tmp_path, project):
    path, table = tmp_path / "params.yaml", TABLES["params"]

    def load() -> None:
        check_methods(load_params(path))

    sound = yaml.safe_load(project.params.read_text())
    for key, value in itertools.product(table["keys"], table["values"]):
        content = deepcopy(sound)
        change(content, key, value)
        path.write_text(yaml.dump(content, Dumper=yaml.CSafeDumper))
        tried((key, value), load)
    for text in table["texts"]:
        path.write_text(text, encoding="utf-8")
        tried(text, load, refused=True)
    tried.done()


def test_families(tried, tmp_path):
    path = tmp_path / "families.yaml"
    for text in TABLES["families"]["texts"]:
        path.write_text(text, encoding="utf-8")
        tried(text, lambda: load_family(path, "x"))
    tried.done()


def test_records(tried, tmp_path):
    table, good = TABLES["records"], "".join(json.dumps(row) + "\n" for row in people(12, 1))
    lines = [json.dumps(row) for row in table["rows"]] + table["lines"] + [_bomb(entry) for entry in table["built"]]
    contents = [("jsonl", f"{good}{line}\n".encode()) for line in lines]
    contents += [("csv", text.encode()) for text in table["csv"]]
    contents += [(ending, bytes.fromhex(digits)) for ending, digits in table["bytes"]]
    nonmembers = people(12, 2)
    for ending, content in contents:
        path = tmp_path / f"rows.{ending}"
        path.write_bytes(content)
        tried(content[-200:], lambda path=path: read_lists(path, nonmembers))
        tried(content[-200:], lambda path=path: list(read_file(path, needs_role=True)))
    tried.done()


def test_audit(tried, tmp_path, model, monkeypatch):
    shutil.copytree(model, tmp_path / "model")
    for name, seed in (("m", 1), ("n", 2)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in people(12, seed)))
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "taken" / "scores.parquet").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    sound = {"--student": "model", "--members": "m.jsonl", "--nonmembers": "n.jsonl", "--out": "out"}
    for options in TABLES["audit"]["refused"]:
        given = [option.replace("{}", str(tmp_path)) for option in options]
        others = [part for key, name in sound.items() if key not in given for part in (key, str(tmp_path / name))]
        monkeypatch.chdir(tmp_path)
        tried(options, lambda: None, refused=True, argv=["kdleak", "audit", *others, *given])
    tried.done()
    assert not (tmp_path / "out" / "audit.json").exists()


def test_model_folders(tried, tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, changed in enumerate(TABLES["models"]["changes"]):
        folder = tmp_path / str(number)
        shutil.copytree(model, folder)
        _damage(folder, changed)
        tried(changed, lambda folder=folder: (load_model(folder), load_tokenizer(folder), content_hash(folder)))
    tried.done()


def _damage(folder: Path, changed: dict[str, Any]) -> None:
    path = folder / changed["file"]
    if {"gone", "folder", "pipe", "link"} & set(changed):
        path.unlink()
    if "also_gone" in changed:
        (folder / changed["also_gone"]).unlink()
    if "set" in changed:
        fields = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(fields | changed["set"]))
    elif "text" in changed:
        path.write_text(changed["text"])
    elif "bytes" in changed:
        path.write_bytes(bytes.fromhex(changed["bytes"]))
    elif changed.get("folder"):
        path.mkdir()
    elif changed.get("pipe"):
        os.mkfifo(path)
    elif "link" in changed:
        path.symlink_to(changed["link"])


def test_results(tried, project, monkeypatch):
    monkeypatch.chdir(project.root)
    table = TABLES["results"]
    contents = [*table["contents"], *map(_bomb, table["built"])]
    for name, content in itertools.product(table["files"], contents):
        path = project.root / name
        before = path.read_bytes() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        tried((name, content[:60]), lambda: None, argv=["kdleak", "results"])
        path.unlink() if before is None else path.write_bytes(before)
    tried.done()


def test_stores(tried, tmp_path, monkeypatch):
    from kdleak.tracking.store import open_store, what_is_wrong

    store = TensorStore(tmp_path / "cache")
    for digits in TABLES["stores"]["entries"]:
        store.put("key", {"a": np.zeros(3)})
        (tmp_path / "cache" / "key.safetensors").write_bytes(bytes.fromhex(digits))
        tried(digits, lambda: _none(store.get("key")))
    (tmp_path / ".git").mkdir()
    (tmp_path / "text").write_text("no database")
    project = Project(tmp_path)

    def reach() -> None:
        try:
            with open_store(project):
                pass
        except Exception as error:
            raise KdleakError(what_is_wrong(project, error)) from None

    for address in TABLES["stores"]["addresses"]:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("{}", str(tmp_path)))
        with contextlib.redirect_stdout(None):
            tried(address, reach, refused=True)
    tried.done()


def _none(entry: object) -> None:
    assert entry is None


def test_at_least_six_hundred_inputs_were_tried(capsys):
    if len(COUNTS) < len(TABLES):
        pytest.skip("a part of the suite was chosen")
    total = tuple(map(sum, zip(*COUNTS.values(), strict=True)))
    with capsys.disabled():
        for area, (inputs, refused, handled) in {**COUNTS, "all": total}.items():
            print(f"\n{area:>15}: {inputs} inputs, {refused} refused in one line, {handled} handled", end="")
    assert total[0] >= 600
