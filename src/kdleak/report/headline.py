"""The headline figures of one technique: the student beside its teacher and beside the no-KD student."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_csv, read_json, read_parquet, replacing_file, write_json
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.pipeline.provenance import Provenance

if TYPE_CHECKING:
    from rich.table import Table

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
    """Write results/roc.svg: the headline attack on the three models."""
    from kdleak.render.charts import WIDE
    from kdleak.render.roc import roc
    from kdleak.render.svg import by_itself

    labels, curves = {}, {}
    people = {
        "teacher": (TEACHER, "teacher"),
        "student": (method, f"student, {method}"),
        "no_kd": (BASELINE, "no-KD student"),
    }
    for who, (name, title) in people.items():
        figures = reports[who]["attacks"][attack]
        low, high = figures["auc_ci95"]
        labels[name] = f"{title}: AUC {figures['auc']:.2f} [{low:.2f}, {high:.2f}]"
        table = read_csv(project.roc(name))
        curve = table[table["attack"] == attack]
        curves[name] = (curve["fpr"].to_numpy(), curve["tpr"].to_numpy())
    title = f"Who was in the teacher's private data? Attack: {attack}"
    drawn = roc(curves, 1 / reports["student"]["n_nonmembers"], title=title, labels=labels, width=WIDE)
    with replacing_file(project.roc_figure) as fresh:
        fresh.write_text(by_itself(drawn), encoding="utf-8")


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
    """How far the student's AUC lies above the no-KD student's, on the same records (paired DeLong)."""
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


def print_headline(params: Params, project: Project) -> None:
    """Print a table: attacks down, teacher, student and no-KD student across, each AUC with its 95 % interval.

    Raises KdleakError where the results are not those of params.yaml, or of one run.
    """
    from rich.console import Console
    from rich.table import Table

    method, metrics = params.kd.method, read_json(project.metrics)
    if (changed := Provenance(project).outdated(project.metrics, params)) is not None:
        raise KdleakError(f"{project.metrics}: made before {changed} changed; run 'dvc repro'")
    reports = [read_json(project.membership(name)) for name in (TEACHER, method, BASELINE)]
    n, m = reports[1]["n_members"], reports[1]["n_nonmembers"]
    table = Table(
        title=f"Membership of the teacher's private records: AUC [95 % interval], {n} members, {m} non-members"
    )
    table.add_column("attack")
    for title in ("teacher", f"student ({method})", "no-KD student"):
        table.add_column(title, justify="right")
    for attack in reports[1]["attacks"]:
        table.add_row(attack, *(_cell(report["attacks"].get(attack)) for report in reports))
    console = Console(width=110)
    console.print(table)
    console.print(
        f"By '{metrics['headline_attack']}' the {method} student lies {metrics['excess_auc']:+.3f} "
        f"[{metrics['excess_auc_low']:+.3f}, {metrics['excess_auc_high']:+.3f}] above the no-KD student; "
        "an AUC of .5 is chance."
    )
    console.print(_memorization_table(method, metrics))
    console.print(_other_figures(metrics))


def _other_figures(metrics: dict[str, Any]) -> str:
    """What the models are good for, and where in them the members show."""
    people = {"teacher": "teacher", "student": "student", "no-KD student": "no_kd"}

    def line(template: str, *keys: str) -> str:
        return ", ".join(
            f"{title} {template.format(*(metrics[f'{who}_{key}'] for key in keys))}" for title, who in people.items()
        )

    return (
        f"Held-out perplexity: {line('{:.1f}', 'perplexity')}; ROUGE-L: {line('{:.2f}', 'rouge_l')}.\n"
        f"Most exposed block: {line('{} (AUC {:.3f})', 'most_exposed_block', 'most_exposed_block_auc')}."
    )


def _memorization_table(method: str, metrics: dict[str, Any]) -> Table:
    """Verbatim memorization of each model: members beside non-members, and the canaries' exposure."""
    from rich.table import Table

    table = Table(title="Memorization: members / non-members, and the gap's 95 % interval")
    table.add_column("figure")
    for title in ("teacher", f"student ({method})", "no-KD student"):
        table.add_column(title, justify="right")
    pairs = {
        "first tokens equal": "token_accuracy",
        "responses reproduced": "reproduced",
        "private facts extracted": "facts_extracted",
    }
    people = ("teacher", "student", "no_kd")
    for label, name in pairs.items():
        if f"student_{name}_members" in metrics:
            table.add_row(label, *(_pair(metrics, who, name) for who in people))
    table.add_row("gap of first tokens", *(_interval(metrics, f"{who}_token_accuracy_gap") for who in people))
    planted = [key.removeprefix("student_exposure_")[:-1] for key in metrics if key.startswith("student_exposure_")]
    for times in sorted(planted, key=int):
        exposures = (metrics[f"{who}_exposure_{times}x"] for who in people)
        table.add_row(f"canaries planted {times}x, bits", *(f"{bits:.1f}" for bits in exposures))
    return table


def _pair(metrics: dict[str, Any], who: str, name: str) -> str:
    values = (metrics[f"{who}_{name}_{side}"] for side in ("members", "nonmembers"))
    return " / ".join("undefined" if value is None else f"{value:.3f}" for value in values)


def _interval(metrics: dict[str, Any], name: str) -> str:
    gap, low, high = (metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"])
    return "undefined" if low is None else f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]"


def _cell(attack: dict[str, Any] | None) -> str:
    if attack is None or attack["auc"] is None:
        return "undefined"
    low, high = attack["auc_ci95"]
    return f"{attack['auc']:.3f} [{low:.3f}, {high:.3f}]"
