"""Attacks that compare a model with shadow models which had a record and with others which had not.

A statistic S is a matrix (models, n): what each model says of each record, higher where the record was learned. The
attack on model k uses neither k nor its complement (`held_out`): what k was trained on is then nowhere in its own
shadows. Scores are higher for members, float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, polygamma, psi

#: Below this a standard deviation counts as this: shadows that agree to the last bit say nothing of their spread.
MIN_STD = 1e-6
#: Fewest shadows a side from which on each record has a variance of its own (Carlini et al. 2022, sec. VI-A: with few
#: shadows one variance for all records is better).
OWN_VARIANCE_FROM = 32


@dataclass(frozen=True)
class Shadows:
    """What the shadows of one attacked model say of the records: (m, n) statistics, and which had the record."""

    values: np.ndarray
    inside: np.ndarray

    @property
    def mean_in(self) -> np.ndarray:
        return _mean(self.values, self.inside)

    @property
    def mean_out(self) -> np.ndarray:
        return _mean(self.values, ~self.inside)


def held_out(values: np.ndarray, inside: np.ndarray, model: int) -> Shadows:
    """The shadows of `model`: all models but it and its complement."""
    others = np.arange(len(values)) // 2 != model // 2
    return Shadows(values[others], inside[others])


def lira_online(values: np.ndarray, shadows: Shadows) -> np.ndarray:
    """log N(s; mu_in, sd_in) - log N(s; mu_out, sd_out) (Carlini et al. 2022, arXiv 2112.03570, algorithm 1)."""
    inside, outside = (_deviation(shadows.values, chosen) for chosen in (shadows.inside, ~shadows.inside))
    return log_normal(values, shadows.mean_in, inside) - log_normal(values, shadows.mean_out, outside)


def lira_offline(values: np.ndarray, shadows: Shadows) -> np.ndarray:
    """(s - mu_out) / sd_out: the one-sided test of Carlini et al. 2022, sec. V-C, which needs no shadow that had the
    record. (Their code, and others', score by the density under OUT alone: far below its mean counts as membership.)"""
    return (values - shadows.mean_out) / _deviation(shadows.values, ~shadows.inside)


def bavaria_online(values: np.ndarray, shadows: Shadows) -> np.ndarray:
    """LiRA with each side's normal of unknown mean and variance replaced by its predictive distribution, a Student t
    (BaVarIA-t; Brännvall 2026, arXiv 2603.11799). The prior of the variances is the inverse gamma that fits those of
    all records of the side best, by the moments of their logarithms; that of the means is flat. The paper's own priors
    were not at hand: these are ours."""
    return _log_predictive(values, shadows.values, shadows.inside) - _log_predictive(
        values, shadows.values, ~shadows.inside
    )


def bavaria_offline(values: np.ndarray, shadows: Shadows) -> np.ndarray:
    """`lira_offline` with the spread of `bavaria_online`: (s - mu_out) in units of the predictive scale of OUT, ranked
    by the tail probability under its Student t. With a flat prior of the mean and as many shadows for every record the
    degrees of freedom are the same for all, and the ranking is that of the standardised distance."""
    scale, _ = _predictive(shadows.values, ~shadows.inside)
    return (values - shadows.mean_out) / scale


def rmia_online(values: np.ndarray, shadows: Shadows) -> np.ndarray:
    """log ratio(x), with P(x) the mean of exp(s) over models with and without the record, half each (Zarifzadeh et al.
    2024, arXiv 2312.03262, eq. 10); s is the mean log-prob per token. No population is needed to rank records: the
    share of it that x beats rises with ratio(x) alone."""
    out = _mean(np.exp(shadows.values), ~shadows.inside)
    return values - np.log((_mean(np.exp(shadows.values), shadows.inside) + out) / 2.0)


def rmia_offline(values: np.ndarray, shadows: Shadows, a: float) -> np.ndarray:
    """log ratio(x) with P(x) = ((1 + a) P_out(x) + 1 - a) / 2, P_out the mean over the shadows without the record."""
    out = _mean(np.exp(shadows.values), ~shadows.inside)
    return values - np.log(((1.0 + a) * out + 1.0 - a) / 2.0)


#: The attacks that need nothing but a statistic, by name; `rmia_*` take mean log-probs alone.
ATTACKS: dict[str, Callable[[np.ndarray, Shadows], np.ndarray]] = {
    "lira_online": lira_online,
    "lira_offline": lira_offline,
    "bavaria_online": bavaria_online,
    "bavaria_offline": bavaria_offline,
}


def all_models(
    attack: Callable[[np.ndarray, Shadows], np.ndarray], values: np.ndarray, inside: np.ndarray
) -> np.ndarray:
    """(models, n) scores of `attack` on every model in turn, each by the shadows that are left."""
    return np.stack([attack(values[k], held_out(values, inside, k)) for k in range(len(values))])


def _mean(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.where(chosen, values, 0.0).sum(0) / chosen.sum(0)


def _squares(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n,) sum of squared deviations from the mean of the chosen."""
    return np.where(chosen, (values - _mean(values, chosen)) ** 2, 0.0).sum(0)


def _deviation(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n,) standard deviation, one less in the denominator: each record's own from OWN_VARIANCE_FROM shadows on, else
    the root of the mean variance of all records."""
    squares, freedom = _squares(values, chosen), chosen.sum(0) - 1
    own = np.sqrt(squares / freedom)
    if freedom.min() + 1 < OWN_VARIANCE_FROM:
        own = np.full(values.shape[1], np.sqrt(squares.sum() / freedom.sum()))
    return np.maximum(own, MIN_STD)


def log_normal(x: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """log density of a normal at x."""
    return -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2.0 * np.pi)


def _predictive(values: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and degrees of freedom, each (n,), of the Student t that predicts a further value of the chosen."""
    count, squares = chosen.sum(0), _squares(values, chosen)
    shape, rate = _variance_prior(squares, count - 1)
    alpha, beta = shape + (count - 1) / 2.0, rate + squares / 2.0
    return np.maximum(np.sqrt(beta / alpha * (1.0 + 1.0 / count)), MIN_STD), 2.0 * alpha


def _log_predictive(x: np.ndarray, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """log density of a Student t at x."""
    (scale, freedom), mean = _predictive(values, chosen), _mean(values, chosen)
    z = (x - mean) / scale
    constant = gammaln((freedom + 1.0) / 2.0) - gammaln(freedom / 2.0) - 0.5 * np.log(freedom * np.pi) - np.log(scale)
    return constant - (freedom + 1.0) / 2.0 * np.log1p(z**2 / freedom)


def _variance_prior(squares: np.ndarray, freedom: np.ndarray) -> tuple[float, float]:
    """Shape and rate of the inverse gamma prior of a record's variance, by the moments of log variances: with v its own
    estimate on f degrees of freedom, log v has the variance psi'(f / 2) by sampling; what exceeds it is the records'
    own, psi'(shape) of an inverse gamma (Smyth 2004, sec. 6.2). No excess: one variance for all (shape 1e6)."""
    usable = (squares > 0) & (freedom > 0)
    if usable.sum() < 2:
        return 1.0, MIN_STD**2
    half = freedom[usable] / 2.0
    logs = np.log(squares[usable] / freedom[usable]) - psi(half) + np.log(half)
    excess = logs.var(ddof=1) - float(np.mean(polygamma(1, half)))
    shape = _inverse_trigamma(excess) if excess > 1e-6 else 1e6
    # E[logs] = log(rate) - psi(shape)
    return shape, float(np.exp(logs.mean() + psi(shape)))


def _inverse_trigamma(y: float) -> float:
    """x with psi'(x) = y > 0, by Newton's method on 1 / psi' (Smyth 2004, appendix)."""
    x = 0.5 + 1.0 / y
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1.0 - trigamma / y) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-12 * x:
            break
    return x
