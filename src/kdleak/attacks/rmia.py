"""RMIA, offline (Zarifzadeh et al. 2024, arXiv 2312.03262), as the authors' code (ml_privacy_meter) has it.

The signal of a text is its probability by token, exp(mean log p). P(x) = ((1 + a) P_out(x) + 1 - a) / 2 stands for the
mean over models with and without x, P_out being that of models without it; ratio(x) = P(x | target) / P(x); the score
is the share of population records z with ratio(x) / ratio(z) > 1.
"""

from __future__ import annotations

import numpy as np

from kdleak.attacks.registry import AttackInput, attack
from kdleak.inference import ragged
from kdleak.inference.token_statistics import TokenStatistics
from kdleak.stats import placements

#: `a` where nothing is there to tune it on. A token's mean probability is about .05 to .3: at the .3 that the paper
#: takes for images the constant (1 - a) / 2 = .35 drowns P_out and the attack is `loss`; .99 leaves .005 of it, which
#: still tempers the ratio of texts that the reference finds impossible (at 1 the attack is `ref_pretrained`).
A = 0.99
#: What the authors' tuning tries.
GRID = np.arange(0.0, 1.1, 0.1)


def chosen_a(inputs: AttackInput) -> float:
    """`a` as the authors tune it, on a reference model whose members are known (`AttackInput.tuning`); without one
    .99."""
    known = inputs.tuning
    if known is None:
        return A
    return tuned_a(signals(known.model), signals(known.reference, known.model), known.is_member)[0]


@attack("rmia", references=("pretrained",), chosen=lambda inputs: {"a": chosen_a(inputs)})
def rmia(inputs: AttackInput) -> np.ndarray:
    """log ratio(x), P_out from the pretrained base, which never saw x (Zarifzadeh et al. 2024, arXiv 2312.03262, sec.
    3). The share of population records that x beats rises with ratio(x) and with nothing else, so that the ratio ranks
    records as RMIA does and breaks its ties (the best 1 % of records beat the whole population and tie at 1): no
    population pass is needed. a: `chosen_a`."""
    reference = inputs.references["pretrained"]
    return np.log(ratios(signals(inputs.target), signals(reference, inputs.target), chosen_a(inputs)))


def signals(statistics: TokenStatistics, target: TokenStatistics | None = None) -> np.ndarray:
    """(n,) exp(mean log p), the mean over the tokens of `target` (by default of `statistics`): two tokenizers are
    compared by the probability of the text."""
    lengths = (statistics if target is None else target).lengths
    return np.exp(ragged.total(statistics.log_prob, statistics.offsets) / np.maximum(lengths, 1))


def ratios(target: np.ndarray, out: np.ndarray, a: float) -> np.ndarray:
    """(n,) P(x | target) / P(x) from signals under the target and under models without x."""
    return target / (((1.0 + a) * out + 1.0 - a) / 2.0)


def beaten_shares(of_records: np.ndarray, of_population: np.ndarray) -> np.ndarray:
    """(n,) the authors' score: the share of population ratios (z,) that each ratio exceeds (gamma = 1, strictly); NaN
    where a ratio is, or without a population."""
    population = np.sort(of_population[~np.isnan(of_population)])
    beaten = np.searchsorted(population, of_records, side="left")
    return np.where(np.isnan(of_records), np.nan, beaten / len(population) if len(population) else np.nan)


def tuned_a(
    model: np.ndarray,
    out: np.ndarray,
    is_member: np.ndarray,
    population: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[float, np.ndarray]:
    """The first `a` of `GRID` with the largest AUC against a model whose members are known, and the AUC of each.

    model, out: (n,) signals of the same records under that model and under a reference without them. population:
    signals under both of the population whose ratios are beaten; by default records are ranked by their ratio.
    """
    areas = []
    for a in GRID:
        scores = ratios(model, out, a)
        if population is not None:
            scores = beaten_shares(scores, ratios(*population, a))
        defined = ~np.isnan(scores)
        areas.append(placements(scores[defined & is_member], scores[defined & ~is_member])[0].mean())
    return float(GRID[int(np.argmax(areas))]), np.array(areas)
