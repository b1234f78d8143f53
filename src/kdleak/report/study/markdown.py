"""docs/results.md: the study's figures as Markdown, from the tables that git keeps: no figure is copied by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.attacks import is_auditors
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_csv, read_json, replacing_file
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.render.palette import label
from kdleak.render.wording import UNKNOWN, number, percent, with_interval

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


@dataclass(frozen=True)
class Tables:
    """attacks.csv by model and attack, and models.csv by model."""

    attacks: pd.DataFrame
    models: pd.DataFrame

    @classmethod
    def read(cls, project: Project) -> Tables:
        if not project.attacks_table.is_file():
            raise KdleakError(f"{project.attacks_table}: no such file; 'dvc repro -P' writes it")
        attacks = read_csv(project.attacks_table).set_index(["method", "attack"])
        return cls(attacks, read_csv(project.models_table).set_index("method"))

    def auc(self, name: str, attack: str) -> str:
        """AUC and its interval; "" where the model was not attacked by that."""
        if (name, attack) not in self.attacks.index:
            return ""
        row = self.attacks.loc[(name, attack)]
        return with_interval(row["auc"], (row["auc_low"], row["auc_high"]))

    def excess(self, name: str, attack: str) -> str:
        """How far the student's AUC lies above the no-KD student's; "" of what is no student."""
        row = self.attacks.loc[(name, attack)]
        shown = with_interval(row["excess"], (row["excess_low"], row["excess_high"]), sign=True)
        return "" if shown == UNKNOWN else shown


def write_markdown(params: Params, project: Project, path: Path) -> None:
    """Write `results_markdown` to `path`."""
    with replacing_file(path) as fresh:
        fresh.write_text(results_markdown(params, project), encoding="utf-8")


def results_markdown(params: Params, project: Project) -> str:
    """Every attack on kd.method's student, every technique by the headline attack, and the verdicts on the claims.

    Of attacks.csv, models.csv and findings.json in results/. KdleakError where they are not there.
    """
    tables = Tables.read(project)
    sizes = params.data.sizes
    parts = [
        "# Results",
        "Made from the files in `results/` by `kdleak report --markdown docs/results.md`; not to be edited by hand.",
        f"{params.model.family}, student {params.model.student}, {params.data.source} records: {sizes.private} "
        f"members, {sizes.heldout} non-members; seed {params.seed}. Brackets are 95 % intervals over records.",
        *_attacks(tables, params),
        *_techniques(tables, params.report.headline),
        *_claims(read_json(project.findings)),
    ]
    return "\n\n".join(parts) + "\n"


def _attacks(tables: Tables, params: Params) -> list[str]:
    names = [name for name in (TEACHER, params.kd.method, BASELINE) if name in tables.models.index]
    run = [a for a in params.audit.attacks if any((name, a) in tables.attacks.index for name in names)]
    header = ["attack", *(label(name) for name in names)]
    outsiders, auditors = (
        [[f"`{a}`", *(tables.auc(name, a) for name in names)] for a in run if is_auditors(a) == auditor]
        for auditor in (False, True)
    )
    drawn = "![ROC curves of the headline attack](../results/roc.svg)"
    title = f"## AUC of every attack: {label(params.kd.method)} beside its teacher and the no-KD student"
    parts = [title, drawn, _table(header, outsiders)]
    if auditors:
        parts += ["The auditor's own attacks, which no outsider has and which are nobody's best:"]
        parts += [_table(header, auditors)]
    return parts


def _techniques(tables: Tables, attack: str) -> list[str]:
    """Teacher and no-KD student first, then the techniques by falling AUC of the headline attack."""
    leak = tables.attacks.xs(attack, level="attack")["auc"]
    order = sorted(leak.index, key=lambda name: (name not in (TEACHER, BASELINE), -leak[name]))
    header = ["model", f"AUC of `{attack}`", "above no-KD student", "TPR at 1 % FPR", "best attack", "its AUC"]
    header += ["held-out perplexity", "ROUGE-L", "token accuracy, members − non-members"]
    drawn = "![AUC of every attack on every model](../results/heatmap.svg)"
    return ["## Every technique", drawn, _table(header, [_technique(tables, attack, name) for name in order])]


def _technique(tables: Tables, attack: str, name: str) -> list[str]:
    model, gap = tables.models.loc[name], "token_accuracy_gap"
    return [
        label(name),
        tables.auc(name, attack),
        tables.excess(name, attack),
        percent(tables.attacks.loc[(name, attack)]["tpr_at_1pct_fpr"]),
        f"`{model['best_attack']}`",
        tables.auc(name, model["best_attack"]),
        number(model["perplexity"], 1),
        number(model["rouge_l"]),
        with_interval(model[gap], (model[f"{gap}_low"], model[f"{gap}_high"]), sign=True),
    ]


def _claims(findings: dict) -> list[str]:
    rows = [
        [each["claim"], each["says"], each["verdict"], " ".join(filter(None, [each["answer"], each["caveat"]])),
         "; ".join(each["conditional_on"])]
        for each in findings["findings"]
    ]  # fmt: skip
    return ["## The paper's claims", _table(["", "claim", "here", "result", "conditional on"], rows)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
