"""learned: against a plain logistic regression, and on records whose labels it may not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from kdleak.attacks import ATTACKS
from kdleak.attacks.learned import C, fitted, shift_shape
from tests.support.attack_inputs import attack_input


def test_the_weights_are_those_that_minimise_the_penalised_likelihood():
    """scikit-learn's objective: C times the log-loss, plus half of the squared weights, the intercept free."""
    inputs, _ = attack_input(0, 0.5, 20)
    known = inputs.tuning
    assert known is not None
    features = shift_shape(known.model, known.reference)
    mean, width, weights, intercept = fitted(features, known.is_member)
    z, sign = (features - features.mean(0)) / features.std(0), np.where(known.is_member, 1.0, -1.0)

    def objective(w: np.ndarray) -> float:
        return C * np.logaddexp(0.0, -sign * (z @ w[1:] + w[0])).sum() + 0.5 * (w[1:] ** 2).sum()

    best = minimize(objective, np.zeros(6), method="BFGS", tol=1e-10).x
    np.testing.assert_allclose([intercept, *weights], best, atol=2e-3)
    np.testing.assert_allclose(mean, features.mean(0))
    np.testing.assert_allclose(width, features.std(0))


def test_the_features_of_one_record_by_hand():
    inputs, _ = attack_input(1, 0.5, 6)
    target, reference = inputs.target, inputs.references["pretrained"]
    found = shift_shape(target, reference)
    for i, (start, end) in enumerate(zip(target.offsets[:-1], target.offsets[1:], strict=True)):
        delta = target.log_prob[start:end].astype(float) - reference.log_prob[start:end].astype(float)
        tail, ordered = max(1, int(0.2 * len(delta) + 1e-9)), np.sort(delta)
        counted = delta[target.missed[start:end]]
        share = counted[counted > 0].sum() / np.abs(counted).sum() if len(counted) else 1.0
        by_hand = [delta.mean(), np.tanh(delta).mean(), ordered[:tail].mean(), ordered[-tail:].mean(), share]
        np.testing.assert_allclose(found[i], by_hand, rtol=1e-9)


def test_the_score_is_the_sum_of_both_log_odds_and_no_audited_label_enters():
    inputs, _ = attack_input(2, 0.5, 30)
    known = inputs.tuning
    assert known is not None
    mean, width, weights, intercept = fitted(shift_shape(known.model, known.reference), known.is_member)
    odds = [
        (shift_shape(inputs.target, inputs.references[name]) - mean) / width @ weights + intercept
        for name in ("pretrained", "no_kd")
    ]
    np.testing.assert_allclose(ATTACKS["learned"].score(inputs), odds[0] + odds[1])
    assert ATTACKS["learned"].needs.missing(replace(inputs, tuning=None)) == [
        "records whose membership in the no-KD student is known"
    ]
