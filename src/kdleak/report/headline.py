"""The headline figures of one technique: the student beside its teacher and beside the student without a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdleak.core.files import read_csv, read_json, read_parquet, write_json
from kdleak.core.paths import BASELINE, TEACHER

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def write_headline(params: Params, project: Project) -> None:
    """Write results/metrics.json, flat: the figures by which experiments are compared; and results/roc.svg."""
    method = params.kd.method
    names = {"teacher": TEACHER, "student": method, "no_kd": BASELINE}
    reports = {who: read_json(project.membership(name)) for who, name in names.items()}
    metrics: dict[str, Any] = {"method": method, "headline_attack": params.audit.headline}
    for who, report in reports.items():
        headline = report["attacks"][params.audit.headline]
        best = report["best_attack"]
        metrics |= {
            f"{who}_auc": headline["auc"],
            f"{who}_auc_low": headline["auc_ci95"][0],
            f"{who}_auc_high": headline["auc_ci95"][1],
            f"{who}_tpr_at_1pct_fpr": headline["tpr_at_fpr"]["0.01"],
            f"{who}_best_attack": best,
            f"{who}_best_auc": report["attacks"][best]["auc"],
        }
        metrics |= {f"{who}_auc_{name}": attack["auc"] for name, attack in report["attacks"].items()}
    metrics |= _excess(method, params.audit.headline, project)
    for who, name in names.items():
        metrics |= {f"{who}_{key}": value for key, value in _beside_membership(name, project).items()}
    _draw(method, params.audit.headline, reports, project)
    write_json(metrics, project.metrics)


def _draw(method: str, attack: str, reports: dict[str, Any], project: Project) -> None:
    from kdleak.render.roc import roc_figure, write_svg

    def curve(name: str, who: str, title: str) -> tuple[str, pd.DataFrame]:
        low, high = reports[who]["attacks"][attack]["auc_ci95"]
        auc = reports[who]["attacks"][attack]["auc"]
        return f"{title}: AUC {auc:.2f} [{low:.2f}, {high:.2f}]", read_csv(project.roc(name))

    curves = {
        "teacher": curve(TEACHER, "teacher", "teacher"),
        "student": curve(method, "student", f"student, {method}"),
        "baseline": curve(BASELINE, "no_kd", "student without KD"),
    }
    write_svg(roc_figure(curves, attack, 1 / reports["student"]["n_nonmembers"]), project.roc_figure)


def _beside_membership(name: str, project: Project) -> dict[str, float | None]:
    """What a model is good for, what it gives back, and its most exposed block."""
    from kdleak.memorization.report import headline_figures

    utility, blocks = read_json(project.utility(name)), read_json(project.blocks(name))["blocks"]
    exposed = max(blocks, key=lambda block: block["auc"])
    return {
        "perplexity": utility["perplexity"],
        "rouge_l": utility["rouge_l"],
        **headline_figures(read_json(project.memorization(name))),
        "most_exposed_block": exposed["index"],
        "most_exposed_block_auc": exposed["auc"],
    }


def _excess(method: str, attack: str, project: Project) -> dict[str, float]:
    """How far the student's AUC lies above the No-KD student's, on the same records (paired DeLong)."""
    from kdleak.stats import auc_difference

    student, baseline = (read_parquet(project.scores(name)) for name in (method, BASELINE))
    both = student.merge(baseline, on=["record_id", "role", "task"], suffixes=("", "_no_kd"))
    both = both.dropna(subset=[attack, f"{attack}_no_kd"])
    member = both["role"] == "private"
    pair = [
        (both.loc[member, column].to_numpy(), both.loc[~member, column].to_numpy())
        for column in (attack, f"{attack}_no_kd")
    ]
    difference = auc_difference(*pair)
    return {
        "excess_auc": round(difference.value, 6),
        "excess_auc_low": round(difference.low, 6),
        "excess_auc_high": round(difference.high, 6),
    }
