"""What the scores of shadow models say: attacks with shadows on teachers and students, and what passed between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.special import logit

from kdleak.shadow import attacks
from kdleak.shadow.clustered import Estimate, area, areas, mean, tpr
from kdleak.shadow.transfer import gains, processing, transfer

#: False-positive rates of the table.
RATES = (0.01, 0.001)
#: EZ's share lies in [0, 1]; so far from its ends it is taken as if it lay no further.
EZ_EDGE = 1e-3
#: What `a` of RMIA is chosen from, as its authors choose it.
RMIA_GRID = np.arange(0.0, 1.1, 0.1)


def shadow_report(scores: Mapping[str, Mapping[str, np.ndarray]], inside: np.ndarray, seed: int) -> dict[str, Any]:
    """scores: `teacher` or a method -> statistic -> (models, n), of which inside (models, n) says what each was trained
    on. At least two pairs."""
    statistics = {name: _scaled(each) for name, each in scores.items()}
    attacked = {name: attack_models(each, inside) for name, each in statistics.items()}
    report: dict[str, Any] = {
        "models": len(inside),
        "records": inside.shape[1],
        "inside": inside.sum(1),
        "attacks": {name: _table(each, inside) for name, each in attacked.items()},
        "stability": {name: _stability(each, inside) for name, each in statistics.items()},
    }
    if "teacher" not in scores:
        return report
    best = {name: each[_best(each, inside)] for name, each in attacked.items()}
    report["transfer"], report["processing"] = {}, {}
    for name in (name for name in scores if name != "teacher"):
        report["transfer"][name] = {
            statistic: _transfer(values, statistics["teacher"][statistic], inside)
            for statistic, values in statistics[name].items()
        }
        report["processing"][name] = processing(best[name], best["teacher"], inside, seed)
    return report


def attack_models(statistics: Mapping[str, np.ndarray], inside: np.ndarray) -> dict[str, np.ndarray]:
    """Name of an attack -> (models, n) scores. The statistic alone (`loss`, `ez`), then the attacks that compare it
    with shadows (`lira_online:loss`); RMIA takes mean log-probs."""
    scores = dict(statistics)
    for name, values in statistics.items():
        for attack, function in attacks.ATTACKS.items():
            scores[f"{attack}:{name}"] = attacks.all_models(function, values, inside)
    values = statistics["loss"]
    scores["rmia_online:loss"] = attacks.all_models(attacks.rmia_online, values, inside)
    scores["rmia_offline:loss"] = np.stack([_rmia_offline(values, inside, k) for k in range(len(values))])
    return scores


def _rmia_offline(values: np.ndarray, inside: np.ndarray, model: int) -> np.ndarray:
    """`a` is the first of RMIA_GRID with the largest AUC against the model's complement, whose records the attacker of
    the model knows, by the shadows that both have in common (ml_privacy_meter)."""
    shadows, complement = attacks.held_out(values, inside, model), model ^ 1
    tries = [attacks.rmia_offline(values[complement], shadows, a) for a in RMIA_GRID]
    chosen = RMIA_GRID[int(np.argmax([area(each, inside[complement]) for each in tries]))]
    return attacks.rmia_offline(values[model], shadows, chosen)


def _scaled(statistics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """EZ's share as log odds, which are nearer to a normal."""
    return {
        name: logit(np.clip(values, EZ_EDGE, 1.0 - EZ_EDGE)) if name == "ez" else values.astype(np.float64)
        for name, values in statistics.items()
    }


def _table(attacked: Mapping[str, np.ndarray], inside: np.ndarray) -> dict[str, Any]:
    return {
        name: {"auc": asdict(mean(areas(scores, inside)))}
        | {f"tpr_at_{fpr:g}": _estimate(tpr(scores, inside, fpr)) for fpr in RATES}
        for name, scores in attacked.items()
    }


def _best(attacked: Mapping[str, np.ndarray], inside: np.ndarray) -> str:
    return max(attacked, key=lambda name: areas(attacked[name], inside).mean())


def _transfer(student: np.ndarray, teacher: np.ndarray, inside: np.ndarray) -> dict[str, Any]:
    found = transfer(gains(student, inside), gains(teacher, inside))
    known = found.by_record[~np.isnan(found.by_record)]
    return {
        "tau": asdict(found.tau),
        "records_clear": len(known),
        "by_record_quartiles": np.quantile(known, [0.25, 0.5, 0.75]) if len(known) else [],
        "reliability": found.reliability,
        "correlation": found.correlation,
    }


def _stability(statistics: Mapping[str, np.ndarray], inside: np.ndarray) -> dict[str, Any]:
    """How far decisions on single records hold from one training to another (Hayes et al. 2025, arXiv 2505.18773): of a
    record, the share of models that name it a member when it is one, at 1 % false positives by online LiRA; and the
    correlation of that share between the even and the odd pairs."""
    scores = attacks.all_models(attacks.lira_online, statistics["loss"], inside)
    out = np.sort(scores[~inside])[::-1]
    named = (scores > out[int(0.01 * len(out))]) & inside
    even = np.arange(len(inside)) // 2 % 2 == 0
    halves = [named[part].sum(0) / inside[part].sum(0) for part in (even, ~even) if part.any()]
    share = named.sum(0) / inside.sum(0)
    varies = len(halves) == 2 and min(half.std() for half in halves) > 0
    return {
        "named_always": float((share == 1.0).mean()),
        "named_never": float((share == 0.0).mean()),
        "named_sometimes": float(((share > 0.0) & (share < 1.0)).mean()),
        "agreement": float(np.corrcoef(*halves)[0, 1]) if varies else None,
    }


def _estimate(found: Estimate | None) -> dict[str, float] | None:
    return None if found is None else asdict(found)
