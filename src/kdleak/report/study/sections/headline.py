"""What leaked: each model's leak by the headline attack, beside what chance and no distillation give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.attacks import is_auditors
from kdleak.auditing.comparisons import between_techniques
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.data.sides import as_sides
from kdleak.render import charts
from kdleak.render.blocks import Absent, Block, Chart, Code, Details, Paragraph, Table
from kdleak.render.charts import Estimate
from kdleak.render.palette import label
from kdleak.render.wording import listed, number, p_value, percent, signed, with_interval
from kdleak.report.headline import best_attack
from kdleak.report.study.sections import Content, section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from kdleak.report.study.results import Study
    from kdleak.report.study.sections import Report


@section("What leaked", order=10)
def what_leaked(report: Report) -> Content:
    study = report.study
    names = [name for name in study.with_("membership") if study.auc(name)]
    order = sorted(names, key=lambda name: (name not in (TEACHER, BASELINE), -(study.auc(name)["auc"] or 0)))
    dots = charts.dots(
        order, {"AUC": [estimate(study.auc(name)) for name in order]}, xlabel=f"AUC of {study.attack}",
        reference=0.5, group_label=label, legend=False,
    )  # fmt: skip
    caption = (
        f"AUC of {study.attack} with its 95 % interval (DeLong); the dotted line is chance. Filled marks are the "
        "paper's techniques, hollow ones objectives alone."
    )
    rows = [_row(study, name) for name in order]
    header = (
        "model",
        f"AUC, {study.attack}",
        "above no-KD student",
        "best attack",
        "its AUC",
        "TPR at 1 % FPR",
        "ε at least",
    )
    words = Paragraph(
        "AUC: the chance that a random member scores above a random record that nobody saw. TPR at 1 % FPR: the "
        "share of members found when one non-member in a hundred is accused. ε: a training procedure of which these "
        "records are independent trials has a differential privacy parameter of at least that (nats, 95 %); one model "
        "is one outcome of its procedure, and records of a fixed split are no independent trials."
    )
    blocks = [Chart(dots, caption), Table(header, rows), words, *_auditors(study, order), _pairs(study)]
    return Content(blocks, _span(study), gist(study))


def _auditors(study: Study, names: Sequence[str]) -> list[Block]:
    """The attacks that only an auditor can run, by themselves."""
    attacks = [a for a in study.params.audit.attacks if is_auditors(a) and any(study.auc(n, a) for n in names)]
    rows = [
        [label(name), *(with_interval(f["auc"], f["auc_ci95"]) if f else "" for f in figures)]
        for name in names
        if any(figures := [study.auc(name, attack) for attack in attacks])
    ]
    words = (
        "The auditor's own attacks need the teacher or its private records: no outsider has them, no best attack is "
    )
    words += "one of them, and no claim is judged by them."
    return [Paragraph(words), Table(("model", *(f"AUC, {attack}" for attack in attacks)), rows)] if rows else []


def estimate(figures: Mapping[str, Any] | None) -> Estimate:
    """An attack's AUC and its interval."""
    return Estimate(figures["auc"], figures["auc_ci95"]) if figures else Estimate(None)


def excess(study: Study, name: str, attack: str | None = None) -> Mapping[str, Any] | None:
    """How far a student's AUC lies above the no-KD student's: difference, ci95, p_holm."""
    membership = study.models[name].membership or {}
    no_kd = membership.get("controls", {}).get("no_kd", {}).get(attack or study.attack)
    return no_kd["excess"] if no_kd else None


def gist(study: Study) -> str:
    """The answer in one sentence."""
    above = {name: found for name in study.techniques if (found := excess(study, name))}
    leaking = [name for name, e in above.items() if e["difference"] > 0 and (e["p_holm"] or 0) < 0.05]
    if not above:
        return "Only the teacher and the no-KD student have been attacked so far."
    return (
        f"No student saw a private record, yet {len(leaking)} of {len(above)} leak which records the teacher was "
        "trained on, more than the no-KD student does."
    )


def _span(study: Study) -> str:
    """From the technique that leaks most to the one that leaks least."""
    if not study.techniques:
        return gist(study)
    order = sorted(study.techniques, key=lambda name: -(study.auc(name)["auc"] or 0))
    parts = [f"{label(name)} leaks {how} (AUC {number(study.auc(name)['auc'])})" for name, how in
            ((order[0], "most"), (order[-1], "least"))]  # fmt: skip
    teacher = study.auc(TEACHER)
    of_teacher = f" The teacher itself: {number(teacher['auc'])}." if teacher else ""
    return f"{listed(parts[: len(order)])}; chance is .5.{of_teacher}"


def _row(study: Study, name: str) -> list[str | Code]:
    membership, figures = study.models[name].membership, study.auc(name)
    best, over = best_attack(membership), excess(study, name)
    return [
        label(name),
        with_interval(figures["auc"], figures["auc_ci95"]),
        with_interval(over["difference"], over["ci95"], sign=True) if over else "",
        Code(best),
        with_interval(membership["attacks"][best]["auc"], membership["attacks"][best]["auc_ci95"]),
        _rate(figures),
        number(figures["epsilon_lower"], 2),
    ]


def _rate(figures: Mapping[str, Any]) -> str:
    ends = figures["tpr_ci95"]["0.01"]
    return f"{percent(figures['tpr_at_fpr']['0.01'])} [{percent(ends[0])}, {percent(ends[1])}]" if ends else ""


def _pairs(study: Study) -> Block:
    """Every pair of techniques, folded away."""
    tables = {n: t for n in study.techniques if (t := study.models[n].scores) is not None and study.attack in t}
    scores = study.grouped(tables)
    if len(scores) < 2:
        return Absent("Techniques are compared pair by pair once two of them have been attacked.")
    first = next(iter(scores.values()))
    groups = dict(zip(first["record_id"], first["group_id"].astype(str), strict=True)) if "group_id" in first else None
    pairs = between_techniques({name: as_sides(table) for name, table in scores.items()}, study.attack, groups)
    pairs.sort(key=lambda pair: (pair["p_holm"], -abs(pair["difference"])))
    apart = [pair for pair in pairs if pair["p_holm"] < 0.05]
    rows = [
        [f"{label(pair['first'])} – {label(pair['second'])}", signed(pair["difference"]),
         with_interval(None, pair["ci95"], sign=True).removeprefix("– "), p_value(pair["p_holm"])]
        for pair in pairs
    ]  # fmt: skip
    shown = Table(("pair", "difference", "95 % interval", "Holm-corrected"), rows)
    return Details(
        f"{len(apart)} of {len(pairs)} pairs of techniques can be told apart by {study.attack}: every pair", shown
    )
