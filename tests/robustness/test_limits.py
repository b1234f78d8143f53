"""Hostile templates and tokenizers run in a child of bounded time and memory; what else is refused before any pass."""

from __future__ import annotations

import os
import sqlite3
import time
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from kdleak.auditing.result import AuditResult, check_out
from kdleak.auditing.settings import Settings
from kdleak.core import limits
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json
from kdleak.core.limits import within_limits
from kdleak.core.paths import Project
from kdleak.core.yaml_file import read_yaml
from kdleak.data.encoding import Encoder
from kdleak.data.sources import is_blank, task_name
from kdleak.models.device import resolve_device
from kdleak.models.hub import model_folder
from kdleak.report.results_table import _membership
from kdleak.tracking.store import open_store, what_is_wrong
from tests.support.standalone_models import people, tokenizer_of

FRAME = pd.DataFrame(people(12, 1)).assign(context="", record_id=[str(i) for i in range(12)])
TOKENIZER = tokenizer_of(people(12, 1))
SLOW = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 10 ** (10 ** 8) }}",
)
LARGE = (
    "{% set x = namespace(s='aaaa') %}{% for i in range(99) %}{% set x.s = x.s + x.s %}{% endfor %}{{ x.s }}",
    "{{ 'a' * (10 ** 12) }}",
)


@pytest.fixture
def tight(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 1.0)
    monkeypatch.setattr(limits, "BYTES", 2**29)


@pytest.mark.parametrize("template", SLOW + LARGE)
def test_a_template_that_never_ends_or_fills_the_memory_is_one_line(tight, template):
    tokenizer = deepcopy(TOKENIZER)
    tokenizer.chat_template = template
    begun = time.monotonic()
    with pytest.raises(KdleakError, match=r"took more time or memory than such a text needs; use|\(MemoryError\)"):
        Encoder(tokenizer, template="chat").encode_frame(FRAME)
    assert time.monotonic() - begun < 20


def test_a_normalizer_that_blows_up_is_one_line(tight):
    from tokenizers import normalizers

    tokenizer = deepcopy(TOKENIZER)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("e", "ee" * 40)] * 9)
    with pytest.raises(KdleakError, match="more time or memory than such a text needs"):
        Encoder(tokenizer).encode_frame(FRAME)


def test_the_child_gives_what_the_parent_would_and_costs_little():
    encoder = Encoder(TOKENIZER)
    begun = time.monotonic()
    encoded = encoder.encode_frame(FRAME)
    assert time.monotonic() - begun < 2
    fields = ("record_id", "instruction", "context", "response")
    assert encoded == [encoder.encode(*(row[name] for name in fields)) for _, row in FRAME.iterrows()]


def children() -> set[str]:
    """Processes that this one has begun and not taken leave of; other tests may have some."""
    return {each for task in Path("/proc/self/task").iterdir() for each in (task / "children").read_text().split()}


def test_a_child_passes_its_own_errors_on_and_leaves_no_process():
    def fail() -> None:
        raise KdleakError("ours")

    before = children()

    with pytest.raises(KdleakError, match="ours"):
        within_limits(fail, "x")
    with pytest.raises(KdleakError, match=r"reading failed \(ZeroDivisionError; its text may quote a record"):
        within_limits(lambda: 1 // 0, "reading")
    with pytest.raises(KdleakError, match="dying took more time or memory"):
        within_limits(lambda: os._exit(3), "dying")
    assert children() == before


REFUSED = {
    "device 'tpu': unknown; choose cpu, cuda or auto": lambda f: resolve_device("tpu"),
    "no name of a folder (an unknown user's, or not UTF-8); write it out": lambda f: model_folder("~nouser"),
    "--quick leaves out all that --attacks names (mope); take back one of the two": lambda f: Settings(
        attacks=["mope"], quick=True
    ),
    "--batch-tokens 0: a forward pass needs one token at least": lambda f: Settings(batch_tokens=0),
    "file: not a directory; name a folder that can be written": lambda f: check_out(f / "file"),
    "taken: scores.parquet there is no file; name another folder": lambda f: check_out(f / "taken"),
    "'010' is two different numbers in YAML 1.1 and 1.2; write it without 0 or :": lambda f: read_yaml(
        f / "octal.yaml", "mend it"
    ),
    "'a' stands twice": lambda f: read_yaml(f / "twice.yaml", "mend it"),
    "half a character (a lone surrogate)": lambda f: read_yaml(f / "half.yaml", "mend it"),
    "deep.yaml: not valid YAML (nested too deep); mend it": lambda f: read_yaml(f / "deep.yaml", "mend it"),
    "pipe: no regular file; put one there": lambda f: read_yaml(f / "pipe", "mend it"),
    "list.json: damaged (no JSON object); delete it and run 'dvc repro'": lambda f: read_json(f / "list.json"),
    "damaged (attacks holds no figures); delete it": lambda f: list(_membership("kd", Project(f))),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_was_taken_or_unforeseen_is_one_line(said, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "taken" / "scores.parquet").mkdir(parents=True)
    report = Project(tmp_path).membership("kd")
    report.parent.mkdir(parents=True)
    report.write_text('{"attacks": null}')
    contents = {"octal.yaml": "seed: 010", "twice.yaml": "a: 1\na: 2", "half.yaml": 'a: "\\ud800"', "file": ""}
    for name, content in {**contents, "deep.yaml": "[" * 5000, "list.json": "[]"}.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(KdleakError) as caught:
        REFUSED[said](tmp_path)
    assert said in str(caught.value)


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(KdleakError, match="device 'cuda:7': this machine has 1 GPUs; choose cpu or auto"):
        resolve_device("cuda:7")


def test_results_are_written_whole_or_not_at_all(tmp_path):
    old = AuditResult({"verdict": 1}, pd.DataFrame({"a": [1.0]}), "page")
    old.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["audit.json", "report.html", "scores.parquet"]
    broken = SimpleNamespace(to_parquet=lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        AuditResult({"verdict": 2}, broken, "other page").save(tmp_path)  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_free_text_of_a_task_becomes_a_hash_and_nothing_visible_is_no_response():
    assert task_name("closed_qa") == "closed_qa" and task_name("") == "unspecified"
    assert task_name("Ada owes 3 boats") == task_name("Ada owes 3 boats") != task_name("Ada owes 4 boats")
    assert task_name("Ada owes 3 boats").startswith("task-") and len(task_name("x" * 999)) == 13
    assert is_blank("\u200b \ufeff\u2060\x00") and not is_blank("\u200ba") and not is_blank("\u0301")


@pytest.mark.parametrize(
    "address", ["postgresql://u:SECRET/word@h/db", "http://h/?token=SECRET", "http://u:SECRET@h/?a=b&token=SECRET"]
)
def test_no_secret_of_an_address_is_printed(tmp_path, monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "SECRET2")
    said = what_is_wrong(Project(tmp_path), ValueError(f"cannot reach {address} with SECRET2"))
    assert "SECRET" not in said and "//h" in said


def test_a_store_that_is_a_folder_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}")
    (tmp_path / ".git").mkdir()
    begun = time.monotonic()
    with pytest.raises(sqlite3.DatabaseError, match="it is a folder"), open_store(Project(tmp_path)):
        pass
    assert time.monotonic() - begun < 20
