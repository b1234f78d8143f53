"""The metrics of a run, from the result files of its stage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdleak.attacks import is_auditors

if TYPE_CHECKING:
    from kdleak.config.schema import Params

_NOT_IN_A_METRIC_NAME = re.compile(r"[^\w./ -]")


def attack_metrics(report: Mapping[str, Any], params: Params) -> dict[str, float]:
    """auc, its interval and TPR at each FPR of every attack; the headline attack's AUC for each task."""
    metrics: dict[str, Any] = {"n_members": report["n_members"], "n_nonmembers": report["n_nonmembers"]}
    for attack, figures in report["attacks"].items():
        low, high = figures["auc_ci95"]
        metrics |= {f"auc/{attack}": figures["auc"], f"auc_low/{attack}": low, f"auc_high/{attack}": high}
        metrics |= {f"tpr_at_{fpr}_fpr/{attack}": tpr for fpr, tpr in figures["tpr_at_fpr"].items()}
    for task, attacks in report["tasks"].items():
        name = _NOT_IN_A_METRIC_NAME.sub("_", task)
        metrics[f"auc_by_task/{name}"] = attacks[params.report.headline]["auc"]
    return known_figures(metrics)


def block_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """auc and its interval of every block."""
    metrics: dict[str, Any] = {"n_perturbations": report["n_perturbations"]}
    for block in report["blocks"]:
        name, (low, high) = f"block_{block['index']}", block["auc_ci95"]
        metrics |= {f"auc/{name}": block["auc"], f"auc_low/{name}": low, f"auc_high/{name}": high}
    return known_figures(metrics)


def realised_metrics(training: Mapping[str, Any]) -> dict[str, float]:
    """What a technique came to: shares of student-written and replayed text, rollout rounds, their age, threshold; and
    whether the mechanism that defines it ran (1 or 0)."""
    found = known_figures(training.get("realised") or {})
    if mechanism := training.get("mechanism"):
        found["mechanism_ran"] = float(mechanism["ran"])
    return {f"realised_{name}": value for name, value in found.items()}


def defence_metrics(training: Mapping[str, Any]) -> dict[str, float]:
    """ε and δ that a training under a defence has spent."""
    return known_figures({name: (training.get("defence") or {}).get(name) for name in ("epsilon", "delta")})


def headline_metrics(stage: str, metrics: Mapping[str, float], attack: str) -> dict[str, float]:
    """What the parent shows of its student, in columns that sort."""
    if stage == "blocks":
        return {name.replace("/", "_"): value for name, value in metrics.items() if name.startswith("auc/")}
    if stage in ("memorization", "utility"):
        return {name: value for name, value in metrics.items() if name != "records"}
    if stage != "membership":
        loss = {"train_loss": metrics["final_loss"]} if "final_loss" in metrics else {}
        return loss | {name: value for name, value in metrics.items() if name.startswith("realised_")}
    columns = {
        "auc": f"auc/{attack}",
        "auc_low": f"auc_low/{attack}",
        "auc_high": f"auc_high/{attack}",
        "tpr_at_1pct_fpr": f"tpr_at_0.01_fpr/{attack}",
    }
    shown = {column: metrics[name] for column, name in columns.items() if name in metrics}
    each = {name.removeprefix("auc/"): value for name, value in metrics.items() if name.startswith("auc/")}
    outsiders = [value for name, value in each.items() if not is_auditors(name)]
    return shown | {f"auc_{name}": v for name, v in each.items()} | ({"best_auc": max(outsiders)} if outsiders else {})


def flattened(sections: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in sections.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat


def known_figures(entries: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are known figures."""
    return {k: v for k, v in entries.items() if isinstance(v, int | float) and not isinstance(v, bool) and v == v}
