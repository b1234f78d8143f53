"""Ctrl-C at any moment is one line and loses nothing; a killed neighbour in a cache or in a collective harms nobody."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import kdleak
from kdleak.cli import main
from kdleak.core import distributed, files, tensor_store
from kdleak.core.errors import KdleakError
from kdleak.core.files import replacing_file, replacing_folder
from kdleak.pipeline.distill import make_student
from kdleak.training import loop, run
from tests.support.counted import counted
from tests.support.distillation import params, untrained
from tests.support.forks import ended, fork
from tests.support.standalone_models import model_that_knows, people, tokenizer_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="interrupts a fork of itself")
STOPPED = "kdleak: stopped; the same command goes on where it was\n"


@pytest.fixture(autouse=True)
def one_thread():
    """A fork cannot use its parent's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def interrupted(work: Callable[[], object], patch: pytest.MonkeyPatch) -> tuple[int, str]:
    """(exit code, standard error) of a command whose work is `work`, in a process of its own."""
    there, back = os.pipe()

    def command() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell would ignore it
        sys.stderr = io.StringIO()
        patch.setattr(main, "app", work)
        try:
            main.main()
        except SystemExit as end:
            os.write(back, sys.stderr.getvalue().encode())
            os._exit(int(end.code or 0))

    child = fork(command)
    os.close(back)
    with open(there, encoding="utf-8") as said:
        return ended(child), said.read()


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "moment", ["a step", "a step before any state", "while it saves", "as the student is put down"]
)
def test_a_training_that_is_interrupted_says_so_and_ends_in_the_same_bytes(moment, tmp_path, monkeypatch):
    project = untrained(tmp_path)
    settings = params(**{"kd.recipes.kd.epochs": 4})
    made = (project.model("kd") / "model.safetensors", project.training("kd"))
    make_student("kd", settings, project)
    whole = [path.read_bytes() for path in made]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", SimpleNamespace(monotonic=count(step=25).__next__))  # every third step saves
        step = {"a step": 8, "a step before any state": 2}.get(moment, -1)

        def train(*arguments, progress, **options):
            reached = counted(lambda done: ctrl_c() if done == step else None)
            return loop.train(*arguments, progress=reached, **options)

        def replace(source, target):
            if moment == "while it saves" and Path(target).name == "state.safetensors":
                ctrl_c()
            os.rename(source, target)

        def rename(source, target):
            os.rename(source, target)
            if moment.startswith("as the student") and Path(target).name.endswith(".old"):
                ctrl_c()  # the earlier student is put aside, and the new one not yet in its place

        patch.setattr(run, "train", train)
        patch.setattr(files, "os", SimpleNamespace(**vars(os) | {"replace": replace, "rename": rename}))
        assert interrupted(lambda: make_student("kd", settings, project), monkeypatch) == (130, STOPPED)
    assert [path.read_bytes() for path in made] == whole  # the student before is as it was
    assert not [path for path in tmp_path.rglob(".*.[0-9]*") if project.resume("kd") not in path.parents]
    make_student("kd", settings, project)
    assert [path.read_bytes() for path in made] == whole and not project.resume("kd").exists()


@pytest.mark.parametrize("call", range(1, 5))
def test_a_file_and_a_folder_that_are_interrupted_at_any_call_are_whole(call, tmp_path, monkeypatch):
    """Interrupted at the nth call of the system that puts them in their place, they are the old or the new, whole."""
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file", tmp_path / "folder" / "file"):
        path.write_text("old")
    calls = count(1)

    def then(do: Callable[..., object]) -> Callable[..., None]:
        def done(*arguments: object) -> None:
            do(*arguments)
            if next(calls) == call:
                raise KeyboardInterrupt

        return done

    with monkeypatch.context() as patch:
        changed = {"rename": then(os.rename), "replace": then(os.replace)}
        patch.setattr(files, "os", SimpleNamespace(**vars(os) | changed))
        for replacing, inner in ((replacing_folder, "file"), (replacing_file, "")):
            target = tmp_path / ("folder" if inner else "file")
            try:
                with replacing(target) as fresh:
                    (fresh / inner if inner else fresh).write_text("new")
            except KeyboardInterrupt:
                pass
            assert (target / inner if inner else target).read_text() in ("old", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_an_audit_is_not_harmed_by_one_on_its_cache_that_is_killed(tmp_path, monkeypatch):
    """Killed while it writes each of its entries, in turn: what it leaves is found whole, or not at all."""
    rows, others = people(12, 1), people(12, 2)
    student = model_that_knows([], tmp_path / "student", tokenizer_of(others))
    cache = tmp_path / "cache"

    def audit(name: str, **options: object) -> bytes:
        kdleak.audit(student, rows, others, template="plain", quick=True, out=tmp_path / name, **options)
        return (tmp_path / name / "audit.json").read_bytes()

    alone, deaths = audit("alone"), 0
    for entry in count(1):
        saved = count(1)

        def save(tensors, path, metadata, saved=saved, entry=entry, write=tensor_store._save):
            write(tensors, path, metadata)
            if next(saved) == entry:
                path.write_bytes(path.read_bytes()[:-20])
                os.kill(os.getpid(), signal.SIGKILL)

        with monkeypatch.context() as patch:
            patch.setattr(tensor_store, "_save", save)
            killed = fork(lambda: audit("killed", cache=cache))
        neighbour = fork(lambda: audit("neighbour", cache=cache))
        code = ended(killed)
        assert ended(neighbour) == 0 and (tmp_path / "neighbour" / "audit.json").read_bytes() == alone
        if code == 0:
            break
        assert code == -signal.SIGKILL
        deaths += 1
        shutil.rmtree(cache)
    assert deaths >= 2
    assert audit("after", cache=cache) == alone == audit("again", cache=cache)
    assert not list(cache.glob(".*"))  # nothing of the killed is left


def test_a_process_that_dies_within_a_collective_ends_the_others_in_one_line(tmp_path):
    def one(rank: int) -> None:
        there = {distributed.RENDEZVOUS: tmp_path / "rendezvous", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}
        os.environ |= {key: str(value) for key, value in there.items()} | {"LOCAL_WORLD_SIZE": "2"}
        distributed.all_reduce_sum_(torch.ones(3))
        if rank == 1:
            reduce = torch.distributed.all_reduce
            torch.distributed.all_reduce = lambda flat: (reduce(flat[:1].clone()), os.kill(os.getpid(), 9))
        try:
            for _ in range(3):
                distributed.all_reduce_sum_(torch.ones(3))
        except KdleakError as error:
            (tmp_path / "said").write_text(json.dumps(str(error)))
            os._exit(7)

    begun = time.monotonic()
    children = [fork(lambda rank=rank: one(rank)) for rank in (0, 1)]
    codes = [ended(child) for child in children]
    assert codes[1] == -signal.SIGKILL and codes[0] == 7 and time.monotonic() - begun < 60
    said = json.loads((tmp_path / "said").read_text())
    assert said == "another process of this run has ended; the same command goes on where it was"
