"""defence.grid of params.yaml: which points it names, and what is wrong with others in one line."""

from __future__ import annotations

import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.variants import Variant
from kdleak.defend.defences import DEFENCES
from kdleak.defend.grid import check_grid, grid_of, students_of
from kdleak.defend.registry import Acts
from tests.support.distillation import params

TWO = [{"name": "dp_sgd", "sigma": 0.2}, {"name": "label_only"}]


def test_the_default_grid_has_every_defence_at_its_strengths():
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    points = grid_of(params(**{"defence.grid": "default"}))
    assert points[0].name == "none-seed-0"
    for name, options in DEFENCES.items():
        own = [point for point in points if point.defence.name == name]
        assert [point.strength for point in own] == (list(options.strengths) or [None])
        assert len(own) >= 4 or not options.knob
    assert len({point.name for point in points}) == len(points)


def test_a_list_names_its_points_and_each_seed_has_all_of_them():
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    points = grid_of(params(**{"defence.grid": TWO, "defence.seeds": [3]}))
    names = ["none", "dp_sgd-sigma-0.2", "label_only"]
    assert [point.name for point in points] == [f"{name}-seed-{seed}" for seed in (0, 3) for name in names]
    private, label = points[4], points[5]
    assert private.teacher is private and label.teacher.name == "none-seed-3"
    settings = private.settings(params())
    assert (settings.seed, settings.defence.name, settings.defence.knobs) == (3, "dp_sgd", {"sigma": 0.2})
    assert not grid_of(params())


def test_a_teacher_of_its_own_has_whoever_acts_on_the_teacher():
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    for point in grid_of(params(**{"defence.grid": "default"})):
        assert (point.teacher is point) is (point.defence.acts_on in (Acts.TEACHER, Acts.ENSEMBLE, None)) or (
            point.teacher == point
        )


def test_students_are_the_methods_and_the_on_policy_ones():
    asked = students_of(params(**{"defence.methods": ["kd", "seqkd"], "defence.on_policy": ["rkl"]}))
    assert asked == [Variant("kd"), Variant("seqkd"), Variant("rkl", fraction=1.0)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": [{"sigma": 0.2}]}, "defence.grid.0: has no name; write {name: dp_sgd, sigma: 0.2}"),
        ({"grid": [{"name": "dp_sdg"}]}, "defence.grid.0: defence.name: 'dp_sdg' is unknown; did you mean 'dp_sgd'?"),
        ({"grid": [{"name": "top_k", "sigma": 1}]}, "defence.grid.0: defence.sigma: 'top_k' does not read it"),
        ({"grid": [{"name": "early_stop", "epochs": 9}]}, "'early_stop' after 9 of 6 epochs stops nothing"),
        ({"grid": [{"name": "top_k"}], "name": "top_k"}, "defence: grid: beside 'top_k' there is no undefended model"),
        ({"seeds": [0]}, "defence.seeds: 0 is 'seed' itself, which always runs; leave it out"),
        ({"seeds": [1, 1]}, "defence: seeds: a value stands twice in the list"),
        ({"shadows": 4}, "defence: shadows: pairs of teachers, four at least: 0, or an even number from 8 on"),
        ({"methods": ["seqdk"]}, "defence.methods: 'seqdk' is unknown; did you mean 'seqkd'?"),
        ({"on_policy": ["minilm"]}, "defence.on_policy: 'minilm' is unknown; did you mean 'minillm'?"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_key(changes, words):
    with pytest.raises(KdleakError, match=r"params\.yaml: ") as caught:
        check_grid(params(**{f"defence.{key}": value for key, value in changes.items()}))
    assert words in str(caught.value)
