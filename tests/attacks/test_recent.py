"""Claims on the later attacks and the published variants: each equals its plain float64 formula."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from kdleak.attacks import ATTACKS, AttackInput
from kdleak.core.errors import KdleakError
from kdleak.inference.scoring import token_statistics
from kdleak.inference.token_statistics import TokenStatistics
from kdleak.stats import auc
from tests.support.attack_inputs import attack_input
from tests.support.tiny_models import random_records, tiny_model


@pytest.fixture(scope="module")
def given():
    records = random_records(25)
    models = {"target": tiny_model(seed=0), "pretrained": tiny_model(seed=1), "external": tiny_model("opt", seed=2)}
    models["no_kd"] = tiny_model(seed=3)
    statistics = {name: token_statistics(model, records) for name, model in models.items()}
    target = statistics.pop("target")
    return AttackInput(
        target,
        references=statistics,
        argmax_texts=[f"choice {i % 5}" * (1 + i % 3) for i in range(len(records))],
        variants={"lowercase": statistics["pretrained"], "prefixed": statistics["external"]},
    )


def rows(statistics, i, column):
    return getattr(statistics, column)[statistics.offsets[i] : statistics.offsets[i + 1]].astype(float)


def lowest_fifth(values):
    return np.mean(sorted(values)[: len(values) // 5]) if len(values) >= 5 else np.nan


def zlib_published(given, i):
    return rows(given.target, i, "log_prob").mean() / len(zlib.compress(given.argmax_texts[i].encode()))


def mink_published(given, i):
    return lowest_fifth(np.exp(rows(given.target, i, "log_prob")))


def minkpp_published(given, i):
    log_p, mean, std = (rows(given.target, i, c) for c in ("log_prob", "mean", "std"))
    return lowest_fifth((np.exp(log_p) - mean) / std)


def ref_external(given, i):
    return rows(given.target, i, "log_prob").mean() - rows(given.references["external"], i, "log_prob").mean()


def rmia(given, i):
    out = np.exp(rows(given.references["pretrained"], i, "log_prob").mean())
    probability = 0.5 * ((1 + 0.99) * out + (1 - 0.99))
    return np.log(np.exp(rows(given.target, i, "log_prob").mean()) / probability)


def recall(given, i):
    return rows(given.variants["prefixed"], i, "log_prob").mean() / rows(given.target, i, "log_prob").mean()


def lowercase(given, i):
    perplexity, lowered = (np.exp(-rows(s, i, "log_prob").mean()) for s in (given.target, given.variants["lowercase"]))
    return np.log(lowered / perplexity)


def ez(given, i, reference="pretrained"):
    delta = rows(given.target, i, "log_prob") - rows(given.references[reference], i, "log_prob")
    errors = delta[rows(given.target, i, "missed") > 0]
    up, down = sum(d for d in errors if d > 0), sum(-d for d in errors if d < 0)
    return up / (up + down) if len(errors) else 1.0


def wbc(given, i, reference="pretrained"):
    delta = rows(given.target, i, "log_prob") - rows(given.references[reference], i, "log_prob")
    shares = []
    for size in (2, 3, 4, 6, 9, 13, 18, 25, 32, 40):
        w = min(size, len(delta))
        shares.append(np.mean([sum(delta[s : s + w]) > 0 for s in range(len(delta) - w + 1)]))
    return np.mean(shares) + 1e-7 * delta.mean() / (1 + abs(delta.mean()))


def ref_no_kd(given, i):
    return rows(given.target, i, "log_prob").mean() - rows(given.references["no_kd"], i, "log_prob").mean()


def ez_no_kd(given, i):
    return ez(given, i, "no_kd")


def wbc_no_kd(given, i):
    return wbc(given, i, "no_kd")


def ez_published(given, i):
    delta = rows(given.target, i, "log_prob") - rows(given.references["pretrained"], i, "log_prob")
    errors = delta[1:][rows(given.target, i, "missed")[1:] > 0]
    up, down = sum(d for d in errors if d > 0), sum(-d for d in errors if d < 0)
    return up / (down + 1e-12) if len(errors) >= 2 and down > 0 else 0.0


REFERENCES = [zlib_published, mink_published, minkpp_published, ez_published, ref_external, ref_no_kd, rmia, recall]
REFERENCES += [lowercase, ez, ez_no_kd, wbc, wbc_no_kd]


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda f: f.__name__)
def test_attack_equals_its_definition(given, reference):
    found = ATTACKS[reference.__name__].score(given)
    expected = np.array([reference(given, i) for i in range(len(given))])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isnan(expected).sum() == (0 if "mink" not in reference.__name__ else (given.target.lengths < 5).sum())


def statistics_of(log_probs, ranks):
    values = np.array(log_probs, np.float32)
    return TokenStatistics(
        np.array(["a"]), np.array([0, len(values)]), values, values, values, np.array(ranks), np.zeros(len(values), int)
    )


@pytest.mark.parametrize(
    "target, ranks, expected",
    [
        ([-1.0, -2.0], [0, 0], 1.0),  # every token predicted: the strongest sign
        ([-1.0, -2.0], [1, 1], 1.0),  # only upward shifts
        ([-9.0, -9.0], [1, 1], 0.0),  # only downward shifts
        ([-3.0, -4.0], [1, 1], 0.5),  # mispredicted, no shift at all
        ([-1.0, -6.0], [1, 1], 0.5),  # as much up as down
    ],
)
def test_ez_is_defined_where_its_ratio_is_not(target, ranks, expected):
    given = AttackInput(statistics_of(target, ranks), {"pretrained": statistics_of([-3.0, -4.0], [0, 0])})
    assert ATTACKS["ez"].score(given) == pytest.approx(expected)


def test_a_text_known_by_heart_keeps_a_finite_recall():
    given = AttackInput(statistics_of([0.0], [0]), variants={"prefixed": statistics_of([-0.5], [0])})
    assert np.isfinite(ATTACKS["recall"].score(given)).all()


@pytest.mark.parametrize("name", ["ez", "wbc"])
def test_token_by_token_attacks_refuse_another_tokenizer(given, name):
    shorter = [replace(r, response=r.response[:1], n_scored=1) for r in random_records(25)]
    other = token_statistics(tiny_model(), shorter)
    with pytest.raises(KdleakError, match="tokenizer"):
        ATTACKS[name].score(AttackInput(given.target, {"pretrained": other}))


def test_a_reference_with_another_tokenizer_is_compared_by_the_text_not_by_the_token():
    """The same text in two tokens of the target and four of the reference, equally probable: no sign of membership."""
    given = AttackInput(statistics_of([-2.0, -4.0], [1, 1]), {"external": statistics_of([-1.5] * 4, [1] * 4)})
    assert ATTACKS["ref_external"].score(given) == pytest.approx(0.0)


def test_texts_that_win_every_window_are_ranked_by_their_shift():
    """They tie at 1 by the authors' score, and with more of them than the FPR allows the TPR would be exactly zero."""
    target = TokenStatistics(
        np.array(["a", "b", "c"]),
        np.array([0, 3, 6, 9]),
        np.array([-1, -1, -1, -2, -2, -2, -4, -2, -4], np.float32),
        *(np.zeros(9, np.float32) for _ in range(2)),
        *(np.ones(9, int) for _ in range(2)),
    )
    reference = replace(target, log_prob=np.full(9, -3.0, np.float32))
    first, second, third = ATTACKS["wbc"].score(AttackInput(target, {"pretrained": reference}))
    assert 1 + 1e-7 > first > second > 1 > third


def test_the_more_a_student_memorised_the_less_the_published_ez_sees_of_it():
    """Its edge cases call a text without mispredicted tokens, or without a falling one, the least likely member."""
    areas = {}
    for leak in (0.4, 0.9):
        inputs, member = attack_input(0, leak=leak, n=400)
        for name in ("ez", "ez_published"):
            scores = ATTACKS[name].score(inputs)
            areas[name, leak] = auc(scores[member], scores[~member]).value
    assert areas["ez", 0.9] > areas["ez", 0.4] and areas["ez_published", 0.9] < areas["ez_published", 0.4] - 0.1
