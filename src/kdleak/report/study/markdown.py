"""docs/results.md: the study's figures as Markdown, from the result files alone: no figure is copied by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.attacks import is_auditors
from kdleak.core.files import read_json, replacing_file
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.render.palette import label
from kdleak.render.wording import number, percent, with_interval
from kdleak.report.headline import best_attack
from kdleak.report.study.results import read_study
from kdleak.report.study.sections.headline import excess

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.report.study.results import Study


def write_markdown(params: Params, project: Project, path: Path) -> None:
    """Write `results_markdown` to `path`."""
    with replacing_file(path) as fresh:
        fresh.write_text(results_markdown(params, project), encoding="utf-8")


def results_markdown(params: Params, project: Project) -> str:
    """Every attack on kd.method's student, every technique by the headline attack, and the verdicts on the claims.

    Of the JSON files in results/; what is not there is left out. KdleakError where no model has been attacked.
    """
    study = read_study(params, project)
    sizes = params.data.sizes
    parts = [
        "# Results",
        "Made from the files in `results/` by `kdleak report --markdown docs/results.md`; not to be edited by hand.",
        f"{params.model.family}, student {params.model.student}, {params.data.source} records: {sizes.private} "
        f"members, {sizes.heldout} non-members; seed {params.seed}. Brackets are 95 % intervals over records.",
        *_attacks(study),
        *_techniques(study),
        *(_claims(read_json(project.findings)) if project.findings.is_file() else []),
    ]
    return "\n\n".join(parts) + "\n"


def _attacks(study: Study) -> list[str]:
    names = study.with_("membership", [TEACHER, study.params.kd.method, BASELINE])
    run = [attack for attack in study.params.audit.attacks if any(study.auc(name, attack) for name in names)]
    header = ["attack", *(label(name) for name in names)]
    outsiders, auditors = (
        [[f"`{a}`", *(_auc(study, name, a) for name in names)] for a in run if is_auditors(a) == auditor]
        for auditor in (False, True)
    )
    drawn = "![ROC curves of the headline attack](../results/roc.svg)"
    title = f"## AUC of every attack: {label(study.params.kd.method)} beside its teacher and the no-KD student"
    parts = [title, drawn, _table(header, outsiders)]
    if auditors:
        parts += ["The auditor's own attacks, which no outsider has and which are nobody's best:"]
        parts += [_table(header, auditors)]
    return parts


def _techniques(study: Study) -> list[str]:
    """Teacher and no-KD student first, then the techniques by falling AUC of the headline attack."""
    names = [name for name in study.with_("membership") if study.auc(name)]
    order = sorted(names, key=lambda name: (name not in (TEACHER, BASELINE), -(study.auc(name)["auc"] or 0)))
    header = ["model", f"AUC of `{study.attack}`", "above no-KD student", "TPR at 1 % FPR", "best attack", "its AUC"]
    header += ["held-out perplexity", "ROUGE-L", "token accuracy, members − non-members"]
    drawn = "![AUC of every attack on every model](../results/heatmap.svg)"
    return ["## Every technique", drawn, _table(header, [_technique(study, name) for name in order])]


def _technique(study: Study, name: str) -> list[str]:
    model, figures, over = study.models[name], study.auc(name), excess(study, name)
    best = best_attack(model.membership)
    useful, accuracy = model.utility or {}, (model.memorization or {}).get("token_accuracy", {})
    return [
        label(name),
        _auc(study, name, study.attack),
        with_interval(over["difference"], over["ci95"], sign=True) if over else "",
        percent(figures["tpr_at_fpr"]["0.01"]),
        f"`{best}`",
        _auc(study, name, best),
        number(useful.get("perplexity"), 1),
        number(useful.get("rouge_l")),
        with_interval(accuracy.get("gap"), accuracy.get("gap_ci95"), sign=True),
    ]


def _claims(findings: dict) -> list[str]:
    rows = [
        [each["claim"], each["says"], each["verdict"], " ".join(filter(None, [each["answer"], each["caveat"]])),
         "; ".join(each["conditional_on"])]
        for each in findings["findings"]
    ]  # fmt: skip
    return ["## The paper's claims", _table(["", "claim", "here", "result", "conditional on"], rows)]


def _auc(study: Study, name: str, attack: str) -> str:
    figures = study.auc(name, attack)
    return with_interval(figures["auc"], figures["auc_ci95"]) if figures else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
