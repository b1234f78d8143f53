"""`kdleak results`: the figures of one technique, teacher beside student beside the no-KD student.

Read from each model's own result files, which a clone of the repository holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kdleak.attacks import is_auditors
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.pipeline.provenance import Provenance
from kdleak.render.wording import COUNTS, REALISED, with_interval

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

#: measure, value, low and high end of its 95 % interval where it has one
_Figure = tuple[str, float | None, float | None, float | None]


def results_table(params: Params, project: Project) -> pd.DataFrame:
    """Long: model (teacher, student, no_kd), method, measure, value, low, high.

    Raises KdleakError where the results are not those of params.yaml, or of one run.
    """
    import pandas as pd

    read_json(project.metrics)  # the last file of a run: without it, or damaged, there is no run to show
    if (changed := Provenance(project).outdated(project.metrics, params)) is not None:
        raise KdleakError(f"{project.metrics}: made before {changed} changed; run 'dvc repro'")
    models = {"teacher": TEACHER, "student": params.kd.method, "no_kd": BASELINE}
    rows = [
        {"model": model, "method": name, "measure": measure, "value": value, "low": low, "high": high}
        for figures in (_membership, _beside_membership, _realised)
        for model, name in models.items()
        for measure, value, low, high in figures(name, project)
    ]
    return pd.DataFrame(rows)


def print_results(params: Params, project: Project) -> None:
    """Measures down, models across, each figure with its interval; at most 80 columns wide."""
    from rich.console import Console

    table = results_table(params, project)
    report, console = read_json(project.membership(params.kd.method)), Console()
    attacks = table["measure"].str.startswith("auc ")
    auditors = table["measure"].str.removeprefix("auc ").map(is_auditors) & attacks
    n, m = report["n_members"], report["n_nonmembers"]
    console.print(f"Membership of the teacher's private records, {n} members and {m} non-members:\nAUC [95 % interval]")
    console.print(_shown(table[attacks & ~auditors], params.kd.method, prefix="auc "))
    if auditors.any():
        console.print("The auditor's own attacks, which no outsider has:")
        console.print(_shown(table[auditors], params.kd.method, prefix="auc "))
    excess = report["controls"]["no_kd"][params.report.headline]["excess"]
    above = with_interval(excess["difference"], excess["ci95"], sign=True)
    console.print(
        f"By '{params.report.headline}' the {params.kd.method} student lies {above} above the no-KD student; "
        "an AUC of .5 is chance.\n"
    )
    console.print(
        "Memorization and utility. accuracy: share of the first greedy tokens that are right, and its gap; "
        "copied: share of whole responses; facts: of private facts; exposure of canaries in bits"
    )
    console.print(_shown(table[~attacks], params.kd.method))


def _membership(name: str, project: Project) -> Iterator[_Figure]:
    path = project.membership(name)
    attacks = read_json(path)["attacks"]
    if not isinstance(attacks, dict) or not all(isinstance(figures, dict) for figures in attacks.values()):
        raise KdleakError(f"{path}: damaged (attacks holds no figures); delete it and run 'dvc repro'")
    for attack, figures in attacks.items():
        yield f"auc {attack}", figures["auc"], *figures["auc_ci95"]


def _beside_membership(name: str, project: Project) -> Iterator[_Figure]:
    yield from _memorization(read_json(project.memorization(name)))
    blocks, utility = read_json(project.blocks(name))["blocks"], read_json(project.utility(name))
    exposed = max(blocks, key=lambda block: block["auc"])
    yield "exposed block", exposed["index"], None, None
    yield "block's auc", exposed["auc"], *exposed["auc_ci95"]
    yield "perplexity", utility["perplexity"], None, None
    yield "rouge_l", utility["rouge_l"], *utility["rouge_l_ci95"]


def _realised(name: str, project: Project) -> Iterator[_Figure]:
    """What the technique came to, of a model that wrote text of its own."""
    path = project.training(name)
    realised = (read_json(path).get("realised") or {}) if path.is_file() else {}
    for key, words in REALISED.items():
        if realised.get(key) is not None:
            yield words, realised[key], None, None


def _memorization(report: Mapping[str, Any]) -> Iterator[_Figure]:
    accuracy, extraction = report["token_accuracy"], report["extraction"]
    pairs = {"accuracy": accuracy, "copied": report["reproduced"]}
    if "facts" in extraction:
        pairs["facts"] = extraction["facts"]["all"]
    for label, figures in pairs.items():
        yield f"{label}, members", figures["members"], None, None
        yield f"{label}, others", figures["nonmembers"], None, None
    canaries = (extraction.get("canaries") or {}).get("repetitions", {})
    yield "memorization gap", accuracy["gap"], *accuracy["gap_ci95"]
    for times, level in sorted(canaries.items(), key=lambda level: int(level[0])):
        yield f"exposure, {times}x", level["exposure"], None, None


def _shown(table: pd.DataFrame, method: str, prefix: str = "") -> Table:
    """Measures down, models across."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(
        "attack" if prefix else "measure", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True
    )
    titles = {"teacher": "teacher", "student": f"student, {method}", "no_kd": "no-KD student"}
    for title in titles.values():
        shown.add_column(title, justify="right", no_wrap=True)
    by_model = {model: table[table["model"] == model].set_index("measure") for model in titles}
    for measure in dict.fromkeys(table.sort_values("model", key=lambda m: m != "student", kind="stable")["measure"]):
        rows = (by_model[model].reindex([measure]).iloc[0] for model in titles)
        shown.add_row(measure.removeprefix(prefix), *(_cell(measure, row) for row in rows))
    return shown


def _cell(measure: str, figure: pd.Series) -> str:
    digits = 0 if measure in ("exposed block", *COUNTS) else 1 if measure.startswith(("perplexity", "exposure")) else 3
    return with_interval(figure["value"], (figure["low"], figure["high"]), digits)
