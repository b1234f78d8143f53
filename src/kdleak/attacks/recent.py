"""Attacks published after the study's, from the same token statistics. Each is oriented: higher = member."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdleak.attacks.likelihood import mean_log_prob
from kdleak.attacks.reference import token_shift
from kdleak.attacks.registry import AttackInput, attack
from kdleak.attacks.variants import PREFIXED
from kdleak.inference import ragged

#: WBC's window sizes, as the authors' README and configs/example.yaml list them (Stry233/WBC, 8112878). The paper's
#: formula, round(2 * 20^(k / 9)), gives 2, 3, 4, 5, 8, 11, 15, 21, 29, 40 instead; their code does not compute it.
WBC_WINDOWS = (2, 3, 4, 6, 9, 13, 18, 25, 32, 40)
#: WBC: how much of a score the tie-break may be. Distinct shares differ by more, but for coincidences.
WBC_TIE = 1e-7
#: Below this a mean log-prob counts as this, in ratios: a text known by heart has a log-likelihood of zero.
MIN_LOSS = 1e-6


@attack("recall", passes=(PREFIXED,))
def recall(inputs: AttackInput) -> np.ndarray:
    """LL(x | P) / LL(x), P a prefix of non-member records: it costs a member more (Xie et al. 2024, arXiv 2406.15968,
    eq. 1). LL is the mean log-prob per token."""
    conditional = mean_log_prob(inputs.variants[PREFIXED.name])
    return conditional / np.minimum(mean_log_prob(inputs.target), -MIN_LOSS)


@attack("ez", references=("pretrained",))
def ez(inputs: AttackInput) -> np.ndarray:
    """EZ-MIA (Ilic et al. 2026, arXiv 2601.12104, secs. 3.3-3.4): with delta_t = log p_target - log p_reference at the
    tokens that the target does not rank first, P the sum of the positive deltas and N of the negative ones' sizes, the
    paper's P / N. Here P / (P + N), which ranks alike and stays finite: without a mispredicted token, or with N = 0,
    it is 1, the strongest sign of membership (apps. E.5, E.6). The authors' code says the opposite in these cases:
    `ez_published`."""
    return _ez(inputs, "pretrained")


@attack("ez_no_kd", references=("no_kd",))
def ez_no_kd(inputs: AttackInput) -> np.ndarray:
    """`ez` with the student that was trained on the same data without a teacher as the reference: what the teacher
    added is what it sees. Whoever has the public data can train that student (this project)."""
    return _ez(inputs, "no_kd")


@attack("wbc", references=("pretrained",))
def wbc(inputs: AttackInput) -> np.ndarray:
    """WBC (Chen et al. 2026, arXiv 2601.02751, secs. 4.1.3-4.1.4): for the window sizes 2, 3, 4, 6, 9, 13, 18, 25, 32,
    40 the share of windows in which the target's log-likelihood beats the reference's (strictly); the mean over sizes.
    A response shorter than a window is one window (as in the authors' code). Texts that win every window tie at 1:
    among equal shares the mean shift decides, by at most 1e-7."""
    return _wbc(inputs, "pretrained")


@attack("wbc_no_kd", references=("no_kd",))
def wbc_no_kd(inputs: AttackInput) -> np.ndarray:
    """`wbc` with the student that was trained on the same data without a teacher as the reference (this project)."""
    return _wbc(inputs, "no_kd")


def window_share(delta: np.ndarray, sizes: Sequence[int] = WBC_WINDOWS) -> float:
    """WBC's score of one text from its tokens' shifts (t,), t > 0, without the tie-break."""
    sums = np.concatenate([[0.0], np.cumsum(delta)])
    return float(np.mean([np.mean(sums[w:] > sums[:-w]) for w in np.minimum(sizes, len(delta))]))


def up_share(delta: np.ndarray, counted: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) EZ-MIA's P / (P + N) over the tokens that are `counted`: 1 where there is none, 1/2 where none shifted."""
    delta = np.where(counted, delta, 0.0)
    up, both = ragged.total(np.maximum(delta, 0.0), offsets), ragged.total(np.abs(delta), offsets)
    undecided = np.where(ragged.total(counted, offsets) == 0, 1.0, 0.5)
    return np.where(np.isnan(both), np.nan, np.where(both > 0, up / np.where(both > 0, both, 1.0), undecided))


def _ez(inputs: AttackInput, reference: str) -> np.ndarray:
    delta = token_shift(inputs.target, inputs.references[reference])
    return up_share(delta, inputs.target.missed, inputs.target.offsets)


def _wbc(inputs: AttackInput, reference: str) -> np.ndarray:
    delta, offsets = token_shift(inputs.target, inputs.references[reference]), inputs.target.offsets
    texts = np.split(delta, offsets[1:-1]) if len(inputs) else []
    shares = np.array([window_share(text) if len(text) else np.nan for text in texts])
    mean = ragged.mean(delta, offsets)
    return shares + WBC_TIE * mean / (1.0 + np.abs(mean))
