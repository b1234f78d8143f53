"""Claims on RMIA: it ranks as the share of the population beaten, ties broken, with an `a` that can be tuned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdleak.attacks import ATTACKS
from kdleak.attacks.registry import Tuning
from kdleak.attacks.rmia import GRID, A, beaten_shares, ratios, signals, tuned_a
from kdleak.stats import operating_point, spearman
from tests.support.attack_inputs import attack_input, population

ATTACK = ATTACKS["rmia"]


def shares(inputs, a=A):
    of_records = ratios(signals(inputs.target), signals(inputs.references["pretrained"]), a)
    target, reference = map(signals, population(0))
    return beaten_shares(of_records, ratios(target, reference, a))


def test_it_ranks_as_the_share_of_the_population_beaten_and_breaks_its_ties():
    inputs = replace(attack_input(0, leak=0.9, n=400)[0], tuning=None)
    scores, known = ATTACK.score(inputs), shares(inputs)
    order = np.argsort(scores)
    assert (np.diff(known[order]) >= 0).all() and len(np.unique(scores)) > 300 > len(np.unique(known))


def test_records_that_beat_the_whole_population_no_longer_tie():
    """More non-members tie at 1 than 1 % allows: by the plain share the TPR is exactly 0."""
    inputs, member = attack_input(0, leak=0.9, n=400)
    of_records = ratios(signals(inputs.target), signals(inputs.references["pretrained"]), A)
    easily_beaten = of_records[of_records < np.quantile(of_records[~member], 0.9)]
    known = beaten_shares(of_records, easily_beaten)
    tied = operating_point(known[member], known[~member], 0.01)
    broken = operating_point(*(ATTACK.score(inputs)[side] for side in (member, ~member)), 0.01)
    assert tied.tpr == 0 < broken.tpr


def test_at_the_papers_a_for_images_it_is_the_loss_attack_and_here_it_is_not():
    inputs, _ = attack_input(1, leak=0.5, n=300)
    loss, out = ATTACKS["loss"].score(inputs), signals(inputs.references["pretrained"])
    assert spearman(ratios(signals(inputs.target), out, 0.3), loss) > spearman(ATTACK.score(inputs), loss) + 0.02
    assert spearman(ratios(signals(inputs.target), out, 0.3), loss) > 0.97


def test_a_is_tuned_on_a_reference_model_whose_members_are_known():
    """Where that model's members stand out against the reference alone, `a` moves to the ratio; where they stand out
    by their loss alone, away from it. The records at hand have no part in it."""
    inputs, _ = attack_input(2, leak=0.5, n=200)
    generator = np.random.default_rng(0)
    is_member = np.arange(200) % 2 == 0
    hard = generator.uniform(0.01, 0.9, 200)
    noise = generator.uniform(0.9, 1.1, 200)
    by_ratio = tuned_a(hard * np.where(is_member, 1.5, 1.0) * noise, hard, is_member)
    by_loss = tuned_a(np.where(is_member, 0.6, 0.5) * noise, hard, is_member)
    assert by_ratio[0] > 0.8 > 0.3 > by_loss[0] and len(by_ratio[1]) == len(GRID) == 11
    known = Tuning(inputs.references["no_kd"], inputs.references["pretrained"], is_member)
    a = tuned_a(signals(known.model), signals(known.reference), is_member)[0]
    expected = np.log(ratios(signals(inputs.target), signals(inputs.references["pretrained"]), a))
    np.testing.assert_allclose(ATTACK.score(replace(inputs, tuning=known)), expected)


def test_of_equal_areas_the_first_a_is_taken():
    is_member = np.array([True, True, False, False])
    a, areas = tuned_a(np.array([0.9, 0.8, 0.2, 0.1]), np.full(4, 0.5), is_member)
    assert a == 0 and (areas == 1).all()


def test_a_share_is_of_the_ratios_strictly_exceeded():
    found = beaten_shares(np.array([0.5, 1.0, 2.0, np.nan]), np.array([1.0, 1.5, np.nan]))
    assert found[:3] == pytest.approx([0, 0, 1]) and np.isnan(found[3])
    assert np.isnan(beaten_shares(np.ones(2), np.zeros(0))).all()


def test_two_tokenizers_are_compared_by_the_text():
    inputs, _ = attack_input(3, leak=0.5, n=1)
    target = inputs.target
    halves = replace(
        target,
        offsets=target.offsets * 2,
        **{c: np.repeat(getattr(target, c) / (2 if c == "log_prob" else 1), 2) for c in ("log_prob", "mean", "std")},
        **{c: np.repeat(getattr(target, c), 2) for c in ("missed",)},
    )
    np.testing.assert_allclose(signals(halves, target), signals(target), rtol=1e-6)
