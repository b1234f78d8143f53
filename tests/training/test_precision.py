"""Half precision and checkpointing change what a training costs, not what it learns; its cost is said beforehand."""

import copy

import pytest
import torch

from kdleak.distill.divergences import DIVERGENCES
from kdleak.distill.matching import matching_objective
from kdleak.distill.teacher_signal import LiveTeacher
from kdleak.models.families import Lora
from kdleak.models.lora import with_lora
from kdleak.models.memory import training_memory
from kdleak.training import run
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import cross_entropy
from kdleak.training.loop import Recipe, train
from tests.models.test_families import params
from tests.support.tiny_models import FAMILIES, random_records, tiny_model

RECORDS = random_records(12)
SOURCE = FixedBatches(RECORDS, 4, seed=1)


def trained(family: str, objective, **options):
    model = tiny_model(family, seed=1)
    history = train(model, SOURCE, objective, Recipe(lr=1e-3, epochs=2, batch_size=4, **options), seed=1)
    return model, [entry["loss"] for entry in history]


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_gives_the_same_training(family):
    plain, losses = trained(family, cross_entropy)
    saved, again = trained(family, cross_entropy, checkpointing=True)
    assert losses == pytest.approx(again, rel=1e-6)
    assert not saved.is_gradient_checkpointing
    for a, b in zip(plain.parameters(), saved.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["fkl", "rkl"])
def test_bf16_trains_fp32_weights_along_the_same_path(loss):
    teacher = LiveTeacher(tiny_model("gpt2", seed=9).requires_grad_(False))
    objective = matching_objective(teacher, DIVERGENCES[loss])
    for chosen in (objective, cross_entropy):
        _, full = trained("gpt2", chosen)
        model, half = trained("gpt2", chosen, precision="bf16")
        assert half == pytest.approx(full, rel=0.02) and half != full
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_estimate_counts_weights_gradients_moments_and_the_teacher():
    model, teacher = tiny_model("gpt2"), tiny_model("opt", layers=2)
    size = 4 * sum(p.numel() for p in model.parameters())
    found = training_memory(model, 0, teacher=teacher)
    assert (found.weights, found.gradients, found.optimizer) == (size, size, 2 * size)
    assert found.teacher == 4 * sum(p.numel() for p in teacher.parameters()) and found.activations == 0
    assert found.total == 4 * size + found.teacher


def test_the_estimate_falls_with_adapters_bf16_and_checkpointing():
    model = tiny_model("llama", layers=4)
    whole = training_memory(model, 1000)
    half = training_memory(model, 1000, half=True)
    checkpointed = training_memory(model, 1000, checkpointing=True)
    assert half.activations * 2 == whole.activations and checkpointed.activations < whole.activations / 2
    lora = Lora(r=2, alpha=4, targets=["q_proj"])
    adapted = training_memory(with_lora(copy.deepcopy(model), lora, seed=0), 1000)
    assert adapted.optimizer < whole.optimizer / 10 and adapted.activations == whole.activations


def test_a_large_training_says_what_it_takes_before_it_starts(tmp_path, monkeypatch, capsys):
    settings = params()
    arguments = (RECORDS, cross_entropy, settings.teacher, settings)

    def said() -> str:
        run.run_training(tiny_model("gpt2"), *arguments, name="kd", state=tmp_path)
        return capsys.readouterr().err

    assert "GiB" not in said()
    monkeypatch.setattr(run, "LARGE", 1)
    assert said().startswith("kd: about 0.0 GiB (weights 0.0")
    monkeypatch.setattr(run, "available_memory", lambda device: 1)
    assert "optimizer.checkpointing=true takes less" in said()
