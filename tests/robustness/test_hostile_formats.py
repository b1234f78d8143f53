"""Models in pickle and in GGUF that are not what they should be (hostile/formats.yaml): refused in one line before
memory is taken for them, and nothing is written; or made a folder that is a model."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kdleak.models.checkpoints import load_model
from kdleak.models.convert import _convert
from kdleak.models.gguf_file import unpacked
from tests.models.test_convert import write_opt
from tests.models.test_gguf_file import TOKENIZER, write_gguf
from tests.support.hostile_inputs import TABLES, Tried, chosen
from tests.support.tiny_models import tiny_model

TABLE = TABLES["formats"]


def test_pickles(tried: Tried, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_opt(tmp_path / "sound")
    for number, entry in enumerate(chosen(TABLE["pickles"])):
        source, folder = tmp_path / f"source-{number}", tmp_path / f"out-{number}"
        shutil.copytree(tmp_path / "sound", source)
        _change(source / entry["file"], entry)
        taken = entry.get("taken", False)
        tried(entry, lambda source=source, folder=folder: _convert(source, folder), refused=not taken)
        assert folder.exists() == taken, entry
    tried.done()


def _change(path: Path, entry: dict[str, Any]) -> None:
    if "gone_too" in entry:
        (path.parent / entry["gone_too"]).unlink()
    if "set" in entry:
        path.write_text(json.dumps(json.loads(path.read_text()) | entry["set"]))
        return
    path.unlink(missing_ok=True)
    if "text" in entry:
        path.write_text(entry["text"])
    elif "bytes" in entry:
        path.write_bytes(bytes.fromhex(entry["bytes"]))
    elif "tensors" in entry:
        torch.save({name: torch.zeros(shape) for name, shape in entry["tensors"].items()}, path)
    elif "folder" in entry:
        path.mkdir()
    elif "pipe" in entry:
        os.mkfifo(path)
    elif "link" in entry:
        path.symlink_to(entry["link"])


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="the package gguf is not installed")
def test_gguf(tried: Tried, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.modeling_gguf_pytorch_utils.tqdm", lambda each, **_: each)  # no bar among lines
    sound = tmp_path / "sound.gguf"
    model = tiny_model("llama", vocabulary=len(TOKENIZER), layers=2)
    write_gguf(model, sound)
    for number, entry in enumerate(chosen(TABLE["gguf"])):
        path, store = tmp_path / f"{number}.gguf", tmp_path / f"store-{number}"
        path.write_bytes(_damaged(sound, entry))
        taken = entry.get("taken", False)
        tried(entry, lambda path=path, store=store: load_model(unpacked(path, store)), refused=not taken)
        assert any(store.glob("gguf-*")) == taken, entry
    tried.done()


def _damaged(sound: Path, entry: dict[str, Any]) -> bytes:
    content = bytearray(sound.read_bytes())
    if "cut" in entry:
        return bytes(content[: entry["cut"]])
    if "at" in entry:
        new = bytes.fromhex(entry["bytes"])
        content[entry["at"] : entry["at"] + len(new)] = new
    elif "bytes" in entry:
        return bytes.fromhex(entry["bytes"])
    for key, value in entry.get("set", {}).items():
        place = content.index(key.encode()) + len(key) + 4  # behind the key stands its type, then the number
        content[place : place + 4] = value.to_bytes(4, "little")
    if name := entry.get("without"):
        content = content.replace(name.encode(), b"x" * len(name))
    return bytes(content)
