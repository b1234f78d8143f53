"""The headline figures of one method: the student beside its teacher and beside the no-KD student."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdleak.core.files import read_csv, read_json, read_parquet, replacing_file, write_csv, write_json
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.defend.record import defence_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.stats import AucDifference

#: What the templates in .dvc/plots colour by.
_NAMES = {"teacher": "teacher", "student": "student", "no_kd": "no-KD student"}


def write_headline(params: Params, project: Project) -> None:
    """Write results/metrics.json, the dozen figures by which experiments are compared; roc.csv, roc.svg, training.csv.

    The most telling figures come first: `dvc exp show` drops the last columns where a terminal is too narrow.
    """
    method, attack = params.kd.method, params.report.headline
    reports = {who: read_json(project.membership(name)) for who, name in _models(method).items()}
    student = reports["student"]["attacks"][attack]
    low, high = student["auc_ci95"]
    utility, accuracy = (read_json(path(method)) for path in (project.utility, project.memorization))
    metrics = {
        "method": method,
        "student_auc": student["auc"],
        "no_kd_auc": reports["no_kd"]["attacks"][attack]["auc"],
        "excess": round(_excess(method, attack, project).value, 6),
        "teacher_auc": reports["teacher"]["attacks"][attack]["auc"],
        "perplexity": utility["perplexity"],
        "student_auc_low": low,
        "student_auc_high": high,
        "tpr_at_1pct_fpr": student["tpr_at_fpr"]["0.01"],
        "rouge_l": utility["rouge_l"],
        "token_accuracy_gap": accuracy["token_accuracy"]["gap"],
        "best_attack": best_attack(reports["student"]),
        **_defended(method, project),
    }
    _draw(method, attack, reports, project)
    _write_training(method, project)
    write_json(metrics, project.metrics, sort_keys=False)


def _defended(method: str, project: Project) -> dict[str, Any]:
    """Name and ε of the defence that the student was made under; nothing where there was none."""
    defence = defence_of(method, project)
    if defence is None:
        return {}
    return {"defence": defence["name"]} | {key: defence[key] for key in ("epsilon",) if key in defence}


def best_attack(report: Mapping[str, Any]) -> str:
    """The outsider's attack with the highest AUC in a membership.json; an auditor's own is not among them."""
    from kdleak.attacks import is_auditors

    outsiders = {n: a["auc"] for n, a in report["attacks"].items() if not is_auditors(n) and a["auc"] is not None}
    return max(outsiders, key=lambda name: (outsiders[name], name), default=report["best_attack"])


def best_tpr(report: Mapping[str, Any]) -> str:
    """The outsider's attack with the highest TPR at 1 % FPR in a membership.json; on equal ones, the higher AUC."""
    from kdleak.attacks import is_auditors

    found = {n: (a["tpr_at_fpr"]["0.01"], a["auc"], n) for n, a in report["attacks"].items() if not is_auditors(n)}
    known = {name: figures for name, figures in found.items() if None not in figures}
    return max(known, key=lambda name: known[name], default=report["best_attack"])


def _models(method: str) -> dict[str, str]:
    return {"teacher": TEACHER, "student": method, "no_kd": BASELINE}


def _write_training(method: str, project: Project) -> None:
    """results/training.csv: model, step, loss of each epoch. Losses of different objectives do not compare."""
    import pandas as pd

    histories = {who: read_json(project.training(name))["history"] for who, name in _models(method).items()}
    rows = [(_NAMES[who], e["step"], e["loss"]) for who, history in histories.items() for e in history]
    write_csv(pd.DataFrame(rows, columns=["model", "step", "loss"]).round(6), project.training_table)


def _draw(method: str, attack: str, reports: dict[str, Any], project: Project) -> None:
    """The ROC curves of the three models by one attack, for `dvc plots` and as a figure."""
    import pandas as pd

    from kdleak.render.charts import WIDE
    from kdleak.render.roc import roc
    from kdleak.render.svg import by_itself

    tables = {who: read_csv(project.roc(name)) for who, name in _models(method).items()}
    curves = {who: table.loc[table["attack"] == attack] for who, table in tables.items()}
    points = [curve[["fpr", "tpr"]].assign(model=_NAMES[who]) for who, curve in curves.items()]
    write_csv(pd.concat(points)[["model", "fpr", "tpr"]], project.roc_table)

    def label(who: str, title: str) -> str:
        figures = reports[who]["attacks"][attack]
        low, high = figures["auc_ci95"]
        return f"{title}: AUC {figures['auc']:.2f} [{low:.2f}, {high:.2f}]"

    titles = {"teacher": "teacher", "student": f"student, {method}", "no_kd": "no-KD student"}
    models = _models(method)
    labels = {models[who]: label(who, title) for who, title in titles.items()}
    drawn = roc(
        {models[who]: (curve["fpr"].to_numpy(), curve["tpr"].to_numpy()) for who, curve in curves.items()},
        1 / reports["student"]["n_nonmembers"],
        title=f"Who was in the teacher's private data? Attack: {attack}",
        labels=labels,
        width=WIDE,
    )
    with replacing_file(project.roc_figure) as fresh:
        fresh.write_text(by_itself(drawn), encoding="utf-8")


def _excess(method: str, attack: str, project: Project) -> AucDifference:
    """How far the student's AUC lies above the no-KD student's, on the same records (paired DeLong)."""
    from kdleak.stats import auc_difference

    keys = ["record_id", "role", "task"]
    student, baseline = (read_parquet(project.scores(name))[[*keys, attack]] for name in (method, BASELINE))
    both = student.merge(baseline, on=keys, suffixes=("", "_no_kd"))
    both = both.dropna(subset=[attack, f"{attack}_no_kd"])
    member = both["role"] == "private"
    first, second = (
        (both.loc[member, column].to_numpy(), both.loc[~member, column].to_numpy())
        for column in (attack, f"{attack}_no_kd")
    )
    return auc_difference(first, second)
