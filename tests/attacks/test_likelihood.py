"""Claims on the study's attacks: each equals its plain float64 formula; higher means member."""

import zlib

import numpy as np
import pytest
import torch

from kdleak.attacks import ATTACKS, AttackInput, attack_scores
from kdleak.core.errors import KdleakError
from kdleak.inference.scoring import token_statistics
from kdleak.inference.token_statistics import TokenStatistics
from tests.support.tiny_models import random_records, tiny_model

PAPER = ("loss", "zlib", "mink", "minkpp", "ref_pretrained")


@pytest.fixture(scope="module")
def given():
    records = random_records(20)
    texts = [f"{'text ' * (i % 4)}number {i * 7919}" for i in range(len(records))]
    target, base = (token_statistics(tiny_model(seed=s), records) for s in (0, 1))
    return AttackInput(target, {"pretrained": base}, texts)


def plain(name, given, i):
    """The definition of attack `name` for record i, written out."""
    rows = slice(given.target.offsets[i], given.target.offsets[i + 1])
    log_p, mean, std = (getattr(given.target, c)[rows].astype(float) for c in ("log_prob", "mean", "std"))
    if name == "loss":
        return sum(log_p) / len(log_p)
    if name == "zlib":
        return sum(log_p) / len(log_p) / len(zlib.compress(given.texts[i].encode()))
    if name == "ref_pretrained":
        reference = given.references["pretrained"].log_prob[rows].astype(float)
        return sum(log_p) / len(log_p) - sum(reference) / len(reference)
    values = sorted(log_p if name == "mink" else (log_p - mean) / std)
    k = max(1, len(values) // 5)
    return sum(values[:k]) / k


@pytest.mark.parametrize("name", PAPER)
def test_attack_equals_its_definition(given, name):
    expected = [plain(name, given, i) for i in range(len(given))]
    found = ATTACKS[name].score(given)
    assert found.dtype == np.float64 and found.shape == (len(given),)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_response_of_one_token_has_a_score_and_one_of_none_is_nan():
    columns = {"log_prob": [-1.0], "mean": [-2.0], "std": [0.5]}
    columns = {k: np.array(v, np.float32) for k, v in columns.items()} | {"missed": np.zeros(1, bool)}
    statistics = TokenStatistics(np.array(["a", "b"]), np.array([0, 1, 1]), **columns)
    given = AttackInput(statistics, {"pretrained": statistics}, ["one", "none"])
    expected = {"loss": -1.0, "zlib": -1 / 11, "mink": -1.0, "minkpp": 2.0, "ref_pretrained": 0.0}
    for name in PAPER:
        scores = ATTACKS[name].score(given)
        assert scores[0] == pytest.approx(expected[name]) and np.isnan(scores[1]), name


def test_a_certain_prediction_gives_a_finite_score():
    zero = np.zeros(3, np.float32)
    statistics = TokenStatistics(np.array(["a"]), np.array([0, 3]), zero, zero, zero, zero.astype(bool))
    assert ATTACKS["minkpp"].score(AttackInput(statistics)) == 0.0


def test_higher_means_member_on_an_overfitted_model():
    """Two random record sets, a model fitted to the first: every attack ranks it above the second."""
    records = [r for r in random_records(48, seed=5, longest=20) if r.n_scored > 2]
    members = records[: len(records) // 2]
    base, model = tiny_model(width=48, seed=3), tiny_model(width=48, seed=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        for r in members:
            tokens = torch.tensor([r.prompt + r.response])
            labels = tokens.clone()
            labels[:, : len(r.prompt)] = -100
            model(tokens, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    statistics = [token_statistics(m, records) for m in (model, base)]
    texts = [" ".join(map(str, r.response)) for r in records]
    scores = attack_scores(AttackInput(statistics[0], {"pretrained": statistics[1]}, texts))
    for name in PAPER:
        inside, outside = scores[name][: len(members)], scores[name][len(members) :]
        assert np.mean(inside[:, None] > outside[None]) > 0.8, name


def test_scores_do_not_depend_on_the_dtype_of_storage(given):
    stored = [
        TokenStatistics(
            s.record_ids,
            s.offsets,
            *(getattr(s, c).astype(np.float64) for c in ("log_prob", "mean", "std")),
            s.missed,
        )
        for s in (given.target, given.references["pretrained"])
    ]
    wide = attack_scores(AttackInput(stored[0], {"pretrained": stored[1]}, given.texts), PAPER)
    for name, scores in attack_scores(given, PAPER).items():
        np.testing.assert_allclose(scores, wide[name], rtol=1e-6)


def test_what_an_attack_lacks_is_named(given):
    with pytest.raises(KdleakError, match="'ref_pretrained' needs reference 'pretrained'"):
        attack_scores(AttackInput(given.target), ["ref_pretrained"])
    with pytest.raises(KdleakError, match="did you mean 'zlib'"):
        attack_scores(given, ["zlb"])


def test_without_a_list_the_attacks_whose_needs_are_met_run(given):
    assert {"loss", "mink", "minkpp"} <= set(attack_scores(AttackInput(given.target)))
    assert not {"zlib", "ref_pretrained"} & set(attack_scores(AttackInput(given.target)))


def test_statistics_of_other_records_are_refused(given):
    other = token_statistics(tiny_model(), random_records(20)[::-1])
    with pytest.raises(KdleakError, match="scored on other records"):
        AttackInput(given.target, {"pretrained": other})
