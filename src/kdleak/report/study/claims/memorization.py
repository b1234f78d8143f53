"""The paper's claim 6: membership and memorization disagree on which technique leaks most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from kdleak.core.seeds import derive
from kdleak.render.palette import label
from kdleak.render.wording import listed, with_interval
from kdleak.report.study.claims import claim
from kdleak.report.study.claims.membership import themselves
from kdleak.report.study.findings import (
    AUC,
    CONTRADICTED,
    INCONCLUSIVE,
    JUDGES,
    METRICS,
    REPRODUCED,
    Compared,
    Finding,
    View,
    not_measured,
    over_views,
)
from kdleak.stats import holm
from kdleak.stats.contrasts import ALPHA, Contrast
from kdleak.stats.correlation import RankCorrelation, technique_correlation
from kdleak.stats.gap import mean_gap

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.report.study.results import Study

SAYS = "Membership and memorization disagree: the ranking of techniques by one is not the ranking by the other."
TEST = (
    "two techniques that both measures tell apart (paired on the same records; cluster-robust gap; Holm over "
    "all pairs, attacks and metrics) in opposite orders; contradicted where none are and the rank correlation's "
    "interval lies above .5"
)


@claim("6")
def measures_disagree(study: Study) -> Finding:
    """6. Membership (every attack that judges) against memorization (gap of token accuracy)."""
    own, caveat = themselves(study, study.claimed)
    tables = {attack: paired_tables(study, own, attack) for attack in JUDGES}
    tables = {attack: both for attack, both in tables.items() if len(both) > 2}
    if not tables:
        return not_measured("6", SAYS, TEST, f"Needs both audits of three techniques or more. {caveat}".strip())
    tests = [test for attack, both in tables.items() for test in _tests(both, attack)]
    # A pair shows disagreement where both tests reject, in opposite directions: its p-value is the larger of the two.
    p_holm = holm([float(np.maximum(x.p_value, y.p_value)) for _, _, x, y in tests])
    shown = [
        (*test, float(p))
        for test, p in zip(tests, p_holm, strict=True)
        if p < ALPHA and test[2].value * test[3].value < 0
    ]
    rhos = {
        attack: _rank_correlation(both, derive(study.params.seed, "disagreement")) for attack, both in tables.items()
    }
    verdict = over_views({*(REPRODUCED for _ in shown), *_agreeing(rhos, {view.attack for view, *_ in shown})})
    first = next(iter(rhos))
    correlations = ", ".join(f"{with_interval(r.value, (r.low, r.high), 2)} by {a}" for a, r in rhos.items())
    answer = f"Rank correlation of the two over {listed([label(name) for name in tables[first]])}: {correlations}."
    if shown:
        opposed = list(dict.fromkeys(pair for _, pair, *_ in shown))
        answer += f" Ordered oppositely by the two: {listed(opposed[:3])}"
        answer += f" and {len(opposed) - 3} more pairs." if len(opposed) > 3 else "."
    compared = [Compared(c, p, REPRODUCED, view) for view, _, *contrasts, p in shown for c in contrasts]
    figures = {
        "spearman": {attack: rho.value for attack, rho in rhos.items()},
        "spearman_ci95": {attack: [rho.low, rho.high] for attack, rho in rhos.items()},
        "techniques": list(tables[first]),
    }
    by_auc = [x for view, _, x, _ in tests if view.metric == AUC]
    smallest = max(x.detectable(len(tests)) for x in by_auc) if verdict == INCONCLUSIVE else None
    return Finding(
        "6", SAYS, verdict, TEST, answer, compared, figures, smallest, caveat,
        ["memorization as the accuracy of greedy tokens"], tuple(tables),
    )  # fmt: skip


def _agreeing(rhos: Mapping[str, RankCorrelation], opposed: set[str]) -> set[str]:
    """{CONTRADICTED} where an attack by which no pair is opposed ranks the techniques as memorization does."""
    return {CONTRADICTED for attack, rho in rhos.items() if attack not in opposed and rho.low > 0.5}


def _tests(both: Mapping[str, pd.DataFrame], attack: str) -> list[tuple[View, str, Contrast, Contrast]]:
    """Every pair of techniques by every metric that the records suffice for: its view and name, the difference of
    membership and that of memorization."""
    member = next(iter(both.values()))["role"].to_numpy() == "private"
    found = []
    for metric, measure in METRICS.items():
        scores = {name: table["membership"].to_numpy() for name, table in both.items()}
        owner = next(iter(both.values()))["group_id"].astype(str).to_numpy()
        groups = owner[member], owner[~member]
        areas = {name: measure(each[member], each[~member], groups=groups) for name, each in scores.items()}
        for a, b in combinations(both, 2):
            if areas[a] is not None and areas[b] is not None:
                by_membership = Contrast.of(f"{label(a)} over {label(b)} by membership", areas[a] - areas[b])
                names = f"{label(a)} and {label(b)}"
                found.append((View(attack, metric), names, by_membership, _memorization(both, a, b, member)))
    return found


def _rank_correlation(both: Mapping[str, pd.DataFrame], seed: int) -> RankCorrelation:
    first = next(iter(both.values()))
    member, groups = first["role"].to_numpy() == "private", first["group_id"].astype(str).to_numpy()
    leaked, repeated = (np.array([t[c].to_numpy() for t in both.values()]) for c in ("membership", "memorization"))
    return technique_correlation(leaked, repeated, member, seed, draws=500, groups=groups)


def paired_tables(study: Study, names: Sequence[str], attack: str) -> dict[str, pd.DataFrame]:
    """Technique -> record_id, role, group_id, membership (scores of `attack`) and memorization of the records that all
    define, in order."""
    tables: dict[str, pd.DataFrame] = {}
    for name in names:
        model = study.models[name]
        if model.scores is None or model.memorized is None or attack not in model.scores:
            continue
        scores = model.scores[["record_id", attack]].rename(columns={attack: "membership"})
        kept = model.memorized[["record_id", "role", "group_id", "token_accuracy"]]
        table = kept.merge(scores, on="record_id").rename(columns={"token_accuracy": "memorization"})
        tables[name] = table[table["role"].isin(["private", "heldout"])].dropna()
    if not tables:
        return {}
    common = sorted(set.intersection(*(set(table["record_id"]) for table in tables.values())))
    return {name: table.set_index("record_id").loc[common].reset_index() for name, table in tables.items()}


def _memorization(both: Mapping[str, pd.DataFrame], first: str, second: str, member: np.ndarray) -> Contrast:
    difference = both[first]["memorization"].to_numpy() - both[second]["memorization"].to_numpy()
    groups = both[first]["group_id"].to_numpy()
    gap = mean_gap(difference[member], difference[~member], groups[member], groups[~member])
    error = (gap.high - gap.low) / (2 * -ndtri(ALPHA / 2))
    return Contrast(f"{label(first)} over {label(second)} by memorization", gap.gap, float(error), len(difference))
