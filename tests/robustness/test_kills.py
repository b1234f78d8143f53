"""A training that is killed, at any step or while it saves, goes on from its last state and ends in the same bytes.

The process that dies is a fork of this one, so that imports are paid once; it dies of SIGKILL.
"""

import os
import random
import signal
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from kdleak.core import files
from kdleak.core.files import read_json
from kdleak.core.paths import Project
from kdleak.pipeline.distill import make_student
from kdleak.training import loop, run
from tests.support.counted import counted
from tests.support.distillation import params, untrained
from tests.support.forks import ended, fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of itself")
STEPS = 18
#: DistiLLM's threshold rises at every epoch whose validation loss does: this rate sees to that.
SETTINGS = {
    "kd.recipes.kd.epochs": 6,
    "kd.recipes.distillm.epochs": 6,
    "kd.recipes.distillm.lr": 0.1,
    "kd.recipes.distillm.threshold_step": 0.4,
    "kd.recipes.distillm.tolerance": 0.0,
    "kd.recipes.minillm.epochs": 6,
    "kd.recipes.minillm.inner_epochs": 2,
}
METHODS = ("kd", "distillm", "minillm")
#: Ten random steps of each; `make test` kills at the earliest and at the last.
KILLS = [
    pytest.param(method, step, marks=[pytest.mark.faults] if 0 < number < 9 else [])
    for method in METHODS
    for number, step in enumerate(sorted(random.Random(method).sample(range(1, STEPS + 1), 10)))
]


@pytest.fixture(autouse=True)
def one_thread_and_a_slow_clock(monkeypatch):
    """A fork cannot use its parent's threads. By this clock every third step saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=count(step=25).__next__))
    yield
    torch.set_num_threads(threads)


def made(method: str, folder: Project) -> dict[str, bytes]:
    make_student(method, params(**SETTINGS), folder)
    files = folder.model(method) / "model.safetensors", folder.training(method)
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return untrained(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def undisturbed(project) -> Callable[[str], dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}

    def once(method: str) -> dict[str, bytes]:
        if method not in found:
            found[method] = made(method, project)
        return found[method]

    return once


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work: Callable[[], object]) -> bool:
    """Whether `work`, in a process of its own, ends by SIGKILL."""
    return ended(fork(work)) == -signal.SIGKILL


def dying_at(step: int):
    """`train` that dies when it has done `step` steps, before that step is saved."""

    def train(*arguments, progress, **options):
        def reached(done: int) -> None:
            if done == step:
                die()

        return loop.train(*arguments, progress=counted(reached), **options)

    return train


@pytest.mark.parametrize(("method", "step"), KILLS)
def test_a_training_killed_at_a_random_step_ends_in_the_same_bytes(method, step, project, undisturbed, monkeypatch):
    whole = undisturbed(method)
    with monkeypatch.context() as patch:
        patch.setattr(run, "train", dying_at(step))
        assert killed(lambda: made(method, project))
    assert (project.resume(method) / "state.safetensors").is_file() == (step > 3)
    assert made(method, project) == whole
    assert not project.resume(method).exists()


def test_a_training_killed_while_it_saves_keeps_the_state_before(project, undisturbed, monkeypatch):
    whole, store = undisturbed("minillm"), project.resume("minillm")
    saved = []

    def replace(source, target):
        if os.path.basename(target) == "state.safetensors":
            saved.append(target)
        if len(saved) == 3:
            die()
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", replace)
        assert killed(lambda: made("minillm", project))
    assert len(list(store.iterdir())) == 2  # the second state, and what was to become the third
    taken_up = []

    def train(*arguments, progress, **options):
        return loop.train(*arguments, progress=counted(taken_up.append), **options)

    monkeypatch.setattr(run, "train", train)
    assert made("minillm", project) == whole
    assert taken_up[:2] == [6, 7] and taken_up[-1] == STEPS


def test_the_trainings_killed_do_use_what_they_save(undisturbed, project):
    """The threshold rises and replays rollouts; rounds begin in the middle of epochs."""
    for method in METHODS:
        undisturbed(method)
    epochs = read_json(project.training("distillm"))["history"]
    assert epochs[0]["threshold"] < epochs[2]["threshold"] <= epochs[-1]["threshold"]
    assert epochs[-1]["student_written"] > 0
    rewards = [entry["reward"] for entry in read_json(project.training("minillm"))["history"]]
    assert len(set(rewards)) > 2
