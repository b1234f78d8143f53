"""What every registered attack must keep: registering an attack is having it tested."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdleak.attacks import ATTACKS, AttackInput
from kdleak.attacks.registry import ATTACKER, AUDITOR, attack
from kdleak.inference.token_statistics import TokenStatistics
from kdleak.stats import auc
from tests.support.attack_inputs import COLUMNS, attack_input, empty_records, taken

NAMES = list(ATTACKS)


@pytest.mark.parametrize("name", NAMES)
def test_members_score_higher(name):
    inputs, member = attack_input(0, leak=0.4, n=400)
    scores = ATTACKS[name].score(inputs)
    assert scores.dtype == np.float64 and scores.shape == (400,)
    defined = np.isfinite(scores)
    found = auc(scores[defined & member], scores[defined & ~member])
    assert found.low > 0.5, found


@pytest.mark.parametrize("name", NAMES)
def test_exchangeable_records_give_one_half(name):
    """30 audits of models that treat both sides alike: the mean AUC is 1/2 within four standard errors."""
    areas = []
    for seed in range(30):
        inputs, member = attack_input(seed, leak=0.0, n=80)
        scores = ATTACKS[name].score(inputs)
        defined = np.isfinite(scores)
        areas.append(auc(scores[defined & member], scores[defined & ~member]).value)
    assert abs(np.mean(areas) - 0.5) < 4 * max(np.std(areas), 0.02) / np.sqrt(len(areas)), np.mean(areas)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_records_changes_no_score(name):
    inputs, _ = attack_input(1, leak=0.5, n=50)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_allclose(
        ATTACKS[name].score(taken(inputs, order)), ATTACKS[name].score(inputs)[order], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("name", [n for n in NAMES if not {"teacher"} & set(ATTACKS[n].needs.references)])
def test_a_score_does_not_depend_on_the_records_beside_it(name):
    """teacher_aware is left out: it learns from the other records."""
    inputs, _ = attack_input(2, leak=0.5, n=40)
    alone = [ATTACKS[name].score(taken(inputs, [i]))[0] for i in range(40)]
    np.testing.assert_allclose(alone, ATTACKS[name].score(inputs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_records_that_are_alike_tie(name):
    """The same record under other ids: one score (teacher_aware: within a fold)."""
    inputs, _ = attack_input(3, leak=0.5, n=30)
    twice = taken(inputs, [*range(30), *range(30)])
    scores = ATTACKS[name].score(twice)
    if "teacher" not in ATTACKS[name].needs.references:
        np.testing.assert_array_equal(scores[:30], scores[30:])
    assert len(np.unique(scores[np.isfinite(scores)])) > 5


@pytest.mark.parametrize("name", NAMES)
def test_a_record_without_tokens_is_undefined_and_hurts_no_other(name):
    inputs, _ = attack_input(4, leak=0.5, n=30)
    with_empty = empty_records(inputs, [5, 17])
    scores = ATTACKS[name].score(with_empty)
    assert np.isnan(scores[[5, 17]]).all()
    others = np.setdiff1d(np.arange(30), [5, 17])
    if "teacher" not in ATTACKS[name].needs.references:
        np.testing.assert_array_equal(scores[others], ATTACKS[name].score(inputs)[others])


@pytest.mark.parametrize("name", NAMES)
def test_infinities_become_undefined(name):
    inputs, _ = attack_input(5, leak=0.5, n=20)
    impossible = replace(inputs.target, log_prob=np.full_like(inputs.target.log_prob, -np.inf))
    with np.errstate(all="ignore"):
        scores = ATTACKS[name].score(replace(inputs, target=impossible))
    assert not np.isinf(scores).any()


@pytest.mark.parametrize("name", NAMES)
def test_storage_in_float32_is_what_the_score_is_made_of(name):
    inputs, _ = attack_input(6, leak=0.5, n=30)

    def wide(s: TokenStatistics) -> TokenStatistics:
        return replace(s, **{c: getattr(s, c).astype(np.float64) for c in COLUMNS[:3]})

    widened = replace(
        inputs,
        target=wide(inputs.target),
        references={k: wide(v) for k, v in inputs.references.items()},
        variants={k: wide(v) for k, v in inputs.variants.items()},
    )
    np.testing.assert_allclose(ATTACKS[name].score(widened), ATTACKS[name].score(inputs), rtol=1e-6, atol=1e-9)


def test_every_attack_names_its_source_and_whose_it_is():
    for name, registered in ATTACKS.items():
        assert len(registered.source) > 40, name
        assert registered.whose in (ATTACKER, AUDITOR), name
        assert (registered.whose == AUDITOR) >= ("teacher" in registered.needs.references), name


def test_an_attack_is_added_by_registering_a_function(monkeypatch):
    monkeypatch.setattr("kdleak.attacks.registry.ATTACKS", dict(ATTACKS))

    @attack("toy", references=("external",))
    def toy(inputs: AttackInput) -> np.ndarray:
        """The toy: longer responses are members."""
        return inputs.target.lengths.astype(float)

    from kdleak.attacks import registry

    inputs, _ = attack_input(7, leak=0.5, n=10)
    assert list(registry.ATTACKS)[-1] == "toy"
    np.testing.assert_array_equal(registry.attack_scores(inputs, ["toy"])["toy"], inputs.target.lengths)
    assert "toy" not in registry.attack_scores(AttackInput(inputs.target))
    with pytest.raises(ValueError, match="registered twice"):
        attack("toy")(toy)


def test_every_file_of_the_folder_is_found():
    from pathlib import Path

    import kdleak.attacks as package

    names = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__", *package.PASSES}
    assert all(hasattr(package, name) for name in names)
