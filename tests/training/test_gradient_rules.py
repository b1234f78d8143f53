"""How a batch's gradient is made of its records': summed as they are, or each clipped and noise added, exactly."""

from __future__ import annotations

import copy
import math
import os

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from kdleak.data.batching import collate
from kdleak.distill.divergences import forward_kl
from kdleak.distill.matching import matching_objective
from kdleak.distill.teacher_signal import LiveTeacher
from kdleak.models.families import Lora
from kdleak.models.lora import with_lora
from kdleak.training.batch_sources import DistillationBatch, FixedBatches
from kdleak.training.finetune import cross_entropy
from kdleak.training.gradient_rules import ClipAndNoise, PlainSum
from kdleak.training.loop import Recipe, train
from kdleak.training.resume import ResumeStore
from tests.support.counted import counted
from tests.support.forks import in_processes
from tests.support.tiny_models import FAMILIES, random_records, tiny_model

RECORDS = random_records(7, longest=14)
BATCH = collate(RECORDS, range(7))
TOKENS = len(BATCH.targets)
#: With these normalisers the rule's loss is the batch's token mean.
AS_PLAIN = {"expected_batch": 7.0, "record_tokens": TOKENS / 7}


def model_of(family: str) -> torch.nn.Module:
    if family != "lora":
        return tiny_model(family, seed=1).double()
    return with_lora(tiny_model("llama", seed=1), Lora(r=2, alpha=4, targets=["q_proj", "v_proj"]), seed=3).double()


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def gradient(rule, model, objective=cross_entropy, step: int = 0, batch=BATCH) -> list[torch.Tensor]:
    parameters = trained(model)
    model.zero_grad()
    for part in rule.parts(batch, None):
        rule.backward(objective(model, part), parameters)
    rule.finish(parameters, step)
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


def by_hand(model: torch.nn.Module, record, record_tokens: float) -> list[torch.Tensor]:
    """A record's gradient by the model's own forward pass on it alone, without any code of ours."""
    ids = torch.tensor([record.prompt + record.response])
    logits = model(ids[:, :-1]).logits[0, len(record.prompt) - 1 :]
    loss = F.cross_entropy(logits, torch.tensor(record.response), reduction="sum") / record_tokens
    found = torch.autograd.grad(loss, trained(model), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(trained(model), found, strict=True)]


def norm(gradients: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))


@pytest.mark.parametrize("family", [*FAMILIES, "lora"])
def test_each_records_norm_is_exact_and_clipped(family):
    model = model_of(family)
    exact = [by_hand(model, record, 10.0) for record in RECORDS]
    norms = sorted(norm(g) for g in exact)
    clip = norms[3] * 1.01  # some records are clipped, some are not
    rule = ClipAndNoise(clip, 0.0, expected_batch=5.0, record_tokens=10.0)
    for i, expected in enumerate(exact):
        unclipped = gradient(ClipAndNoise(math.inf, 0.0, 1.0, 10.0), model, batch=collate(RECORDS, [i]))
        assert norm(unclipped) == pytest.approx(norm(expected), rel=1e-6)
        clipped = gradient(rule, model, batch=collate(RECORDS, [i]))
        assert 5 * norm(clipped) == pytest.approx(min(norm(expected), clip), rel=1e-6)
    scales = [min(1.0, clip / norm(g)) / 5 for g in exact]
    together = [sum(s * g[i] for s, g in zip(scales, exact, strict=True)) for i in range(len(exact[0]))]
    difference = [a - b for a, b in zip(gradient(rule, model), together, strict=True)]
    assert norm(difference) < 1e-6 * norm(together)  # losses are summed in float32


@pytest.mark.parametrize("family", [*FAMILIES, "lora"])
@pytest.mark.parametrize("distilling", [False, True])
def test_without_a_bound_and_without_noise_it_is_the_plain_sum(family, distilling):
    model, objective = model_of(family), cross_entropy
    if distilling:
        objective = matching_objective(LiveTeacher(tiny_model("gpt2", seed=9).double()), forward_kl)
    plain = gradient(PlainSum(), model, objective)
    open_rule = gradient(ClipAndNoise(math.inf, 0.0, **AS_PLAIN), model, objective)
    for found, expected in zip(open_rule, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_records_share_does_not_depend_on_the_records_beside_it():
    model, rule = model_of("gpt2"), ClipAndNoise(0.01, 0.0, 4.0, 10.0)
    alone = [gradient(rule, model, batch=collate(RECORDS, [i])) for i in (0, 1, 5)]
    together = gradient(rule, model, batch=collate(RECORDS, [5, 0, 1]))
    for found, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(found, sum(parts), rtol=1e-9, atol=1e-12)


def test_noise_has_the_scale_of_the_bound_and_is_drawn_anew_at_each_step_and_only_then():
    model, settings = model_of("gpt2"), {"expected_batch": 4.0, "record_tokens": 10.0}
    still = gradient(ClipAndNoise(0.5, 0.0, **settings), model)
    draws = [
        torch.cat([(a - b).flatten() for a, b in zip(gradient(rule, model, step=step), still, strict=True)])
        for rule in (ClipAndNoise(0.5, 2.0, **settings), ClipAndNoise(0.5, 2.0, **settings, seed=1))
        for step in (0, 1)
    ]
    for i, drawn in enumerate(draws):
        assert drawn.std().item() == pytest.approx(2.0 * 0.5 / 4.0, rel=0.02)
        assert abs(drawn.mean().item()) < 5 * 0.25 / math.sqrt(len(drawn))
        for other in draws[:i]:
            assert abs(torch.corrcoef(torch.stack([drawn, other]))[0, 1]) < 5 / math.sqrt(len(drawn))
    again = gradient(ClipAndNoise(0.5, 2.0, **settings), model)
    assert torch.equal(torch.cat([(a - b).flatten() for a, b in zip(again, still, strict=True)]), draws[0])


def test_a_training_goes_by_its_rule_and_is_resumed_in_the_same_bytes(tmp_path):
    class Stopped(Exception):
        pass

    def interrupt(done: int) -> None:
        if done == 3:
            raise Stopped

    rule, recipe = ClipAndNoise(0.1, 0.5, 4.0, 10.0), Recipe(lr=1e-3, epochs=2, batch_size=4)
    source, start = FixedBatches(RECORDS, 4, seed=1), tiny_model("gpt2", seed=1)
    plain, whole, stopped, resumed = (copy.deepcopy(start) for _ in range(4))
    train(plain, source, cross_entropy, recipe, seed=1)
    history = train(whole, source, cross_entropy, recipe, seed=1, rule=rule)
    options = {"seed": 1, "rule": rule, "resume": ResumeStore(tmp_path / "state", "run"), "save_every_s": -1}
    with pytest.raises(Stopped):
        train(stopped, source, cross_entropy, recipe, progress=counted(interrupt), **options)
    assert train(resumed, source, cross_entropy, recipe, **options) == history
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), plain.parameters(), strict=True))


def test_what_cannot_be_clipped_a_record_at_a_time_is_refused():
    rule = ClipAndNoise(1.0, 1.0, 4.0, 10.0)
    with pytest.raises(ValueError, match="a corpus beside the batch belongs to no record"):
        rule.parts(DistillationBatch(**vars(BATCH), corpus=BATCH), None)


def test_of_more_processes_than_records_each_record_counts_once(monkeypatch):
    rule = ClipAndNoise(1.0, 1.0, 4.0, 10.0)
    monkeypatch.setenv("WORLD_SIZE", "8")
    counted = []
    for rank in range(8):
        monkeypatch.setenv("RANK", str(rank))
        (part,) = rule.parts(BATCH, None)
        counted += [part.indices[0]] if part.weights.any() else []
        if not part.weights.any():
            assert not any(g.any() for g in gradient_of_part(rule, part))
    assert sorted(counted) == list(range(7))


def gradient_of_part(rule, part) -> list[torch.Tensor]:
    """A gradient for every parameter, so that all processes have as many to add up."""
    model = model_of("gpt2")
    parameters = trained(model)
    rule.backward(cross_entropy(model, part), parameters)
    return [p.grad for p in parameters]


@pytest.mark.parametrize("wrong", [(0.0, 1.0, 4.0, 10.0), (1.0, -1.0, 4.0, 10.0), (1.0, 1.0, 0.0, 10.0)])
def test_settings_that_bound_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        ClipAndNoise(*wrong)
    with pytest.raises(ValueError, match="give a finite clip"):
        ClipAndNoise(math.inf, 1.0, 4.0, 10.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="its processes are forks")
@pytest.mark.parametrize("n", [6, 5])
def test_two_processes_clip_each_record_once_and_add_the_noise_of_one(tmp_path, n):
    rule, recipe = ClipAndNoise(0.1, 0.5, 4.0, 10.0), Recipe(lr=1e-3, epochs=1, batch_size=4)
    source = FixedBatches(RECORDS[:n], 4, seed=1)  # batches of 4 and 2; of 4 and 1, for which one process has no record

    def weights(path) -> None:
        torch.set_num_threads(1)
        model = tiny_model("llama", seed=1)  # no dropout, whose masks depend on how a batch is divided
        train(model, source, cross_entropy, recipe, seed=1, rule=rule)
        save_file({name: p.detach() for name, p in model.named_parameters()}, path)

    in_processes(2, tmp_path, lambda rank: weights(tmp_path / f"{rank}.safetensors"))
    weights(tmp_path / "alone.safetensors")
    alone = load_file(tmp_path / "alone.safetensors")
    for rank in (0, 1):
        for name, found in load_file(tmp_path / f"{rank}.safetensors").items():
            torch.testing.assert_close(found, alone[name], rtol=0, atol=1e-5)
