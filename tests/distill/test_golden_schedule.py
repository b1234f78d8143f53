"""DistiLLM's threshold and everyone's replay buffer, step by step as the authors' code ran them (shared golden/
distillm_schedule.json): who writes a batch, what the buffer holds, when the threshold rises."""

from __future__ import annotations

import json
import random

import pytest

from kdleak.data.encoding import EncodedRecord
from kdleak.distill import rollouts
from kdleak.distill.methods.distillm import AdaptiveShare
from kdleak.distill.rollouts import ConstantShare, Origin, ReplayBuffer, RolloutBatches
from kdleak.training.batch_sources import FixedBatches
from tests.support.shared import shared

NAMES = (
    *("fires_late", "boundary", "never_fires", "minimum_is_not_kept", "init_threshold_0.2_eps_0.2"),
    *("capacity_not_reached", "cap_at_1", "constant_ratio", "increasing_ratio", "imitkd", "gkd"),
    *("llama_distillm_type", "distillm_head_eval_inside"),
)
#: Golden case `boundary` (study 265e00b, finetune.py), for every checkout: a rise of exactly the tolerance counts.
BOUNDARY = {"losses": [2.0, 2.125, 2.25, 2.375], "tolerance": 0.125, "thresholds": [0.1, 0.2, 0.3]}


class Numbering:
    """Writes texts that are numbers, in order."""

    seed = 0

    def __init__(self):
        self.written = 0

    def write(self, model, records, step):
        numbers = range(self.written, self.written + len(records))
        self.written += len(records)
        return [EncodedRecord(str(i), (1,), (i + 2,), 1) for i in numbers]


class Uniforms:
    """Stands for `random`: the listed numbers decide the origins, a real generator what is drawn from the buffer."""

    def __init__(self, numbers: list[float]):
        self.random, self.sample = iter(numbers).__next__, random.Random(0).sample

    def Random(self, seed: int) -> Uniforms:
        return self


def share_of(settings: dict, losses) -> AdaptiveShare | ConstantShare:
    if "adaptive" in settings["type"]:
        arguments = (0.1, settings["loss_eps"], settings["init_threshold"], settings["replay_ratio"])
        return AdaptiveShare(lambda _: next(losses), *arguments)
    mixed = "mixed" in settings["type"]
    return ConstantShare(settings["mixed_alpha"] if mixed else 0.0, through_buffer=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_of_the_authors_code(name, monkeypatch):
    cases = json.loads((shared("golden") / "distillm_schedule.json").read_text())["cases"]
    case = {c["name"]: c for c in cases}[name]
    settings, losses = case["settings"], iter(case["validation_losses"])
    monkeypatch.setattr(rollouts, "random", Uniforms(case["uniforms"]))
    size, total = settings["batch_size"], settings["total_iters"]
    share, buffer = share_of(settings, losses), ReplayBuffer(settings["capacity"])
    fixed = FixedBatches([EncodedRecord("r", (1,), (1,), 1)] * size, size, seed=0)
    source = RolloutBatches(fixed, share, Numbering(), total, buffer)
    per_evaluation = total // (len(case["validation_losses"]) - 1)
    evaluations = iter(case["evaluations"][1:])
    for step, (number, below, decision, length, oldest, newest, texts) in enumerate(case["steps"]):
        if below is not None and step:
            assert share.fresh_below(number / total) == pytest.approx(below, abs=1e-12)
        before = len(buffer), source._tally.rounds
        batch = source.batch(None, step)
        origin = source.origin.value
        assert origin == decision, step
        held = [int(record.record_id) for _, record in buffer._texts]
        assert (len(held), held[0] if held else None, held[-1] if held else None) == (length, oldest, newest)
        used = sorted(batch.targets.tolist())
        if decision == "fixed":
            assert texts is None and not batch.written_by_student and before[1] == source._tally.rounds
        elif decision == "fresh":
            assert used == [i + 2 for i in texts]
        else:
            assert {i - 2 for i in used} <= set(held) and len(set(used)) == len(texts)
        if number % per_evaluation == 0:
            expected = next(evaluations)["adaptive_threshold"]
            figures = share.end_epoch(None)
            assert expected is None or figures["threshold"] == pytest.approx(expected, abs=1e-12)


def test_a_rise_of_exactly_the_tolerance_counts():
    losses = iter(BOUNDARY["losses"])
    share = AdaptiveShare(lambda _: next(losses), tolerance=BOUNDARY["tolerance"])
    share.begin(None)
    found = [share.end_epoch(None)["threshold"] for _ in BOUNDARY["thresholds"]]
    assert found == pytest.approx(BOUNDARY["thresholds"])
    assert share.origin(0.0, 1.0) is Origin.REPLAYED and share.origin(0.29, 0.0) is Origin.FRESH
