"""Defences that act on the teacher's training: controls, adapters, goldfish; and the choice of the transfer set."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.data.batching import collate
from kdleak.data.encoding import EncodedRecord
from kdleak.data.records import read_role
from kdleak.defend.defences import DEFENCES
from kdleak.defend.defences.filter_public import nearness
from kdleak.defend.defences.goldfish import CONTEXT, MaskedBatches, kept
from kdleak.defend.registry import Fitting
from kdleak.models.families import Lora
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.gradient_rules import PlainSum
from tests.support.defending import defended_project, settings, student_of, teacher_of
from tests.support.tiny_models import FAMILIES, random_records, tiny_model

RECORDS = random_records(9, longest=30)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return defended_project(tmp_path_factory.mktemp("teachers"))


def fitting(family: str = "gpt2", lora: Lora | None = None) -> Fitting:
    model = tiny_model(family, seed=1, layers=1)
    return Fitting(model, RECORDS, settings().teacher, 3, {"near-duplicates": 1}, lambda: 10.0, lora=lora)


def test_early_stop_is_a_shorter_training(project):
    full, stopped = (teacher_of(project, *named)[1]["history"] for named in (("none",), ("early_stop",)))
    assert [len(full), len(stopped)] == [3, 2]
    shorter = teacher_of(project, **{"teacher.epochs": 2})
    again = teacher_of(project, "early_stop", epochs=2)
    assert again[0] == shorter[0] and again[1]["history"] == shorter[1]["history"]


@pytest.mark.parametrize("smoothing, penalty", [(0.2, 0.0), (0.0, 0.3), (0.1, 0.5)])
def test_the_regularised_loss_is_its_formula(smoothing, penalty):
    knobs = {"label_smoothing": smoothing, "confidence_penalty": penalty}
    made = DEFENCES["regularise"](**knobs).teacher(fitting())
    batch = collate(RECORDS, range(9))
    logits = made.model(batch.input_ids).logits.flatten(0, 1)[batch.positions].detach().double()
    log_p = torch.log_softmax(logits, -1)
    right, everything = -log_p[torch.arange(len(log_p)), batch.targets], -log_p.mean(-1)
    negative_entropy = (log_p.exp() * log_p).sum(-1)
    expected = ((1 - smoothing) * right + smoothing * everything + penalty * negative_entropy).mean()
    assert made.objective(made.model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_weight_decay_is_that_of_the_optimizer():
    made = DEFENCES["regularise"](label_smoothing=0.0, weight_decay=0.5).teacher(fitting())
    assert made.optimizer == {"weight_decay": 0.5}
    assert DEFENCES["regularise"]().teacher(fitting()).optimizer == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_of_a_rank_on_the_projections_of_attention(family):
    from kdleak.models.lora import with_lora

    made = DEFENCES["lora"](rank=3).teacher(fitting(family))
    adapted = with_lora(made.model, made.lora, 0)
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name and 3 in p.shape for name, p in trained.items())
    own = DEFENCES["lora"](rank=2).teacher(fitting(family, Lora(r=8, alpha=8, dropout=0.1, targets=["x"])))
    assert (own.lora.r, own.lora.alpha, own.lora.dropout, own.lora.targets) == (2, 2, 0.1, ["x"])


def test_an_architecture_without_known_projections_is_refused():
    odd = fitting()
    for block in odd.model.transformer.h:
        block.attn.other = block.attn.c_attn
        del block.attn.c_attn
    with pytest.raises(KdleakError, match="'lora' knows no projections of a GPT2LMHeadModel; name them in families"):
        DEFENCES["lora"]().teacher(odd)


def test_goldfish_drops_one_target_in_k_and_the_same_one_in_the_same_passage():
    generator = np.random.default_rng(0)
    passage = tuple(generator.integers(1, 90, 60).tolist())
    one = EncodedRecord("a", (5,) * 20, passage, 60)
    other = EncodedRecord("b", (7,) * 31, passage, 60)
    first, second = kept(one, 4), kept(other, 4)
    assert first[CONTEXT:] == second[CONTEXT:]  # past what the passage's first tokens are preceded by
    long = EncodedRecord("c", (1,), tuple(generator.integers(1, 90, 20_000).tolist()), 20_000)
    for k in (2, 4, 50):
        assert np.mean(kept(long, k)) == pytest.approx(1 - 1 / k, abs=0.02)


def test_what_goldfish_drops_has_no_part_in_the_loss():
    source, plain = MaskedBatches(RECORDS, 4, 1, 3), FixedBatches(RECORDS, 4, 1)
    for step in range(3):
        masked, whole = source.batch(None, step), plain.batch(None, step)
        assert masked.indices == whole.indices and torch.equal(masked.input_ids, whole.input_ids)
        keep = [flag for i in whole.indices for flag in kept(RECORDS[i], 3)]
        assert masked.targets.tolist() == [t for t, flag in zip(whole.targets.tolist(), keep, strict=True) if flag]
        assert masked.positions.tolist() == [p for p, flag in zip(whole.positions.tolist(), keep, strict=True) if flag]
        assert len(masked.rows) == len(masked.scored) == sum(keep) < len(keep)
    made = DEFENCES["goldfish"](k=3).teacher(fitting())
    assert isinstance(made.rule, PlainSum) and made.batches.steps_per_epoch == -(-9 // 4)


def jaccard(one: str, other: str) -> float:
    sets = []
    for text in (one, other):
        words = text.lower().split()
        sets.append({*words, *pairwise(words)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_nearness_is_the_jaccard_similarity_to_the_nearest_private_record(project):
    public, private = (read_role(project.records, role) for role in ("public", "private"))
    texts = [[f"{r.instruction} {r.context} {r.response}" for r in rows.itertuples()] for rows in (public, private)]
    expected = [max(jaccard(text, other) for other in texts[1]) for text in texts[0]]
    np.testing.assert_allclose(nearness(public, private), expected)


def test_the_public_records_nearest_to_private_ones_are_left_out():
    public = pd.DataFrame({"instruction": ["a b c", "x y z", "a b q", "l m n"], "context": "", "response": "r"})
    private = pd.DataFrame({"instruction": ["a b c"], "context": "", "response": "r"})
    left = DEFENCES["filter_public"](dropped=0.5).transfer_set(public, lambda: private)
    assert left["instruction"].tolist() == ["x y z", "l m n"] and list(left.index) == [0, 1]
    almost_all = DEFENCES["filter_public"](dropped=0.99).transfer_set(public, lambda: private)
    assert len(almost_all) == 1


@pytest.mark.parametrize("method", ["kd", "seqkd", "imitkd"])
def test_a_student_is_distilled_on_what_is_left_alone(method, project):
    record = student_of(project, "filter_public", method, dropped=0.25)[1]
    assert record["records"] == 9  # of 12
