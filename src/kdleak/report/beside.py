"""`kdleak results` beside kd.method: the other techniques, both grids, what the LM corpus does, what did not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kdleak.core.files import read_json
from kdleak.core.variants import Variant
from kdleak.render.mechanism import mechanism_absent
from kdleak.render.palette import label
from kdleak.render.wording import REALISED, number, with_interval
from kdleak.report.headline import best_tpr

if TYPE_CHECKING:
    from rich.console import Console

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

#: measure, attack, value, low and high end of its 95 % interval where it has one
Figure = tuple[str, str | None, float | None, float | None, float | None]
#: Attacks whose AUC stands for a technique beside kd.method.
SHOWN = ("loss", "ez")


def attacked(params: Params, project: Project) -> list[Variant]:
    """The default run of every technique of the study, and the runs beside it, that have results."""
    runs = [*map(Variant, params.study.methods), *params.study.variants]
    return [run for run in runs if project.membership(run).is_file() and project.utility(run).is_file()]


def figures_of(run: Variant, project: Project) -> Iterator[Figure]:
    """A run in a dozen figures: leak, best TPR at 1 % FPR, utility, what the technique came to."""
    report, utility = read_json(project.membership(run)), read_json(project.utility(run))
    for attack in SHOWN:
        if figures := report["attacks"].get(attack):
            yield f"auc {attack}", attack, figures["auc"], *figures["auc_ci95"]
    yield best(report)
    yield "perplexity", None, utility["perplexity"], None, None
    yield "rouge_l", None, utility["rouge_l"], *utility["rouge_l_ci95"]
    for measure, value in realised(run, project).items():
        yield measure, None, value, None, None


def best(report: Mapping[str, Any]) -> Figure:
    """The highest TPR at 1 % FPR of an outsider's attack in a membership.json."""
    attack = best_tpr(report)
    figures = report["attacks"][attack]
    low, high = (figures.get("tpr_ci95") or {}).get("0.01") or (None, None)
    return "best tpr at 1 % fpr", attack, figures["tpr_at_fpr"]["0.01"], low, high


def realised(run: Variant, project: Project) -> dict[str, float]:
    """What the technique came to, by the words of a table; of a model that wrote no text of its own, nothing."""
    found = _training(run, project).get("realised") or {}
    return {words: found[key] for key, words in REALISED.items() if found.get(key) is not None}


def print_beside(params: Params, project: Project, console: Console) -> None:
    """Which techniques are none here; both grids side by side; the divergences with an LM loss and without."""
    runs = attacked(params, project)
    for run in runs:
        if why := mechanism_absent(run.method, _training(run, project)):
            console.print(f"{f'Run {run}: ' if run.name else ''}{why}.", highlight=False)
    paper = [run for run in runs if run.grid == "paper" and Variant(run.method) in runs]
    if paper:
        console.print(f"\nBoth grids, by '{params.report.headline}': AUC [95 % interval], held-out perplexity")
        console.print(_side_by_side(("controlled", "the papers'"), paper, params, project))
    corpus = [run for run in runs if run.lm_weight is not None and Variant(run.method) in runs]
    if corpus:
        console.print(f"\nWhat an LM loss on {params.kd.lm_corpus} does, by '{params.report.headline}'")
        console.print(_side_by_side(("without", "with"), corpus, params, project))


def _side_by_side(titles: tuple[str, str], runs: list[Variant], params: Params, project: Project) -> Any:
    """A row a run: the default run of its technique, and the run."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table("technique", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for title in titles:
        shown.add_column(title, justify="right", no_wrap=True)
        shown.add_column("perpl.", justify="right", no_wrap=True)
    for run in runs:
        name = label(run.method) + (f", {run.lm_weight:g}" if run.lm_weight is not None else "")
        shown.add_row(name, *(cell for each in (Variant(run.method), run) for cell in _leak(each, params, project)))
    return shown


def _leak(run: Variant, params: Params, project: Project) -> tuple[str, str]:
    figures = read_json(project.membership(run))["attacks"].get(params.report.headline, {})
    perplexity = read_json(project.utility(run))["perplexity"]
    return with_interval(figures.get("auc"), figures.get("auc_ci95")), number(perplexity, 1)


def _training(run: Variant, project: Project) -> dict[str, Any]:
    path = project.training(run)
    return read_json(path) if path.is_file() else {}
