"""Attacks published after the study's, from the same token statistics. Each is oriented: higher = member."""

from __future__ import annotations

import numpy as np

from kdleak.attacks.likelihood import mean_log_prob
from kdleak.attacks.reference import token_shift
from kdleak.attacks.registry import AttackInput, attack
from kdleak.inference import ragged
from kdleak.inference.token_statistics import TokenStatistics

#: RMIA: how P_out is stretched towards 1 to stand for P, and by how much a record must beat a population record.
RMIA_A, RMIA_GAMMA = 0.3, 1.0
#: WBC: the smallest and largest window, and how many sizes between them (sec. 5.1).
WBC_MIN, WBC_MAX, WBC_SIZES = 2, 40, 10
#: Below this a mean log-prob counts as this, in ratios: a text known by heart has a log-likelihood of zero.
MIN_LOSS = 1e-6


@attack("rmia", references=("pretrained",), population=("target", "pretrained"))
def rmia(inputs: AttackInput) -> np.ndarray:
    """Share of population records z with LR(x, z) > gamma, LR(x, z) = [P(x|target) / P(x)] / [P(z|target) / P(z)]
    (Zarifzadeh et al. 2024, arXiv 2312.03262, sec. 3), offline: P(x) = ((1 + a) P_out(x) + 1 - a) / 2, a = .3, P_out
    from the pretrained base, which never saw x. P of a text is its per-token geometric mean; gamma = 1, as the
    authors' code has it."""
    of_records = _rmia_ratio(inputs.target, inputs.references["pretrained"])
    of_population = _rmia_ratio(inputs.population["target"], inputs.population["pretrained"])
    population = np.sort(of_population[~np.isnan(of_population)])
    beaten = np.searchsorted(population, of_records / RMIA_GAMMA, side="left")
    return np.where(np.isnan(of_records), np.nan, beaten / len(population) if len(population) else np.nan)


@attack("recall", variants=("prefixed",))
def recall(inputs: AttackInput) -> np.ndarray:
    """LL(x | P) / LL(x), P a prefix of non-member records: it costs a member more (Xie et al. 2024, arXiv 2406.15968,
    eq. 1). LL is the mean log-prob per token."""
    conditional = mean_log_prob(inputs.variants["prefixed"])
    return conditional / np.minimum(mean_log_prob(inputs.target), -MIN_LOSS)


@attack("ez", references=("pretrained",))
def ez(inputs: AttackInput) -> np.ndarray:
    """EZ-MIA (Ilic et al. 2026, arXiv 2601.12104, secs. 3.3-3.4): with delta_t = log p_target - log p_reference at the
    tokens that the target does not rank first, P the sum of the positive deltas and N of the negative ones' sizes, the
    paper's P / N. Here P / (P + N), which ranks alike and stays finite: without a mispredicted token, or with N = 0,
    it is 1, the strongest sign of membership (apps. E.5, E.6)."""
    return up_share(
        token_shift(inputs.target, inputs.references["pretrained"]), inputs.target.rank > 0, inputs.target.offsets
    )


@attack("wbc", references=("pretrained",))
def wbc(inputs: AttackInput) -> np.ndarray:
    """WBC (Chen et al. 2026, arXiv 2601.02751, secs. 4.1.3-4.1.4): for window sizes w_k = round(2 * 20^(k / 9)),
    k = 0..9, the share of windows in which the target's log-likelihood beats the reference's; the mean over sizes.
    A response shorter than a window is one window (as in the authors' code)."""
    delta = token_shift(inputs.target, inputs.references["pretrained"])
    sizes = np.round(WBC_MIN * (WBC_MAX / WBC_MIN) ** (np.arange(WBC_SIZES) / (WBC_SIZES - 1))).astype(int)
    scores = np.full(len(inputs), np.nan)
    for i, (start, end) in enumerate(zip(inputs.target.offsets[:-1], inputs.target.offsets[1:], strict=True)):
        if end > start:
            sums = np.concatenate([[0.0], np.cumsum(delta[start:end])])
            windows = np.minimum(sizes, end - start)
            scores[i] = np.mean([np.mean(sums[w:] > sums[:-w]) for w in windows])
    return scores


def up_share(delta: np.ndarray, counted: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) EZ-MIA's P / (P + N) over the tokens that are `counted`: 1 where there is none, 1/2 where none shifted."""
    delta = np.where(counted, delta, 0.0)
    up, both = ragged.total(np.maximum(delta, 0.0), offsets), ragged.total(np.abs(delta), offsets)
    undecided = np.where(ragged.total(counted, offsets) == 0, 1.0, 0.5)
    return np.where(np.isnan(both), np.nan, np.where(both > 0, up / np.where(both > 0, both, 1.0), undecided))


def _rmia_ratio(target: TokenStatistics, reference: TokenStatistics) -> np.ndarray:
    """(n,) P(x | target) / P(x), each P per token of the target."""
    out = np.exp(ragged.total(reference.log_prob, reference.offsets) / np.maximum(target.lengths, 1))
    return np.exp(mean_log_prob(target)) / (((1.0 + RMIA_A) * out + 1.0 - RMIA_A) / 2.0)
