"""Teachers on disjoint shards: who sees what, what their mixture is, and the ε of tokens that are sampled from it."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json
from kdleak.core.variants import CONTROL, TEACHER, Variant
from kdleak.defend.choice import check_defence
from kdleak.defend.defences import DEFENCES
from kdleak.defend.defences.split_teachers import Mean, projected
from kdleak.defend.mixing import epsilon_of_tokens, renyi_of_token
from kdleak.defend.record import defence_of
from kdleak.pipeline.taught import taught_rows
from tests.support.defending import defended_project, settings, student_of, teacher_of

TWO = {"teachers": 2}
PMIXED = {"teachers": 2, "mix": "pmixed", "radius": 0.1, "most_tokens": 12}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A project whose two teachers are trained."""
    project = defended_project(tmp_path_factory.mktemp("split"))
    teacher_of(project, "split_teachers", **TWO)
    return project


def distributions(rows: int, tokens: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(tokens), rows)


def test_the_mixture_is_the_mean_of_the_distributions():
    parts = [distributions(5, 7, seed) for seed in range(3)]
    released = Mean(None, "", ())(*(torch.tensor(part).log() + 3.0 for part in parts)).softmax(-1)
    np.testing.assert_allclose(released.numpy(), np.mean(parts, axis=0), rtol=1e-5)


def test_a_projection_is_the_mixture_nearest_to_the_teacher_in_the_ball():
    """Against a search for the largest share on a fine grid."""
    teacher, base, radius = distributions(20, 7, 1), distributions(20, 7, 2), 0.3
    found = projected(torch.tensor(teacher).log(), torch.tensor(base).log(), radius).exp().numpy()
    for p, b, own in zip(teacher, base, found, strict=True):
        shares = np.linspace(0, 1, 20_001)
        mixed = shares[:, None] * p + (1 - shares[:, None]) * b
        inside = np.abs(np.log(mixed / b)).max(1) <= radius
        np.testing.assert_allclose(own, mixed[np.flatnonzero(inside).max()], atol=2e-4)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_a_teacher_inside_the_ball_is_released_as_it_is():
    near = torch.tensor([[0.5, 0.5]]).log()
    torch.testing.assert_close(projected(near, torch.tensor([[0.52, 0.48]]).log(), 1.0), near)


@pytest.mark.parametrize(("order", "radius", "teachers"), [(2.0, 0.1, 4), (5.5, 0.5, 8), (1.5, 1.0, 2)])
def test_no_pair_of_mixtures_is_further_apart_than_the_bound(order, radius, teachers):
    """Random projections of the changed teacher, all others anything: the divergence by its sum stays below."""
    base, bound = distributions(1, 6, 0)[0], renyi_of_token(teachers, radius, order)
    worst = 0.0
    for seed in range(200):
        raw = torch.tensor(distributions(teachers + 1, 6, seed + 1)).log()
        inside = projected(raw, torch.tensor(base).log(), radius).exp().numpy()
        one, other = inside[:-1].mean(0), np.vstack([inside[:-2], inside[-1:]]).mean(0)
        worst = max(worst, math.log((one**order * other ** (1 - order)).sum()) / (order - 1))
    assert 0 < worst <= bound
    extreme = np.array([math.exp(2 * radius), 1.0]) / (1 + math.exp(2 * radius))  # where one teacher is alone
    pair = math.log((extreme**order * extreme[::-1] ** (1 - order)).sum()) / (order - 1)
    assert renyi_of_token(1, radius, order) == pytest.approx(pair)


def test_epsilon_grows_with_tokens_and_radius_and_falls_with_teachers():
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    plain = epsilon_of_tokens(8, 0.01, 64_000, 1e-5)
    assert plain == pytest.approx(9.368, abs=0.01)
    assert epsilon_of_tokens(8, 0.01, 128_000, 1e-5) > plain < epsilon_of_tokens(8, 0.02, 64_000, 1e-5)
    assert epsilon_of_tokens(16, 0.01, 64_000, 1e-5) < plain
    # Mironov's conversion is looser than the library's: an upper bound by hand, at one order.
    assert plain <= 64_000 * renyi_of_token(8, 0.01, 4.0) + math.log(1e5) / 3


def test_what_belongs_together_has_one_teacher_and_each_teacher_something(split):
    owners = [f"group-{i // 3}" for i in range(30)]
    shards = DEFENCES["split_teachers"](teachers=3).shards(owners)
    assert set(shards) == {0, 1, 2} and all(len({shards[i] for i in range(k, k + 3)}) == 1 for k in range(0, 30, 3))
    with pytest.raises(KdleakError, match=r"defence\.teachers: \d+ of 50 teachers would have no record; lower it"):
        DEFENCES["split_teachers"](teachers=50).shards(owners)
    folder = split.model(TEACHER)
    weights = [(f / "model.safetensors").read_bytes() for f in (folder, folder / "shards" / "1")]
    assert weights[0] != weights[1] and not (folder / "shards" / "2").exists()


def test_the_student_learns_from_all_teachers_and_has_an_epsilon_where_it_learns_from_samples(split, capsys):
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    plain = student_of(split, "split_teachers", **TWO)[0]
    weights, soft = student_of(split, "split_teachers", **PMIXED)
    assert weights != plain and soft["defence"]["epsilon"] is None
    assert "no ε: the student learns from the mixture itself" in capsys.readouterr().err
    _, sampled = student_of(split, "split_teachers", "seqkd", **PMIXED)
    found = sampled["defence"]
    assert found["tokens"] == 12 * 12 and found["covers"] == "private"
    assert found["epsilon"] == pytest.approx(epsilon_of_tokens(2, 0.1, 144, 1e-5))
    assert "for the records of any one teacher, 144 tokens paid for" in capsys.readouterr().err
    assert defence_of("seqkd", split)["epsilon"] == found["epsilon"]
    assert "epsilon" not in read_json(split.training(TEACHER))["defence"]


@pytest.mark.parametrize(
    ("knobs", "changes", "words"),
    [
        ({"mix": "pmixed"}, {}, "radius: belongs to mix pmixed and to it alone"),
        ({"radius": 0.1}, {}, "radius: belongs to mix pmixed and to it alone"),
        ({**PMIXED, "most_tokens": 4}, {}, "'pmixed' pays for most_tokens tokens sampled at temperature 1"),
        (PMIXED, {"generation.temperature": 0.5}, "and generation.temperature to 1"),
    ],
)
def test_what_has_no_accounting_is_refused(knobs, changes, words):
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    with pytest.raises(KdleakError, match=r"params\.yaml: defence") as caught:
        check_defence(settings("split_teachers", **knobs, **changes))
    assert words in str(caught.value)


def test_the_control_of_a_filter_is_chosen_without_the_members(tmp_path, monkeypatch):
    """Its transfer set depends on what its own teacher saw: the same whoever the members are."""
    from kdleak.pipeline import distill

    project, read = defended_project(tmp_path), []
    monkeypatch.setattr(
        DEFENCES["filter_public"], "transfer_set", lambda self, public, private: read.append(private()) or public
    )
    shutil.copytree(project.model(TEACHER), project.model(CONTROL.teacher))
    for variant in (CONTROL, Variant("kd")):
        distill.make_student(variant, settings("filter_public"), project)
    assert [set(rows["role"]) for rows in read] == [{"auxiliary"}, {"private"}]
    assert read[0].equals(taught_rows(CONTROL.teacher, project))
