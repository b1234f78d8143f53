"""Hostile templates and tokenizers run in a child of bounded time and memory; what else is refused before any pass."""

from __future__ import annotations

import contextlib
import json
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
from kdleak.data.encoding import Encoder, decoded
from kdleak.data.sources import is_blank, read_file, task_name
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.device import resolve_device
from kdleak.models.hub import model_folder
from kdleak.models.model_files import check_folder
from kdleak.report.results_table import _membership
from kdleak.tracking.store import open_store, what_is_wrong
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model

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


DECODERS = {
    "blows up": ([{"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 60}] * 9, "more time or memory"),
    "writes much": (
        [{"type": "Replace", "pattern": {"Regex": "."}, "content": "e" * 9999}],
        "decoder makes .* characters",
    ),
}


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_that_blows_up_is_one_line(tight, kind):
    from tokenizers import decoders

    steps, said = DECODERS[kind]
    tokenizer = deepcopy(TOKENIZER)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["decoder"] = {"type": "Sequence", "decoders": [state["decoder"], {"type": "Fuse"}, *steps]}
    tokenizer.backend_tokenizer.decoder = type(tokenizer.backend_tokenizer).from_str(json.dumps(state)).decoder
    assert isinstance(tokenizer.backend_tokenizer.decoder, decoders.Sequence)
    ids = tokenizer("Ada owes three elms")["input_ids"]
    assert decoded(TOKENIZER, [ids, [], ids[:1]]) == [TOKENIZER.decode(row) for row in (ids, [], ids[:1])]
    with pytest.raises(KdleakError, match=said):
        decoded(tokenizer, [ids] * 20)


def test_a_configuration_that_fills_the_memory_is_one_line(tight, tmp_path):
    save_checkpoint(tiny_model(layers=1, vocabulary=len(TOKENIZER)), TOKENIZER, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"num_labels": 10**9}))
    with pytest.raises(KdleakError, match=r"reading its config.json (took more time or memory|failed \(MemoryError)"):
        load_model(tmp_path / "model")
    path.write_text(json.dumps(fields))
    with (tmp_path / "model" / "tokenizer.json").open("r+b") as file:
        file.truncate(2**40)  # sparse
    for load in (check_folder, load_tokenizer):
        with pytest.raises(
            KdleakError, match=r"tokenizer.json: 1,099,511,627,776 bytes, more than any model has of it"
        ):
            load(tmp_path / "model")


def test_nobody_is_asked_whether_a_folders_code_may_run(tmp_path, monkeypatch):
    save_checkpoint(tiny_model(layers=1, vocabulary=len(TOKENIZER)), TOKENIZER, tmp_path)
    (tmp_path / "config.json").unlink()
    path = tmp_path / "tokenizer_config.json"
    hostile = {"auto_map": {"AutoTokenizer": [None, "x.Y"]}, "tokenizer_class": "NoSuch"}
    path.write_text(json.dumps(json.loads(path.read_text()) | hostile))
    (tmp_path / "x.py").write_text("raise SystemExit('the code of the folder ran')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with contextlib.suppress(KdleakError):
        load_tokenizer(tmp_path)


def test_aliases_that_repeat_each_other_are_counted_before_they_are_written_out(tmp_path):
    laughs = "&z [lol]"
    for level in range(30):
        laughs = f"&a{level} [{laughs}{f', *a{level - 1}' * 9 if level else ', *z' * 9}]"
    for text in (f"seed: {laughs}\n", "a: &a {b: *a}\n"):
        (tmp_path / "params.yaml").write_text(text)
        with pytest.raises(KdleakError, match=r"not valid YAML \(its aliases \(\*name\) repeat too much"):
            read_yaml(tmp_path / "params.yaml", "mend it")
    (tmp_path / "params.yaml").write_text("a: &a [1, 2]\nb: *a\n")
    assert read_yaml(tmp_path / "params.yaml", "mend it") == {"a": [1, 2], "b": [1, 2]}


def test_a_line_that_does_not_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("kdleak.data.sources.tables._LONGEST_LINE", 100)
    (tmp_path / "m.jsonl").write_text('{"instruction": "a", "response": "b"}\n' + " " * 200)
    with pytest.raises(KdleakError, match="line 2: longer than 100 bytes; write one record a line"):
        list(read_file(tmp_path / "m.jsonl"))


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
