"""The section on certified ε shows each defence's bounds, what they are of, and a broken chain above all."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from kdleak.certify.chain import chain
from kdleak.certify.one_run import audit_coins
from kdleak.report.study.sections.epsilon import certified_epsilon
from kdleak.shadow.report import settings_of
from tests.support.study_results import params_of


def audit(strength: float, accountant: float | None = None, **changes: object) -> dict:
    """As the stage writes it, of simulated scores."""
    rng = np.random.default_rng(1)
    coins, choosing = rng.integers(0, 2, 200).astype(bool), np.arange(200) % 2 == 0
    scores = {"teacher": 2 * strength, "kd": strength, "sft": 0.0}
    models = {
        name: audit_coins({"loss": gap * coins + rng.normal(size=200)}, coins, choosing, 1e-5)
        for name, gap in scores.items()
    }
    settings = settings_of(params_of()) | {"canaries": 200, "planted": int(coins.sum()), "records": 700, "delta": 1e-5}
    found = {"models": models, "accountant": accountant, "chain": chain(models, accountant)}
    found |= {"perplexity": {"cost": 0.031}, "multi_run": {"state": "could not run", "why": "no shadow models"}}
    return settings | found | changes


def content(audits: dict | None):
    return certified_epsilon(SimpleNamespace(study=SimpleNamespace(epsilon=audits, params=params_of())))


def test_bounds_stand_by_defence_with_what_they_are_of():
    strong = audit(3.0)
    shown = content({"audits": {"none": strong, "dp_sgd 0.8": audit(0.0, 7.0, defence="dp_sgd")}})
    words = "".join(str(block) for block in shown.blocks)
    assert "A bound is of a training procedure with these canaries" in words and "3.1 % of perplexity" in words
    table = next(block for block in shown.blocks if hasattr(block, "rows"))
    assert [row[:2] for row in table.rows][:2] == [["none", "teacher"], ["none", "KD"]]
    low = strong["models"]["teacher"]["one_run"]["epsilon_lower"]
    assert table.rows[0][2] == f"{low:.2f}" and f"teacher {low:.2f}" in shown.lead and low > 1
    assert [row[5] for row in table.rows] == ["none", "none", "", "7.00", "7.00", ""]
    assert "broken" not in words and "other settings" not in words


def test_a_broken_chain_and_other_settings_stand_above_the_table():
    many = {"state": "ran", "why": "", "models": {"kd": {"epsilon_lower": 0.77}}}
    shown = content({"audits": {"dp_sgd 0.8": audit(3.0, 0.5, seed=9, multi_run=many)}})
    assert "the chain is broken: teacher &lt;= accountant" in str(shown.blocks[0])
    assert "of other settings than the rest of the page: seed 9" in str(shown.blocks[1])
    assert "0.77" in str(shown.blocks[3])


def test_without_an_audit_the_command_is_named():
    for nothing in (None, {"audits": {}}):
        assert "epsilon.canaries=500" in str(content(nothing).blocks[0])
