"""A damaged file is one line that names it and the remedy; a damaged entry of a cache is thrown away and made anew."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kdleak.config.load import load_params
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_csv, read_json, read_parquet
from kdleak.core.paths import Project
from kdleak.core.times import span_of, timed
from kdleak.data.sources import read_file
from kdleak.models.checkpoints import load_model, load_tokenizer, position_limit
from kdleak.pipeline.provenance import Provenance
from tests.support.small_project import CommandLine, refusal, small_project

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "another file's content": lambda content: b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
}
#: file -> the command that reads it.
READ_BY = {
    "data/records.parquet": ("text", "seqkd"),
    "models/teacher/config.json": ("text", "seqkd"),
    "models/teacher/tokenizer.json": ("text", "seqkd"),
    "models/teacher/model.safetensors": ("text", "seqkd"),
    "models/base/student/model.safetensors": ("distill", "sft"),
    "models/base/student/config.json": ("distill", "sft"),
    "results/metrics.json": ("results",),
    "results/teacher/membership.json": ("results",),
    "families.yaml": ("family", "gpt2"),
    "params.yaml": ("params",),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return small_project(tmp_path_factory.mktemp("whole")).root


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy of a small project, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "project"))


@pytest.fixture
def kdleak(monkeypatch, capsys) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


def damage(path: Path, how: Damage) -> None:
    content = path.read_bytes()
    assert how(content) != content
    path.write_bytes(how(content))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", READ_BY)
def test_a_damaged_file_is_one_line_with_the_remedy(name, how, folder, kdleak):
    damage(folder / name, DAMAGES[how])
    before = (folder / name).read_bytes()
    said = refusal(kdleak, folder, *READ_BY[name])
    place = Path(name).parent if name.startswith("models/") else Path(name)
    assert str(place) in said, said
    assert any(words in said for words in ("dvc repro", "git ", "; did you mean", "input should be")), said
    assert (folder / name).read_bytes() == before  # nobody's file is deleted for him
    assert not list(folder.rglob(".*.[0-9]*"))


@pytest.mark.parametrize("name", ["transformer.h.0.ln_1.weight", "transformer.wpe.weight"])
def test_weights_without_one_of_their_tensors_are_refused_and_never_drawn_at_random(name, folder):
    flipped = name[:-1] + chr(ord(name[-1]) ^ 1)
    path = folder / "models/teacher/model.safetensors"
    damage(path, lambda content: content.replace(f'"{name}"'.encode(), f'"{flipped}"'.encode()))
    with pytest.raises(KdleakError, match=f"teacher: its weights lack '{name}'.*dvc repro"):
        load_model(folder / "models/teacher")


def test_an_adapter_without_one_of_its_tensors_is_refused(folder):
    from kdleak.models.families import Lora
    from kdleak.models.lora import with_lora

    base, path = folder / "models/teacher", folder / "adapter"
    lora = Lora(r=2, alpha=4, dropout=0.0, targets=["c_attn"])
    with_lora(load_model(base), lora, seed=0).save_pretrained(path)
    fields = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(fields | {"base_model_name_or_path": str(base)}))
    assert load_model(path)
    damage(path / "adapter_model.safetensors", lambda content: content.replace(b"lora_B", b"lora_C"))
    with pytest.raises(KdleakError, match=r"adapter: this adapter does not fit its base .*dvc repro"):
        load_model(path)


def test_a_report_without_a_key_that_is_read_names_file_and_key(folder, kdleak):
    path = Project(folder).membership("teacher")
    damage(path, lambda content: content.replace(b"attacks", b"attbcks"))
    said = refusal(kdleak, folder, "results")
    assert said == f"{path.relative_to(folder)}: holds no 'attacks'; delete it and run 'dvc repro'"


def flips(content: bytes, n: int, seed: int = 0):
    """`n` copies of `content` with a bit flipped somewhere."""
    generator = random.Random(seed)
    for _ in range(n):
        flipped = bytearray(content)
        flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
        yield bytes(flipped)


READERS: dict[str, tuple[Callable[[Path], object], int]] = {
    "data/records.parquet": (lambda path: read_parquet(path, filters=[("role", "in", ["private"])]), 150),
    "results/teacher/roc.csv": (read_csv, 60),
    "results/teacher/membership.json": (lambda path: read_json(path)["attacks"], 60),
    "models/teacher/tokenizer.json": (lambda path: load_tokenizer(path.parent), 40),
    "models/teacher/config.json": (lambda path: (load_model(path.parent), position_limit(path.parent)), 40),
    "dvc.lock": (lambda path: Provenance(Project(path.parent)), 60),
    "params.yaml": (load_params, 20),
}


@pytest.mark.parametrize("name", READERS)
def test_whatever_bit_is_flipped_a_reader_says_so_or_reads_what_is_there(name, folder):
    read, times = READERS[name]
    path = folder / name
    if name == "dvc.lock":
        path.write_text(
            "schema: '2.0'\nstages:\n  data:\n    cmd: kdleak data\n    outs:\n    - path: a\n      md5: b\n"
        )
    elif name.endswith(".csv"):
        path.write_text("attack,fpr,tpr\nloss,0.0,0.0\nloss,1.0,1.0\n")
    refused = 0
    for content in flips(path.read_bytes(), times):
        path.write_bytes(content)
        try:
            read(path)
        except KdleakError as error:
            refused += 1
            assert "\n" not in str(error) and str(folder) in str(error), error
    assert refused or name.endswith(".csv")


def test_a_users_damaged_parquet_is_refused_whatever_bit_is_flipped(folder):
    path = folder / "data/records.parquet"
    refused = 0
    for content in flips(path.read_bytes(), 100):
        path.write_bytes(content)
        try:
            list(read_file(path))
        except KdleakError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused


def test_a_damaged_note_of_when_a_command_ran_is_as_none(tmp_path):
    project = Project(tmp_path)
    with timed(project, "distill", "kd"):
        pass
    assert span_of(project, "distill", "kd") is not None and span_of(project, "distill", "rkl") is None
    for content in (b"", b'{"start": 1}', b"[1]", b"\xff", b'{"start": "x", "end": 2}'):
        project.times("distill", "kd").write_bytes(content)
        assert span_of(project, "distill", "kd") is None


def test_a_file_that_is_not_there_names_the_stage_that_writes_it(tmp_path):
    for read in (read_csv, read_parquet, read_json):
        with pytest.raises(KdleakError, match=r"absent: no such file; run the stage that writes it \('dvc repro'\)"):
            read(tmp_path / "absent")
