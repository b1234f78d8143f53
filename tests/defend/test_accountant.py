"""ε against figures of Opacus and dp-accounting that were made apart from this project, and what a group's ε is."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from kdleak.core.errors import KdleakError
from kdleak.defend import accountant
from kdleak.defend.accountant import Budget, account, in_words, require_opacus
from tests.support.shared import shared

pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")


@pytest.fixture(scope="module")
def golden() -> list[dict]:
    return json.loads(shared("golden/dp_accounting.json").read_text())["cases"]


def budget_of(case: dict) -> Budget:
    return Budget(case["sigma"], case["sample_rate"], case["steps"])


def test_rdp_at_fixed_orders_and_in_all_is_the_golden_one(golden):
    from opacus.accountants.analysis.rdp import compute_rdp

    for case in golden:
        orders = {float(order): value for order, value in case["opacus_rdp_at_alpha"].items()}
        found = compute_rdp(
            q=case["sample_rate"], noise_multiplier=case["sigma"], steps=case["steps"], orders=list(orders)
        )
        np.testing.assert_allclose(found, list(orders.values()), rtol=1e-3)
        loose = budget_of(case).epsilon_rdp(case["delta"])
        assert loose == pytest.approx(case["opacus_rdp"]["epsilon"], rel=1e-3)


def test_prv_is_the_golden_one_and_an_upper_bound_of_pld(golden):
    for case in golden:
        if case["sigma"] < 0.2:
            continue  # five seconds each, of the same code
        found = budget_of(case).epsilon(case["delta"])
        assert found == pytest.approx(case["opacus_prv"]["epsilon"], abs=0.01)
        tight = case["dp_accounting_pld"]["epsilon"]
        assert tight - 0.001 <= found <= tight + 0.02  # each is an upper estimate; PRV's error is .01 of it


def test_where_epsilon_protects_nobody_rdp_bounds_it():
    budget = Budget(0.05, 0.128, 48)
    assert budget.epsilon_rdp(1e-3) > accountant.VACUOUS
    assert budget.epsilon(1e-3) == budget.epsilon_rdp(1e-3)


def delta_of_group(sigma: float, q: float, size: int, epsilon: float) -> float:
    """δ of one step at `epsilon` for a group of `size` records, each in the batch by itself with probability q: the
    hockey-stick divergence of the mixture of Gaussians, both ways, by integration."""
    x = np.linspace(-30 * sigma, size + 30 * sigma, 400_001)
    shares = binom.pmf(np.arange(size + 1), size, q)
    mixture = sum(share * norm.pdf(x, k, sigma) for k, share in enumerate(shares))
    plain = norm.pdf(x, 0, sigma)
    step = x[1] - x[0]
    return max(np.maximum(a - math.exp(epsilon) * b, 0).sum() * step for a, b in ((mixture, plain), (plain, mixture)))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize(("sigma", "q"), [(1.0, 0.1), (2.0, 0.5), (0.7, 0.02)])
def test_a_groups_epsilon_bounds_the_exact_one_of_a_step(sigma, q, size):
    delta = 1e-4
    found = Budget(sigma, q, 1).of_group(size).epsilon(delta)
    assert delta_of_group(sigma, q, size, found) <= delta * 1.01
    if size == 1:
        assert delta_of_group(sigma, q, 1, found - 0.03) > delta


def test_what_is_spent_is_told_with_its_groups_and_whose_it_is():
    spent = account(Budget(0.8, 0.02, 100), 500, {"near-duplicates": 1, "planted canaries": 4})
    assert spent["delta"] == pytest.approx(500**-1.1) and spent["epsilon"] < spent["epsilon_rdp"]
    groups = spent["groups"]
    assert groups["near-duplicates"]["epsilon"] == pytest.approx(spent["epsilon"])
    assert groups["planted canaries"]["epsilon"] > 4 * spent["epsilon"]
    words = in_words({**spent, "covers": "public", "does_not_cover": "the teacher's private data"})
    assert words.startswith(f"ε {spent['epsilon']:.2f} at δ 0.0011 for one record of public, ")
    assert "for planted canaries (4 records)" in words and "near-duplicates" not in words
    assert words.endswith("; it says nothing of the teacher's private data")


def test_without_noise_there_is_no_epsilon():
    spent = account(Budget(0.0, 0.02, 100), 500, {"near-duplicates": 1})
    assert spent["epsilon"] is None and "groups" not in spent
    words = in_words({**spent, "covers": "private", "does_not_cover": "others"})
    assert words == "no noise, so no ε for private; nothing of others"


def test_where_opacus_is_not_installed_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(accountant, "find_spec", lambda name: None)
    with pytest.raises(KdleakError, match=r"a private training needs Opacus for its ε; install it with pip install"):
        require_opacus()
