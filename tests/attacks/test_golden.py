"""Claims on conformance: attacks give the figures that the references' own code gave on the same statistics.

Figures: shared/golden/attacks.json, whose header names each repository, commit and function; to 1e-6. Some of
them stand at the end, for a checkout without that file.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from kdleak.attacks import ATTACKS, AttackInput
from kdleak.attacks.likelihood import mean_log_prob, standardised
from kdleak.attacks.recent import WBC_WINDOWS, window_share
from kdleak.attacks.rmia import GRID, beaten_shares, ratios, signals, tuned_a
from kdleak.inference import ragged
from kdleak.inference.token_statistics import TokenStatistics
from tests.support.shared import shared

COLUMNS = {"log_prob": np.float32, "mean": np.float32, "std": np.float32, "rank": np.int32}


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads(shared("golden/attacks.json").read_text())


@pytest.fixture(scope="module")
def inputs(golden) -> AttackInput:
    records = golden["records"]
    prefixed = [{"log_prob": r["prefixed_log_prob"]} for r in records]
    texts = [r["text"] for r in records]
    references = {"pretrained": statistics([r["reference"] for r in records])}
    target = statistics([r["target"] for r in records])
    return AttackInput(target, references, texts, variants={"prefixed": statistics(prefixed)})


def statistics(rows: list[dict]) -> TokenStatistics:
    lengths = [len(row["log_prob"]) for row in rows]
    columns = {
        name: np.concatenate([row.get(name, np.zeros(n)) for row, n in zip(rows, lengths, strict=True)]).astype(dtype)
        for name, dtype in COLUMNS.items()
    }
    ids = np.array([f"{i:03d}" for i in range(len(rows))])
    missed = columns.pop("rank") > 0
    return TokenStatistics(ids, np.concatenate([[0], np.cumsum(lengths)]), **columns, missed=missed)


def of(golden: dict, *keys: str) -> np.ndarray:
    """(12,) a score of each record; NaN where the reference's code gave none."""
    values = []
    for score in golden["scores"]:
        for key in keys:
            score = score[key]
        values.append(np.nan if score in ("nan", None) else score)
    return np.array(values, float)


@pytest.mark.parametrize("name", ["loss", "zlib", "recall"])
def test_scores_are_those_of_the_references(golden, inputs, name):
    np.testing.assert_allclose(ATTACKS[name].score(inputs), of(golden, name), rtol=1e-6)
    assert np.isfinite(of(golden, name)).all()


def test_ez_published_is_the_authors_code(golden, inputs):
    np.testing.assert_allclose(ATTACKS["ez_published"].score(inputs), of(golden, "ez", "ignore_bos_true"), rtol=1e-6)


def test_ez_ranks_as_the_authors_ratio_but_for_the_edge_cases(golden, inputs):
    """P / (P + N) of their P / N, first token included; where they give 0 for want of errors or of a fall, it is 1."""
    ratio, scores = of(golden, "ez", "ignore_bos_false"), ATTACKS["ez"].score(inputs)
    ordinary = ratio > 0
    np.testing.assert_allclose(scores[ordinary], (ratio / (1 + ratio))[ordinary], rtol=1e-6)
    kinds = [r["kind"] for r in golden["records"]]
    strongest = [kinds.index(k) for k in ("no mispredicted token", "every mispredicted token rose (N = 0)")]
    assert (scores[strongest] == 1).all() and (ratio[strongest] == 0).all()


@pytest.mark.parametrize(
    "name, share", [("mink", "0.1"), ("mink", "0.2"), ("mink", "0.5"), ("minkpp", "0.2"), ("minkpp", "1.0")]
)
def test_the_lowest_tokens_are_those_of_the_references(golden, inputs, name, share):
    """Where their int(ratio n) is zero they have no score, and here one token is taken."""
    values = inputs.target.log_prob if name == "mink" else standardised(inputs.target)
    expected, found = of(golden, name, share), ragged.lowest_mean(values, inputs.target.offsets, float(share))
    defined = ~np.isnan(expected)
    np.testing.assert_allclose(found[defined], expected[defined], rtol=1e-6, atol=1e-12)
    assert np.isfinite(found).all()
    if share == "0.2":
        np.testing.assert_array_equal(ATTACKS[name].score(inputs), found)


@pytest.mark.parametrize("name", ["mink", "minkpp"])
def test_the_studys_variants_are_the_studys(golden, inputs, name):
    expected = of(golden, "study_published_sign_turned", name)
    np.testing.assert_allclose(ATTACKS[f"{name}_published"].score(inputs), expected, rtol=1e-6, equal_nan=True)


def test_wbc_has_the_authors_windows_and_figures(golden, inputs):
    assert list(WBC_WINDOWS) == golden["windows"]["authors"] != golden["windows"]["formula"]
    np.testing.assert_allclose(ATTACKS["wbc"].score(inputs), of(golden, "wbc", "mean_authors_windows"), atol=1e-6)
    delta = inputs.target.log_prob.astype(float) - inputs.references["pretrained"].log_prob
    texts = np.split(delta, inputs.target.offsets[1:-1])
    for size in golden["scores"][0]["wbc"]["by_window"]:
        found = [window_share(text, [int(size)]) for text in texts]
        np.testing.assert_allclose(found, of(golden, "wbc", "by_window", size), atol=1e-6)


@pytest.mark.parametrize("a", ["0", "0.3", "0.9", "0.99", "1"])
def test_rmia_offline_is_the_authors_code(golden, inputs, a):
    single, known = golden["rmia_offline_single_reference"], golden["rmia_offline_single_reference"]["by_a"][f"a_{a}"]
    target, reference = signals(inputs.target), signals(inputs.references["pretrained"])
    np.testing.assert_allclose(target, single["signals_target"], rtol=1e-6)
    np.testing.assert_allclose(reference, single["signals_reference"], rtol=1e-6)
    of_records = ratios(target, reference, float(a))
    of_population = ratios(
        np.array(single["signals_population_target"]), np.array(single["signals_population_reference"]), float(a)
    )
    np.testing.assert_allclose(of_records, known["ratio_x"], rtol=1e-6)
    np.testing.assert_allclose(of_population, known["ratio_z"], rtol=1e-6)
    np.testing.assert_allclose(beaten_shares(of_records, of_population), known["scores"], atol=1e-6)


def out_signals(phi: np.ndarray, trained_on: np.ndarray, target: int, k: int) -> np.ndarray:
    """(records,) attacks.py of ml_privacy_meter: without the target and its pair, the first 2k models; of each record's
    signals under those that did not train on it (0 under the others) the k largest, and their mean."""
    pair = target ^ 1
    chosen = [i for i in range(len(phi)) if i not in (target, pair)][: 2 * k]
    signal = 1 / (1 + np.exp(-phi[chosen])) * ~trained_on[chosen]
    return -np.sort(-signal, axis=0)[:k].mean(0)


@pytest.mark.parametrize("target", ["target_0", "target_1", "target_6"])
def test_rmia_on_shadow_models_is_the_authors_code(golden, target):
    shadow, known = golden["shadow"], golden["shadow"]["ml_privacy_meter"][target]
    phi, population = np.array(shadow["phi"]), np.array(shadow["population_phi"])
    keep, index = np.array(shadow["keep"], bool), known["target"]
    nobody = np.zeros_like(population, bool)
    for name, expected in known["scores_attacks_py"].items():
        k, a = int(name.split("_")[1]), float(name.split("_")[3])
        of_records = ratios(1 / (1 + np.exp(-phi[index])), out_signals(phi, keep, index, k), a)
        of_population = ratios(1 / (1 + np.exp(-population[index])), out_signals(population, nobody, index, k), a)
        np.testing.assert_allclose(beaten_shares(of_records, of_population), expected, atol=1e-6)


@pytest.mark.parametrize("target", ["target_0", "target_1", "target_6"])
def test_rmias_a_is_tuned_as_the_authors_tune_it(golden, target):
    """On the target's pair, whose members are known, with one reference."""
    shadow, known = golden["shadow"], golden["shadow"]["ml_privacy_meter"][target]
    phi, population = np.array(shadow["phi"]), np.array(shadow["population_phi"])
    keep, pair = np.array(shadow["keep"], bool), known["paired"]
    of_population = (
        1 / (1 + np.exp(-population[pair])),
        out_signals(population, np.zeros_like(population, bool), pair, 1),
    )
    a, areas = tuned_a(1 / (1 + np.exp(-phi[pair])), out_signals(phi, keep, pair, 1), keep[pair], of_population)
    np.testing.assert_allclose(areas, known["auc_of_each_a_attacks_py"], atol=1e-6)
    assert a == pytest.approx(known["a_attacks_py"]) and len(GRID) == len(areas)


def test_the_log_likelihood_ratio_is_that_of_the_mean(golden, inputs):
    expected = of(golden, "log_likelihood_ratio_mean")
    np.testing.assert_allclose(ATTACKS["ref_pretrained"].score(inputs), expected, rtol=1e-6)
    np.testing.assert_allclose(
        mean_log_prob(inputs.target) - mean_log_prob(inputs.references["pretrained"]), expected, rtol=1e-6
    )


#: Two records of that file: statistics in, figures of zjysteven/mink-plus-plus 5596c65 (loss, zlib), ruoyuxie/recall
#: c231641, JetBrains-Research/ez-mia aa0b6b7 and Stry233/WBC 8112878 out.
THREE_TOKENS = {
    "target": {"log_prob": [-4.58545589, -2.12592006, -2.95622373], "rank": [5, 2, 4]},
    "reference": {"log_prob": [-2.07979178, -0.587215066, -3.06072807]},
    "prefixed": {"log_prob": [-4.85817337, -1.03000081, -2.83016014]},
    "text": "light maple copper.",
    "scores": {
        "loss": -3.2225332260131836,
        "zlib": -0.11935308244493273,
        "recall": 0.9018096122671981,
        "ref_pretrained": -1.3132882515589397,
        "ez_published": 0.0679170779555437,
        "wbc": 0.0,
    },
}
SEVEN_TOKENS = {
    "target": {
        "log_prob": [
            -1.66329599e-07,
            -3.70007136e-09,
            -5.92211435e-08,
            -9.4958849,
            -2.86229039e-07,
            -1.14619185e-08,
            -5.33478417e-09,
        ],
        "rank": [0, 0, 0, 8, 0, 0, 0],
    },
    "reference": {
        "log_prob": [-5.59968805, -5.37994289, -7.04263735, -1.61539114, -3.28086257, -4.24810982, -3.00561213],
    },
    "scores": {"loss": -1.3565550610858945, "ez_published": 0.0, "wbc": 0.9466666666666667},
}


@pytest.mark.parametrize("kept", [THREE_TOKENS, SEVEN_TOKENS], ids=["three tokens", "seven tokens"])
def test_some_of_the_references_figures_hold_at_every_checkout(kept):
    prefixed = statistics([kept.get("prefixed", kept["reference"])])
    references = {"pretrained": statistics([kept["reference"]])}
    inputs = AttackInput(
        statistics([kept["target"]]), references, [kept.get("text", "")], variants={"prefixed": prefixed}
    )
    for name, expected in kept["scores"].items():
        np.testing.assert_allclose(ATTACKS[name].score(inputs), expected, rtol=1e-6, atol=1e-6, err_msg=name)
