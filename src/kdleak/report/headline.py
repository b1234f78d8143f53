"""The headline figures of one method: the student beside its teacher and beside the student without a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_csv, read_json, read_parquet, write_csv, write_json
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.pipeline.provenance import Provenance

if TYPE_CHECKING:
    from rich.table import Table

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.stats import AucDifference

#: Column titles of a table; the student's gets its method.
_TITLES = {"teacher": "teacher", "student": "student ({})", "no_kd": "student without KD"}


def write_headline(params: Params, project: Project) -> None:
    """Write results/metrics.json, the dozen figures by which experiments are compared; results/roc.csv and roc.svg.

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
        "excess_auc": round(_excess(method, attack, project).value, 6),
        "teacher_auc": reports["teacher"]["attacks"][attack]["auc"],
        "perplexity": utility["perplexity"],
        "student_auc_low": low,
        "student_auc_high": high,
        "tpr_at_1pct_fpr": student["tpr_at_fpr"]["0.01"],
        "rouge_l": utility["rouge_l"],
        "token_accuracy_gap": accuracy["token_accuracy"]["gap"],
        "best_attack": reports["student"]["best_attack"],
    }
    _draw(method, attack, reports, project)
    write_json(metrics, project.metrics, sort_keys=False)


def _models(method: str) -> dict[str, str]:
    return {"teacher": TEACHER, "student": method, "no_kd": BASELINE}


def _draw(method: str, attack: str, reports: dict[str, Any], project: Project) -> None:
    """The ROC curves of the three models by one attack, for `dvc plots` and as a figure."""
    import pandas as pd

    from kdleak.render.roc import roc_figure, write_svg

    tables = {who: read_csv(project.roc(name)) for who, name in _models(method).items()}
    curves = {who: table.loc[table["attack"] == attack] for who, table in tables.items()}
    names = {"teacher": "teacher", "student": "student", "no_kd": "no-KD student"}
    points = [curve[["fpr", "tpr"]].assign(model=names[who]) for who, curve in curves.items()]
    write_csv(pd.concat(points)[["model", "fpr", "tpr"]], project.roc_table)

    def label(who: str, title: str) -> str:
        figures = reports[who]["attacks"][attack]
        low, high = figures["auc_ci95"]
        return f"{title}: AUC {figures['auc']:.2f} [{low:.2f}, {high:.2f}]"

    titles = {"teacher": "teacher", "student": f"student, {method}", "no_kd": "student without KD"}
    roles = {"teacher": "teacher", "student": "student", "no_kd": "baseline"}
    shown = {roles[who]: (label(who, title), curves[who]) for who, title in titles.items()}
    write_svg(roc_figure(shown, attack, 1 / reports["student"]["n_nonmembers"]), project.roc_figure)


def _excess(method: str, attack: str, project: Project) -> AucDifference:
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
    return auc_difference(*pair)


def print_headline(params: Params, project: Project) -> None:
    """Print a table: attacks down, teacher, student and No-KD across, each AUC with its 95 % interval.

    Raises KdleakError where the results are not those of params.yaml, or of one run.
    """
    from rich.console import Console

    method, attack = params.kd.method, params.report.headline
    read_json(project.metrics)
    if (changed := Provenance(project).outdated(project.metrics, params)) is not None:
        raise KdleakError(f"{project.metrics}: made before {changed} changed; run 'dvc repro'")
    reports = {who: read_json(project.membership(name)) for who, name in _models(method).items()}
    n, m = reports["student"]["n_members"], reports["student"]["n_nonmembers"]
    title = f"Membership of the teacher's private records: AUC [95 % interval], {n} members, {m} non-members"
    table = _table(title, "attack", method)
    for name in reports["student"]["attacks"]:
        table.add_row(name, *(_cell(report["attacks"].get(name)) for report in reports.values()))
    console = Console(width=110)
    console.print(table)
    excess = _excess(method, attack, project)
    console.print(
        f"By '{attack}' the {method} student lies {excess.value:+.3f} [{excess.low:+.3f}, {excess.high:+.3f}] above "
        "the student without KD; an AUC of .5 is chance."
    )
    figures = {who: _beside_membership(name, project) for who, name in _models(method).items()}
    console.print(_memorization_table(method, figures))
    console.print(_other_figures(figures))


def _beside_membership(name: str, project: Project) -> dict[str, Any]:
    """What a model is good for, what it memorized, and its most exposed block."""
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


def _other_figures(figures: dict[str, dict[str, Any]]) -> str:
    """What the models are good for, and where in them the members show."""

    def line(template: str, *keys: str) -> str:
        return ", ".join(
            f"{_TITLES[who].removesuffix(' ({})')} {template.format(*(of[key] for key in keys))}"
            for who, of in figures.items()
        )

    return (
        f"Held-out perplexity: {line('{:.1f}', 'perplexity')}; ROUGE-L: {line('{:.2f}', 'rouge_l')}.\n"
        f"Most exposed block: {line('{} (AUC {:.3f})', 'most_exposed_block', 'most_exposed_block_auc')}."
    )


def _memorization_table(method: str, figures: dict[str, dict[str, Any]]) -> Table:
    """What each model gives back word for word: members beside non-members, and the canaries' exposure."""
    table = _table("Memorization: members / non-members, and the gap's 95 % interval", "figure", method)
    pairs = {
        "first tokens equal": "token_accuracy",
        "responses given back": "reproduced",
        "private facts given back": "facts_extracted",
    }
    for label, name in pairs.items():
        if f"{name}_members" in figures["student"]:
            table.add_row(label, *(_pair(of, name) for of in figures.values()))
    table.add_row("gap of first tokens", *(_interval(of, "token_accuracy_gap") for of in figures.values()))
    planted = [key.removeprefix("exposure_")[:-1] for key in figures["student"] if key.startswith("exposure_")]
    for times in sorted(planted, key=int):
        exposures = (of[f"exposure_{times}x"] for of in figures.values())
        table.add_row(f"canaries planted {times}x, bits", *(f"{bits:.1f}" for bits in exposures))
    return table


def _table(title: str, what: str, method: str) -> Table:
    from rich.table import Table

    table = Table(title=title)
    table.add_column(what)
    for name in _TITLES.values():
        table.add_column(name.format(method), justify="right")
    return table


def _pair(figures: dict[str, Any], name: str) -> str:
    values = (figures[f"{name}_{side}"] for side in ("members", "nonmembers"))
    return " / ".join("undefined" if value is None else f"{value:.3f}" for value in values)


def _interval(figures: dict[str, Any], name: str) -> str:
    gap, low, high = (figures[name], figures[f"{name}_low"], figures[f"{name}_high"])
    return "undefined" if low is None else f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]"


def _cell(attack: dict[str, Any] | None) -> str:
    if attack is None or attack["auc"] is None:
        return "undefined"
    low, high = attack["auc_ci95"]
    return f"{attack['auc']:.3f} [{low:.3f}, {high:.3f}]"
