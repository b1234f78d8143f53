"""`kdleak results`: the figures of one technique, teacher beside student beside the no-KD student; then the others.

Read from each model's own result files, which a clone of the repository holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kdleak.attacks import is_auditors
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json
from kdleak.core.variants import BASELINE, TEACHER, Variant
from kdleak.pipeline.provenance import Provenance
from kdleak.render.wording import COUNTS, with_interval
from kdleak.report.beside import Figure, attacked, best, figures_of, print_beside, realised

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def results_table(params: Params, project: Project) -> pd.DataFrame:
    """Long: model (teacher, student, no_kd; technique, of the others' default runs; run, of those beside a default
    one), method, run, measure, attack, value, low, high.

    Raises KdleakError where the results are not those of params.yaml, or of one run.
    """
    import pandas as pd

    read_json(project.metrics)  # the last file of a run: without it, or damaged, there is no run to show
    if (changed := Provenance(project).outdated(project.metrics, params)) is not None:
        raise KdleakError(f"{project.metrics}: made before {changed} changed; run 'dvc repro'")
    models = {"teacher": TEACHER, "student": params.kd.method, "no_kd": BASELINE}
    rows = [
        (model, name, "", *figure)
        for figures in (_membership, _beside_membership, _realised)
        for model, name in models.items()
        for figure in figures(name, project)
    ]
    rows += [
        ("run" if run.name else "technique", run.method, run.name, *figure)
        for run in attacked(params, project)
        if run != Variant(params.kd.method)
        for figure in figures_of(run, project)
    ]
    return pd.DataFrame(rows, columns=["model", "method", "run", "measure", "attack", "value", "low", "high"])


def print_results(params: Params, project: Project) -> None:
    """Measures down, models across, each figure with its interval; at most 80 columns wide."""
    from rich.console import Console

    table = results_table(params, project)
    table = table[~table["model"].isin(["technique", "run"])]
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
    print_beside(params, project, console)


def _membership(name: str, project: Project) -> Iterator[Figure]:
    path = project.membership(name)
    report = read_json(path)
    attacks = report["attacks"]
    if not isinstance(attacks, dict) or not all(isinstance(figures, dict) for figures in attacks.values()):
        raise KdleakError(f"{path}: damaged (attacks holds no figures); delete it and run 'dvc repro'")
    for attack, figures in attacks.items():
        yield f"auc {attack}", attack, figures["auc"], *figures["auc_ci95"]
    yield best(report)


def _beside_membership(name: str, project: Project) -> Iterator[Figure]:
    yield from _memorization(read_json(project.memorization(name)))
    blocks, utility = read_json(project.blocks(name))["blocks"], read_json(project.utility(name))
    exposed = max(blocks, key=lambda block: block["auc"])
    yield "exposed block", None, exposed["index"], None, None
    yield "block's auc", None, exposed["auc"], *exposed["auc_ci95"]
    yield "perplexity", None, utility["perplexity"], None, None
    yield "rouge_l", None, utility["rouge_l"], *utility["rouge_l_ci95"]


def _realised(name: str, project: Project) -> Iterator[Figure]:
    for measure, value in realised(Variant(name), project).items():
        yield measure, None, value, None, None


def _memorization(report: Mapping[str, Any]) -> Iterator[Figure]:
    accuracy, extraction = report["token_accuracy"], report["extraction"]
    pairs = {"accuracy": accuracy, "copied": report["reproduced"]}
    if "facts" in extraction:
        pairs["facts"] = extraction["facts"]["all"]
    for label, figures in pairs.items():
        yield f"{label}, members", None, figures["members"], None, None
        yield f"{label}, others", None, figures["nonmembers"], None, None
    canaries = (extraction.get("canaries") or {}).get("repetitions", {})
    yield "memorization gap", None, accuracy["gap"], *accuracy["gap_ci95"]
    for times, level in sorted(canaries.items(), key=lambda level: int(level[0])):
        yield f"exposure, {times}x", None, level["exposure"], None, None


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
