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
from kdleak.report.study.findings import (
    CONTRADICTED,
    INCONCLUSIVE,
    REPRODUCED,
    Compared,
    Finding,
    not_measured,
)
from kdleak.stats import holm
from kdleak.stats.contrasts import ALPHA, Contrast, Leak
from kdleak.stats.correlation import technique_correlation
from kdleak.stats.gap import mean_gap

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.report.study.results import Study

SAYS = "Membership and memorization disagree: the ranking of techniques by one is not the ranking by the other."
TEST = (
    "two techniques that both measures tell apart (paired DeLong; cluster-robust gap; Holm over all pairs) in opposite "
    "orders; contradicted where none are and the rank correlation's interval lies above .5"
)


@claim("6")
def measures_disagree(study: Study) -> Finding:
    """6. Membership (AUC of the headline attack) against memorization (gap of token accuracy)."""
    both = paired_tables(study, study.claimed)
    if len(both) < 3:
        return not_measured("6", SAYS, TEST, "Needs both audits of three techniques or more.")
    member = next(iter(both.values()))["role"].to_numpy() == "private"
    pairs = [(a, b) for a, b in combinations(both, 2)]
    by_membership = [_membership(both, a, b, member) for a, b in pairs]
    by_memorization = [_memorization(both, a, b, member) for a, b in pairs]
    # A pair shows disagreement where both tests reject, in opposite directions: its p-value is the larger of the two.
    opposite = [x.value * y.value < 0 for x, y in zip(by_membership, by_memorization, strict=True)]
    p_both = [max(x.p_value, y.p_value) for x, y in zip(by_membership, by_memorization, strict=True)]
    p_holm = holm(p_both)
    shown = [i for i in range(len(pairs)) if opposite[i] and p_holm[i] < ALPHA]
    leaked, repeated = (np.array([t[c].to_numpy() for t in both.values()]) for c in ("membership", "memorization"))
    rho = technique_correlation(leaked, repeated, member, derive(study.params.seed, "disagreement"), draws=500)
    agree = not shown and rho.low > 0.5
    verdict = REPRODUCED if shown else CONTRADICTED if agree else INCONCLUSIVE
    interval = with_interval(rho.value, (rho.low, rho.high), 2)
    answer = f"Rank correlation of the two over {listed([label(name) for name in both])}: {interval}."
    if shown:
        names = [f"{label(pairs[i][0])} and {label(pairs[i][1])}" for i in shown]
        answer += f" Ordered oppositely by the two: {listed(names[:3])}"
        answer += f" and {len(names) - 3} more pairs." if len(names) > 3 else "."
    compared = [
        Compared(contrast, float(p_holm[i]), REPRODUCED)
        for i in shown
        for contrast in (by_membership[i], by_memorization[i])
    ]
    figures = {"spearman": rho.value, "spearman_ci95": [rho.low, rho.high], "techniques": list(both)}
    smallest = max(x.detectable(len(pairs)) for x in by_membership) if verdict == INCONCLUSIVE else None
    return Finding("6", SAYS, verdict, TEST, answer, compared, figures, smallest)


def paired_tables(study: Study, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Technique -> record_id, role, group_id, membership and memorization of the records that all define, in order."""
    tables: dict[str, pd.DataFrame] = {}
    for name in names:
        model = study.models[name]
        if model.scores is None or model.memorized is None or study.attack not in model.scores:
            continue
        scores = model.scores[["record_id", study.attack]].rename(columns={study.attack: "membership"})
        kept = model.memorized[["record_id", "role", "group_id", "token_accuracy"]]
        table = kept.merge(scores, on="record_id").rename(columns={"token_accuracy": "memorization"})
        tables[name] = table[table["role"].isin(["private", "heldout"])].dropna()
    if not tables:
        return {}
    common = sorted(set.intersection(*(set(table["record_id"]) for table in tables.values())))
    return {name: table.set_index("record_id").loc[common].reset_index() for name, table in tables.items()}


def _membership(both: Mapping[str, pd.DataFrame], first: str, second: str, member: np.ndarray) -> Contrast:
    sides = (both[name]["membership"].to_numpy() for name in (first, second))
    a, b = (Leak.of(scores[member], scores[~member]) for scores in sides)
    return Contrast.of(f"{label(first)} over {label(second)} by membership", a - b)


def _memorization(both: Mapping[str, pd.DataFrame], first: str, second: str, member: np.ndarray) -> Contrast:
    difference = both[first]["memorization"].to_numpy() - both[second]["memorization"].to_numpy()
    groups = both[first]["group_id"].to_numpy()
    gap = mean_gap(difference[member], difference[~member], groups[member], groups[~member])
    error = (gap.high - gap.low) / (2 * -ndtri(ALPHA / 2))
    return Contrast(f"{label(first)} over {label(second)} by memorization", gap.gap, float(error), len(difference))
