"""Long runs keep their memory: flat over 200 batches of an audit and over five epochs of a training."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from kdleak.attacks.perturbation import Noise, mope
from kdleak.data.batching import scoring_batches
from kdleak.distill.divergences import DIVERGENCES
from kdleak.distill.matching import matching_objective
from kdleak.distill.teacher_signal import LiveTeacher
from kdleak.inference.scoring import token_statistics
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import cross_entropy
from kdleak.training.loop import Recipe, train
from kdleak.training.resume import ResumeStore
from tests.support.tiny_models import random_records, tiny_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

#: What an allocator may waste between two readings. A batch's logits alone, kept each time, come to several times that.
SLACK_MIB = 8
VOCABULARY = 1000
RECIPE = Recipe(lr=0.001, epochs=5, batch_size=4)


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth(readings: list[float]) -> float:
    """Memory at its largest in the second half of a run, above its largest in the first."""
    middle = len(readings) // 2
    return max(readings[middle:]) - max(readings[:middle])


def test_memory_is_flat_over_200_batches_of_an_audit():
    records = random_records(2700)
    assert len(list(scoring_batches(records, 520))) >= 200
    readings: list[float] = []
    model = tiny_model(layers=1, vocabulary=VOCABULARY)
    statistics = token_statistics(model, records, max_tokens=520, progress=lambda n: readings.append(resident_mib()))
    assert len(readings) >= 200 and len(statistics) == len(records)
    assert growth(readings) < SLACK_MIB


def test_memory_is_flat_over_the_draws_of_mope():
    records, readings = random_records(60), []
    model = tiny_model(layers=1, vocabulary=VOCABULARY)
    for _ in range(8):
        mope(model, records, Noise(sigma=0.1, draws=2), max_tokens=520)
        readings.append(resident_mib())
    assert growth(readings) < SLACK_MIB


def training(objective, folder: Path) -> list[float]:
    """Memory after every step of five epochs, from the second on; the state is saved at each."""
    records, readings = random_records(80), []
    student = tiny_model(layers=1, vocabulary=VOCABULARY)
    options = {"seed": 0, "resume": ResumeStore(folder / "state", "run"), "save_every_s": 0.05}
    source = FixedBatches(records, RECIPE.batch_size, seed=0)
    train(student, source, objective, RECIPE, progress=lambda **_: readings.append(resident_mib()), **options)
    assert len(readings) == 100
    return readings[20:]


def test_memory_is_flat_over_five_epochs_of_fine_tuning(tmp_path):
    assert growth(training(cross_entropy, tmp_path)) < SLACK_MIB


def test_memory_is_flat_over_five_epochs_of_distillation(tmp_path):
    signal = LiveTeacher(tiny_model("llama", layers=1, vocabulary=VOCABULARY))
    assert growth(training(matching_objective(signal, DIVERGENCES["rkl"]), tmp_path)) < SLACK_MIB


def test_what_is_measured_would_show_a_batch_that_is_kept(tmp_path):
    kept = []

    def leaking(model, batch) -> torch.Tensor:
        kept.append(model(input_ids=batch.input_ids).logits)
        return cross_entropy(model, batch)

    assert growth(training(leaking, tmp_path)) > 3 * SLACK_MIB
