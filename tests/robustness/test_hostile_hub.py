"""Models by id, of a hub that serves what it likes (hostile/hub.yaml): refused in one line, or audited; no pickle and
no code is fetched, and nothing is written outside the hub's cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kdleak.models.checkpoints import load_model, save_checkpoint
from kdleak.models.families import Lora
from kdleak.models.lora import with_lora
from tests.support.commands import run_commands
from tests.support.hostile_inputs import TABLES, Tried, chosen
from tests.support.hub import Served, hub
from tests.support.private_marks import leaks, marked
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model

FETCHED = (".safetensors", ".json", ".jinja", ".model", ".txt")
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Files]:
    """The files of a model, and of an adapter."""
    folder, tokenizer = tmp_path_factory.mktemp("hub"), tokenizer_of(people(30, 1))
    save_checkpoint(tiny_model(layers=1, vocabulary=len(tokenizer), positions=256), tokenizer, folder / "model")
    lora = Lora(r=2, alpha=4, dropout=0.0, targets=["c_attn"])
    with_lora(load_model(folder / "model"), lora, seed=0).save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    return {name: {p.name: p.read_bytes() for p in (folder / name).iterdir()} for name in ("model", "adapter")}


def served(name: str, entry: Mapping[str, Any], sound: Mapping[str, Files]) -> Served:
    files = dict(sound[entry["like"]])
    changes = {name: dict(fields) for name, fields in entry.get("set", {}).items()}
    if entry["like"] == "adapter":
        base = {"base_model_name_or_path": entry.get("b", "o/sound").replace("SELF", name)}
        changes["adapter_config.json"] = base | changes.get("adapter_config.json", {})
    for name, fields in changes.items():
        files[name] = json.dumps(json.loads(files[name]) | fields).encode()
    files.pop(entry.get("gone", ""), None)
    files |= {name: text.encode() for name, text in entry.get("files", {}).items()}
    return Served(files, **{key: entry[key] for key in ("etag", "commit", "status", "body", "cut") if key in entry})


@pytest.mark.faults  # half a minute, most of it imports of another process
def test_hub(tried: Tried, tmp_path, sound):
    entries = [(f"o/m{i}", entry) for i, entry in chosen([*enumerate(TABLES["hub"]["models"])])]
    models = {"o/sound": Served(sound["model"]), "o/pickled": Served({"pytorch_model.bin": b"x", "config.json": b"{}"})}
    for name, entry in entries:
        models[name] = served(name, entry, sound)
    work, home = tmp_path / "work", tmp_path / "home"
    for folder in (work, home):
        folder.mkdir()
    for name, seed in (("m", 1), ("n", 2)):
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked(12, seed)))
    lists = ["--members", "m.jsonl", "--nonmembers", "n.jsonl", "--quick"]
    cases = [
        {"cwd": str(work), "argv": ["audit", "--student", name, *lists, "--out", f"out/{name}"]} for name, _ in entries
    ]
    with hub(models) as address:
        settings = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
        endings = run_commands(cases, settings | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    for (_, entry), ending in zip(entries, endings, strict=True):
        taken = entry.get("taken", False)
        if taken and ending["code"]:
            tried.broken.append(f"{entry} was not taken: {ending['err']}")
        tried.ended(entry, ending["code"], ending["err"], not taken, ending["out"] + ending["trace"])
    for model in models.values():
        assert all(file.endswith(FETCHED) and "/" not in file for file in model.asked), model.asked
    assert {path.name for path in tmp_path.iterdir()} == {"work", "home"}
    assert {path.name for path in home.iterdir()} <= {"hub", "xet"}
    assert {path.name for path in (home / "hub").iterdir()} <= {".locks", "CACHEDIR.TAG", *_caches(models)}
    tried.broken += leaks(work, ("m.jsonl", "n.jsonl"))
    shutil.rmtree(work / "out", ignore_errors=True)
    assert {path.name for path in work.iterdir()} == {"m.jsonl", "n.jsonl"}
    assert not list(Path("/").glob("kdleak-evil*"))
    tried.done(tmp_path / "home")


def _caches(models: Mapping[str, Served]) -> list[str]:
    return ["models--" + name.replace("/", "--") for name in models] + ["models--o--absent"]
