"""What the scores of shadow models say: attacks with shadows on teachers and students, and what passed between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logit

from kdleak.shadow import attacks
from kdleak.shadow.barrier import LEAK, barrier, usefulness
from kdleak.shadow.clustered import FEWEST_FALSE_POSITIVES, area, curve, jackknife, mean_area
from kdleak.shadow.transfer import RATES, gains, processing, transfer

if TYPE_CHECKING:
    from kdleak.config.schema import Params

#: False-positive rates of the table, and what they are called there.
TOLD = {"tpr_at_0.01": 0.01, "tpr_at_0.001": 0.001}
#: EZ's share lies in [0, 1]; so far from its ends it is taken as if it lay no further.
EZ_EDGE = 1e-3
#: What `a` of RMIA is chosen from, as its authors choose it.
RMIA_GRID = np.arange(0.0, 1.1, 0.1)


def settings_of(params: Params) -> dict[str, Any]:
    """By what a reader tells whether shadow models are of the study that they stand beside."""
    model, kd = params.model, params.kd
    said = {"seed": params.seed, "family": model.family, "student": model.student, "defence": params.defence.name}
    return said | {"protocol": kd.protocol, "grid": kd.grid, "source": params.data.source}


def shadow_report(
    scores: Mapping[str, Mapping[str, np.ndarray]], inside: np.ndarray, arms: Collection[str] = ()
) -> dict[str, Any]:
    """scores: `teacher`, a method or an arm -> statistic -> (models, n), of which inside (models, n) says what each was
    trained on. arms: which of the names are teachers of control arms, `kind=strength`. At least four pairs: with one
    left out, each model is to have two shadows a side."""
    statistics = {name: _scaled(each) for name, each in scores.items()}
    measured = {name: measure(each, inside) for name, each in statistics.items()}
    behind = (RATES * (~inside).sum()).astype(int)
    report: dict[str, Any] = {
        "models": len(inside),
        "records": inside.shape[1],
        "inside": inside.sum(1),
        "attacks": {name: _table(each, behind) for name, each in measured.items()},
        "stability": {name: _stability(each, inside) for name, each in statistics.items()},
    }
    if "teacher" not in scores:
        return report
    of_teacher = np.stack([each[:, 1:] for each in measured["teacher"].values()])
    report["transfer"], report["processing"] = {}, {}
    for name in (name for name in scores if name != "teacher" and name not in arms):
        report["transfer"][name] = {
            statistic: _transfer(values, statistics["teacher"][statistic], inside)
            for statistic, values in statistics[name].items()
        }
        best = max(measured[name].values(), key=lambda each: each[0, 0])
        report["processing"][name] = processing(best[:, 1:], of_teacher, behind)
    if arms:
        report["barrier"] = _barriers(statistics, measured, inside, arms)
    return report


def _barriers(
    statistics: Mapping[str, Mapping[str, np.ndarray]],
    measured: Mapping[str, Mapping[str, np.ndarray]],
    inside: np.ndarray,
    arms: Collection[str],
) -> dict[str, Any]:
    """Of each student Δ_net against the arms of each kind; the undefended teacher ends every kind's line."""
    useful = {name: usefulness(each["loss"], inside) for name, each in statistics.items()}
    leak = {name: each[LEAK][:, 0] for name, each in measured.items()}
    kinds: dict[str, list[str]] = {}
    for name in arms:
        kinds.setdefault(name.partition("=")[0], ["teacher"]).append(name)
    students = [name for name in statistics if name != "teacher" and name not in arms]
    told = {name: {"usefulness": useful[name][0], "leak": leak[name][0]} for name in ("teacher", *arms)}
    return {"arms": told, "students": {name: barrier(name, kinds, useful, leak) for name in students}}


def measure(statistics: Mapping[str, np.ndarray], inside: np.ndarray) -> dict[str, np.ndarray]:
    """Attack -> (1 + pairs, 1 + rates): AUC and the TPR at each of RATES, of all models and without each pair, which is
    then neither attacked nor anybody's shadow."""
    pairs = np.arange(len(inside)) // 2
    rows: dict[str, list[list[float]]] = {}
    for left_out in (-1, *range(len(inside) // 2)):
        kept = pairs != left_out
        attacked = attack_models({name: values[kept] for name, values in statistics.items()}, inside[kept])
        for name, scores in attacked.items():
            row = [mean_area(scores, inside[kept]), *curve(scores, inside[kept], RATES)]
            rows.setdefault(name, []).append(row)
    return {name: np.array(each) for name, each in rows.items()}


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
    """`a` is the first of RMIA_GRID with the largest mean AUC against the two models of the next pair, whose records
    the attacker knows; neither pair is among the shadows then. (ml_privacy_meter takes the attacked model's own
    complement, whose labels are the attacked ones turned over: without a leak that puts the AUC below one half.)"""
    first = 2 * ((model // 2 + 1) % (len(values) // 2))
    pairs = np.arange(len(values)) // 2
    others = (pairs != model // 2) & (pairs != first // 2)
    shadows, known = attacks.Shadows(values[others], inside[others]), (first, first + 1)
    tries = [np.mean([area(attacks.rmia_offline(values[k], shadows, a), inside[k]) for k in known]) for a in RMIA_GRID]
    return attacks.rmia_offline(
        values[model], attacks.held_out(values, inside, model), RMIA_GRID[int(np.argmax(tries))]
    )


def _scaled(statistics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """EZ's share as log odds, which are nearer to a normal."""
    return {
        name: logit(np.clip(values, EZ_EDGE, 1.0 - EZ_EDGE)) if name == "ez" else values.astype(np.float64)
        for name, values in statistics.items()
    }


def _table(measured: Mapping[str, np.ndarray], behind: np.ndarray) -> dict[str, Any]:
    """Estimates of AUC and of the TPRs that are told; None for a rate with too few false positives behind it."""
    found: dict[str, Any] = {}
    for name, rows in measured.items():
        found[name] = {"auc": asdict(jackknife(float(rows[0, 0]), rows[1:, 0]))}
        for called, fpr in TOLD.items():
            place = int(np.flatnonzero(fpr == RATES)[0])
            enough = behind[place] >= FEWEST_FALSE_POSITIVES
            estimate = jackknife(float(rows[0, 1 + place]), rows[1:, 1 + place])
            found[name][called] = asdict(estimate) if enough else None
    return found


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
