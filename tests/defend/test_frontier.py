"""Dominance, hull and comparisons at equal utility, against plain sums and simulated records."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kdleak.defend.frontier import (
    APART,
    BETTER,
    SAME,
    WORSE,
    Adaptive,
    Measured,
    at,
    compared,
    controls_line,
    dominated,
    folded,
    hull,
)
from kdleak.stats.delong import Leak
from kdleak.stats.trainings import MeanLeak


def simulated(shift: float, seed: int = 0, n: int = 400) -> Leak:
    """AUC of scores of n members, `shift` above those of n non-members, of records that all simulations share."""
    shared, own = np.random.default_rng(99), np.random.default_rng(seed)
    members, others = (shared.normal(size=n) + 0.3 * own.normal(size=n) for _ in range(2))
    return Leak.of(members + shift, others)


def point(name: str, perplexity: float, shift: float, *, control: bool = False, **options) -> Measured:
    seed = sum(map(ord, name))
    leaks = {attack: simulated(shift, seed + k) for k, attack in enumerate(("loss", "ez"))}
    return Measured(name, perplexity, leaks, control, **options)


CONTROLS = [point("none", 100, 2.0, control=True), point("early", 110, 1.0, control=True),
            point("no-KD", 125, 0.0, control=True)]  # fmt: skip


def test_an_auc_below_one_half_leaks_as_much_as_one_above():
    below = Leak.of(np.arange(5.0), np.arange(5.0) + 2)
    assert below.value < 0.5
    assert folded(below).value == pytest.approx(1 - below.value)
    assert folded(below).error == pytest.approx(below.error)
    assert folded(folded(below)).value == folded(below).value


def test_a_point_is_dominated_where_another_is_no_worse_on_both_counts():
    cost = {"a": (100.0, 0.9), "b": (110.0, 0.8), "c": (110.0, 0.85), "d": (120.0, 0.95), "e": (110.0, 0.8)}
    assert dominated(cost) == {"c", "d"}


def test_the_hull_leaves_out_what_chance_between_two_points_beats():
    cost = {"a": (100.0, 0.9), "b": (112.0, 0.75), "c": (125.0, 0.5), "d": (105.0, 0.6), "e": (130.0, 0.7)}
    assert hull(cost) == ["a", "d", "c"]
    assert hull({"a": (100.0, 0.9)}) == ["a"]


def test_weights_mix_two_controls_to_the_same_log_perplexity():
    line = controls_line([*CONTROLS, point("smooth", 115, 1.8, control=True), point("dp", 90, 0, control=False)], "ez")
    assert [each.name for each in line] == ["none", "early", "no-KD"]
    weights = at(line, 104.0)
    assert math.prod({"none": 100, "early": 110}[name] ** w for name, w in weights.items()) == pytest.approx(104)
    assert at(line, 110.0) == {"early": 1.0}
    assert at(line, 95.0) == {"none": 1.0} and at(line, 126.0) == {}


@pytest.mark.parametrize(("shift", "says"), [(0.2, BETTER), (1.4, SAME), (2.8, WORSE)])
def test_a_defence_is_compared_with_the_controls_at_its_own_perplexity(shift, says):
    found = compared([*CONTROLS, point("blend", 104.8, shift)], "ez")
    verdict = found["blend"]
    assert set(found) == {"blend"} and verdict.says == says
    own, left, right = (
        simulated(s, sum(map(ord, n)) + 1) for n, s in (("blend", shift), ("none", 2.0), ("early", 1.0))
    )
    weights = verdict.beside
    by_hand = weights["none"] * left.value + weights["early"] * right.value - own.value
    assert verdict.difference["ez"].value == pytest.approx(by_hand)
    assert verdict.p_holm == max(each.p_value for each in verdict.difference.values()) or says == SAME
    assert verdict.detectable == max(each.detectable(1) for each in verdict.difference.values())


def test_attacks_that_disagree_show_no_difference():
    split = Measured("blend", 104.8, {"loss": simulated(0.2, 1), "ez": simulated(2.8, 2)})
    verdict = compared([*CONTROLS, split], "ez")["blend"]
    assert verdict.says == SAME and verdict.p_holm == 1.0


def test_every_further_point_costs_its_share_of_the_level():
    alone = compared([*CONTROLS, point("blend", 104.8, 1.3)], "ez")["blend"]
    many = [point(f"same{k}", 104.8, 1.4) for k in range(9)]
    among = compared([*CONTROLS, point("blend", 104.8, 1.3), *many], "ez")["blend"]
    assert 0 < alone.p_holm < among.p_holm == pytest.approx(10 * alone.p_holm)
    assert among.detectable > alone.detectable


def test_what_is_worth_less_than_every_control_is_not_compared():
    assert compared([*CONTROLS, point("dp", 140.0, 0.0)], "ez")["dp"].says == APART


def test_trainings_are_paired_by_seed_and_the_no_kd_student_stands_beside_all():
    def trainings(name: str, shift: float) -> dict[str, MeanLeak]:
        return {a: MeanLeak({s: simulated(shift, s + len(name)) for s in range(3)}) for a in ("loss", "ez")}

    line = [Measured("none", 100, trainings("none", 2.0), True), CONTROLS[-1]]
    verdict = compared([*line, Measured("blend", 110, trainings("blend", 0.2))], "ez")["blend"]
    assert verdict.difference["ez"].runs == 3 and verdict.difference["ez"].between > 0


def test_an_attack_that_knows_the_defence_has_a_say():
    knowing = [Measured(c.name, c.perplexity, c.leaks, True, Adaptive(0.95, 0.01)) for c in CONTROLS[:2]]
    seen = point("blend", 104.8, 0.2, adaptive=Adaptive(0.95, 0.01))
    verdict = compared([*knowing, CONTROLS[-1], seen], "ez")["blend"]
    assert verdict.adaptive and verdict.says == SAME
    hidden = point("blend", 104.8, 0.2, adaptive=Adaptive(0.6, 0.01))
    assert compared([*knowing, CONTROLS[-1], hidden], "ez")["blend"].says == BETTER
    assert not compared([*CONTROLS, hidden], "ez")["blend"].adaptive  # its controls were not attacked so
