"""The hostile inputs of hostile/*.yaml: every one ends in one clear line and exit 1, or is handled. `make hostile`
tries all and prints how many of each; `make test` a part. A new input is a line of a table there."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from ruamel.yaml import YAML

from kdleak.auditing.lists import read_lists
from kdleak.config.load import load_params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.core.tensor_store import TensorStore
from kdleak.core.yaml_file import read_yaml
from kdleak.data.encoding import Encoder, decoded
from kdleak.data.sources import read_file
from kdleak.defend.choice import check_defence
from kdleak.defend.grid import check_grid
from kdleak.distill.recipes import check_methods
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.families import Lora, load_family
from kdleak.models.lora import with_lora
from kdleak.models.model_files import content_hash
from kdleak.pipeline.validate import check_environment
from tests.support.hostile_inputs import TABLES, bomb, chosen
from tests.support.private_marks import marked
from tests.support.small_project import change, small_project
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return small_project(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("model") / "model", tokenizer_of(people(30, 1))
    save_checkpoint(tiny_model(layers=1, vocabulary=len(tokenizer), positions=128), tokenizer, folder)
    return folder


def test_parameters(tried, tmp_path, project):
    path, table = tmp_path / "params.yaml", TABLES["params"]

    def load() -> None:
        params = load_params(path)
        check_methods(params)
        check_defence(params)
        check_grid(params)
        check_environment(params, project)

    sound = yaml.safe_load(project.params.read_text())
    for key, value in chosen([*itertools.product(table["keys"], table["values"]), *table["settings"]]):
        content = deepcopy(sound)
        change(content, key, value)
        path.write_text(yaml.dump(content, Dumper=yaml.CSafeDumper))
        tried((key, value), load)
    for text in chosen(table["texts"]):
        path.write_text(text, encoding="utf-8")
        tried(text, load, refused=True)
    for scalar in chosen(table["scalars"]):
        path.write_text(f"a: {scalar}\n", encoding="utf-8")
        tried(scalar, lambda: _as_dvc_reads_it(path))
    tried.done()


def _as_dvc_reads_it(path: Path) -> None:
    """`dvc exp run -S` writes, and DVC compares, by YAML 1.2."""
    found = read_yaml(path, "mend it")
    assert repr(found["a"]) == repr(YAML(typ="safe", pure=True).load(path.read_text())["a"])


def test_families(tried, tmp_path):
    path = tmp_path / "families.yaml"
    for text in chosen(TABLES["families"]["texts"]):
        path.write_text(text, encoding="utf-8")
        tried(text, lambda: load_family(path, "x"))
    tried.done()


def test_records(tried, tmp_path):
    table, good = TABLES["records"], "".join(json.dumps(row | {"role": "private"}) + "\n" for row in marked(12, 1))
    lines = [json.dumps(row) for row in table["rows"]] + table["lines"] + [bomb(entry) for entry in table["built"]]
    contents = [("jsonl", f"{good}{line}\n".encode()) for line in lines]
    contents += [("csv", text.encode()) for text in table["csv"]]
    contents += [(ending, bytes.fromhex(digits)) for ending, digits in table["bytes"]]
    nonmembers = marked(12, 2)
    for ending, content in chosen(contents):
        path = tmp_path / f"rows.{ending}"
        path.write_bytes(content)
        tried(content[-200:], lambda path=path: read_lists(path, nonmembers))
        tried(content[-200:], lambda path=path: list(read_file(path, needs_role=True)))
    tried.done(tmp_path, tuple(f"rows.{ending}" for ending, _ in contents))


def test_audit(tried, tmp_path, model, monkeypatch):
    shutil.copytree(model, tmp_path / "model")
    for name, seed in (("m", 1), ("n", 2)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked(12, seed)))
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "taken" / "scores.parquet").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    sound = {"--student": "model", "--members": "m.jsonl", "--nonmembers": "n.jsonl", "--out": "out"}
    for options in chosen(TABLES["audit"]["refused"]):
        given = [option.replace("{}", str(tmp_path)) for option in options]
        others = [part for key, name in sound.items() if key not in given for part in (key, str(tmp_path / name))]
        monkeypatch.chdir(tmp_path)
        tried(options, lambda: None, refused=True, argv=["kdleak", "audit", *others, *given])
    tried.done(tmp_path, ("m.jsonl", "n.jsonl"))
    assert not (tmp_path / "out" / "audit.json").exists()


def test_model_folders(tried, tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lora = Lora(r=2, alpha=4, dropout=0.0, targets=["c_attn"])
    with_lora(load_model(model), lora, seed=0).save_pretrained(tmp_path / "adapter")
    (tmp_path / "base").symlink_to(model)
    _damage(tmp_path / "adapter", {"file": "adapter_config.json", "set": {"base_model_name_or_path": "./base"}})
    for number, changed in enumerate(chosen(TABLES["models"]["changes"])):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / changed.get("like", "base"), folder)
        _damage(folder, changed)
        tried(changed, lambda folder=folder: _read(folder), refused=changed.get("refused", False))
    tried.done()


def _read(folder: Path) -> None:
    """All that an audit reads of a model folder, before its first pass."""
    frame = pd.DataFrame(marked(3, 1)).assign(record_id=["a", "b", "c"])
    load_model(folder)
    content_hash(folder)
    tokenizer = load_tokenizer(folder)
    encoded = Encoder(tokenizer, template="chat" if tokenizer.chat_template else "alpaca").encode_frame(frame)
    decoded(tokenizer, [record.response for record in encoded])


def _damage(folder: Path, changed: dict[str, Any]) -> None:
    path = folder / changed["file"]
    if {"gone", "folder", "pipe", "link"} & set(changed):
        path.unlink(missing_ok=True)
    if "also_gone" in changed:
        (folder / changed["also_gone"]).unlink()
    if "set" in changed:
        fields = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(fields | changed["set"]))
    elif "text" in changed:
        path.write_text(changed["text"])
    elif "bytes" in changed:
        path.write_bytes(bytes.fromhex(changed["bytes"]))
    elif "sparse" in changed:
        with path.open("ab") as file:
            file.truncate(changed["sparse"])
    elif changed.get("folder"):
        path.mkdir()
    elif changed.get("pipe"):
        os.mkfifo(path)
    elif "link" in changed:
        path.symlink_to(changed["link"])


def test_stores(tried, tmp_path, monkeypatch):
    from kdleak.tracking.store import open_store, what_is_wrong

    store = TensorStore(tmp_path / "cache")
    for digits in chosen(TABLES["stores"]["entries"]):
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

    for address in chosen(TABLES["stores"]["addresses"]):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("{}", str(tmp_path)))
        with contextlib.redirect_stdout(None):
            tried(address, reach, refused=True)
    tried.done()


def _none(entry: object) -> None:
    assert entry is None
