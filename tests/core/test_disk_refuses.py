"""A disk that is full or read-only is one line with the remedy; what was there before is untouched, nothing is left."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.core.files import replacing_file, replacing_folder, write_csv, write_json, write_parquet
from kdleak.distill.teacher_signal import HiddenStateCache
from kdleak.inference.cache import ArrayCache
from kdleak.models.checkpoints import content_hash, save_checkpoint
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import cross_entropy
from kdleak.training.loop import Recipe, train
from kdleak.training.resume import ResumeStore
from tests.support.counted import counted
from tests.support.disk_faults import largest_file, not_writable
from tests.support.small_project import CommandLine, refusal, small_project
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import random_records, tiny_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and rights as Linux knows them")

TOO_LARGE = "larger than this process may write; raise 'ulimit -f', then run the same command again"
DENIED = "permission denied; change its owner or mode, then run the same command again"
TABLE = pd.DataFrame({"x": np.random.default_rng(0).random(4000)})


def draw(path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot(TABLE["x"])
    with replacing_file(path) as fresh:
        figure.savefig(fresh, format="svg")


WRITERS = {
    "json": lambda path: write_json(TABLE["x"].tolist(), path),
    "csv": lambda path: write_csv(TABLE, path),
    "parquet": lambda path: write_parquet(TABLE, path),
    "svg": draw,
}


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return small_project(tmp_path_factory.mktemp("whole")).root


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    made = Path(shutil.copytree(whole, tmp_path / "project"))
    shutil.copytree(made / "models/students/sft", made / "models/students/kd")
    return made


@pytest.fixture
def kdleak(monkeypatch, capsys) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_is_whole_or_as_it_was(name, tmp_path):
    path = tmp_path / f"out.{name}"
    path.write_text("earlier")
    with largest_file(1024), pytest.raises(KdleakError) as caught:
        WRITERS[name](path)
    assert str(caught.value) == f"{path}: {TOO_LARGE}"
    with not_writable(tmp_path), pytest.raises(KdleakError) as caught:
        WRITERS[name](path)
    assert str(caught.value) == f"{path}: {DENIED}"
    assert content(tmp_path) == {path.name: b"earlier"}


def test_a_checkpoint_is_whole_or_as_it_was(tmp_path):
    tokenizer = tokenizer_of(people(30, 1))
    save_checkpoint(tiny_model(seed=1, vocabulary=len(tokenizer)), tokenizer, tmp_path / "m")
    before = content(tmp_path)
    sizes = sorted(len(c) for c in before.values())
    for size in (100, sizes[-2], sizes[-1] - 1):  # in the configuration, in the tokenizer or the weights
        with largest_file(size), pytest.raises(KdleakError) as caught:
            save_checkpoint(tiny_model(seed=2, vocabulary=len(tokenizer)), tokenizer, tmp_path / "m")
        assert str(caught.value) == f"{tmp_path / 'm'}: {TOO_LARGE}"
        assert content(tmp_path) == before


def test_the_folder_before_is_put_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    import os

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("earlier")
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if target.name == "out" and not source.name.endswith(".old"):
            raise PermissionError(13, "Permission denied", str(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(KdleakError, match="out: permission denied"), replacing_folder(tmp_path / "out") as fresh:
        (fresh / "a").write_text("later")
    assert content(tmp_path) == {"out/a": b"earlier"}


def test_a_file_that_cannot_be_read_goes_by_its_own_name(tmp_path):
    with pytest.raises(KdleakError, match="/elsewhere/source: permission denied"), replacing_file(tmp_path / "copy"):
        raise PermissionError(13, "Permission denied", "/elsewhere/source")
    with pytest.raises(RuntimeError, match="the system has no part in it"), replacing_file(tmp_path / "copy"):
        raise RuntimeError("the system has no part in it")


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (("distill", "kd"), "models/students/kd"),
        (("text", "seqkd"), "data/text/seqkd.parquet"),
        (("checks",), "results/checks/docs"),
        (("canaries",), "data/canaries.parquet"),
    ],
)
def test_a_stage_on_a_full_disk_names_its_output_and_leaves_the_one_before(command, output, folder, kdleak):
    if not output.startswith("models"):
        (folder / output).parent.mkdir(parents=True, exist_ok=True)
        (folder / output).write_bytes(b"earlier") if "." in output else (folder / output).mkdir()
    before = content(folder)
    with largest_file(600):
        assert refusal(kdleak, folder, *command) == f"{output}: {TOO_LARGE}"
    after = {name: found for name, found in content(folder).items() if not name.startswith(".kdleak/")}
    assert after == before
    assert not list(folder.rglob(".*.[0-9]*"))


def test_a_stage_with_read_only_outputs_names_them_and_runs_once_they_are_writable(folder, kdleak):
    before = content_hash(folder / "models/students/kd")
    with not_writable(folder / "models/students"):
        assert refusal(kdleak, folder, "distill", "kd") == f"models/students/kd: {DENIED}"
    assert content_hash(folder / "models/students/kd") == before
    assert kdleak(folder, "distill", "kd")[0] == 0
    assert content_hash(folder / "models/students/kd") != before


def test_a_state_that_cannot_be_written_leaves_the_one_before_from_which_the_training_goes_on(tmp_path):
    source, recipe = FixedBatches(random_records(12), 4, seed=0), Recipe(lr=0.01, epochs=3, batch_size=4)
    store = ResumeStore(tmp_path / "state", key="run")
    options = {"seed": 1, "resume": store, "save_every_s": -1}
    undisturbed, stopped, resumed = (tiny_model(layers=1) for _ in range(3))
    history = train(undisturbed, source, cross_entropy, recipe, seed=1)

    def fill(done: int) -> None:
        if done == 5:
            disk.__enter__()

    disk = largest_file(4096)
    try:
        with pytest.raises(KdleakError, match="larger than this process may write"):
            train(stopped, source, cross_entropy, recipe, progress=counted(fill), **options)
    finally:
        disk.__exit__(None, None, None)
    steps = []
    assert train(resumed, source, cross_entropy, recipe, progress=counted(steps.append), **options) == history
    assert steps[:2] == [4, 5]  # the state after four steps
    for a, b in zip(undisturbed.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


CACHES = {
    "passes": (ArrayCache, {"x": np.zeros(5000)}),
    "teacher": (HiddenStateCache, torch.zeros(5000)),
}


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_that_cannot_be_written_is_a_warning_and_no_failure(name, tmp_path, caplog):
    make, entry = CACHES[name]
    cache = make(tmp_path / "cache")
    with largest_file(1024):
        cache.put("a", entry)
    assert f"not kept ({tmp_path / 'cache' / 'a.safetensors'}: {TOO_LARGE}); " in caplog.text
    assert content(tmp_path) == {}
    cache.put("a", entry)
    path = tmp_path / "cache" / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    caplog.clear()
    with not_writable(tmp_path / "cache"):
        assert cache.get("a") is None  # damaged, though it cannot be removed
        cache.put("a", entry)
    assert "is damaged" in caplog.text and DENIED in caplog.text
    assert cache.get("a") is None and not path.exists()
