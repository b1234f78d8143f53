"""The HTML page of an audit: the verdict first, then what it rests on, then what may mislead. Ids and numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.auditing.controls_page import controls_section
from kdleak.auditing.first_screen import first_screen
from kdleak.auditing.identifier_words import identifier_section
from kdleak.auditing.judgement import SWAPPED
from kdleak.auditing.list_words import list_section
from kdleak.auditing.membership import KEYS
from kdleak.core.version import __version__
from kdleak.data.sides import MEMBER
from kdleak.render.blocks import (
    Absent,
    Block,
    Bullets,
    Callout,
    Chart,
    Code,
    Details,
    Heading,
    Paragraph,
    SideBySide,
    Table,
)
from kdleak.render.charts import HALF, Estimate, dots
from kdleak.render.page import Page, Section
from kdleak.render.roc import roc
from kdleak.render.wording import UNKNOWN, interval, number, p_value, percent, with_interval
from kdleak.stats import roc_curve

if TYPE_CHECKING:
    import pandas as pd

#: Palette's names of the models beside the student, and what the page calls them.
_BESIDE = {"teacher": ("teacher", "teacher"), "no_kd": ("sft", "baseline")}
_RATES = ("0.25", "0.05", "0.01", "0.001", "0")


def report_page(figures: Mapping[str, Any], scores: pd.DataFrame, beside: Mapping[str, pd.DataFrame]) -> str:
    """The page of `figures` (audit.json). scores, beside: score tables of the student and of teacher and baseline."""
    inputs = figures["inputs"]
    records = inputs["records"]
    sections = [
        list_section(figures["list"]),
        _attacks(figures, scores, beside),
        _exposed(figures),
        _memorization(figures["memorization"]),
        *([identifier_section(figures["identifiers"])] if "identifiers" in figures else []),
        controls_section(figures["membership"]["controls"], records),
        _inputs(figures),
    ]
    subtitle = (
        f"{inputs['models']['student']['name']}: {records['members']} members, {records['nonmembers']} non-members"
    )
    footer = f"kdleak {__version__}; the page holds no text of any record."
    return Page("What this student leaks", sections, subtitle, first_screen(figures), footer).html()


def _attacks(figures: Mapping[str, Any], scores: pd.DataFrame, beside: Mapping[str, pd.DataFrame]) -> Section:
    report, strongest = figures["membership"], figures["verdict"]["strongest"]
    attacks = sorted(report["attacks"], key=lambda name: -(report["attacks"][name]["auc"] or 0.0))
    others = {who: areas for who, areas in report["beside"].items() if areas}
    series = {"student": [_estimate(report["attacks"][name]) for name in attacks]}
    series |= {_BESIDE[who][0]: [_estimate(areas.get(name)) for name in attacks] for who, areas in others.items()}
    curves = {"student": _curve(scores, strongest["attack"])}
    for who, other in beside.items():
        if who in _BESIDE and strongest["attack"] in other.columns:
            curves[_BESIDE[who][0]] = _curve(other, strongest["attack"])
    drawn = SideBySide(
        Chart(
            dots(attacks, series, xlabel="AUC (one half is chance)", reference=0.5, width=HALF),
            "How well each attack ranks members above non-members, with 95 % intervals.",
        ),
        Chart(
            roc(curves, 1 / max(1, strongest["nonmembers"])),
            f"Attack '{strongest['attack']}': members found at each rate of false accusations.",
        ),
    )
    header = ["attack", "AUC [95 % interval]", "Holm p", *(f"TPR at {100 * float(r):g} % FPR" for r in _RATES)]
    header += [f"AUC of the {_BESIDE[who][1]}" for who in others]
    rows = [
        [
            name,
            with_interval(attack["auc"], attack["auc_ci95"]),
            p_value(attack["p_holm"]).removeprefix("p ").removeprefix("= "),
            *(percent(attack["tpr_at_fpr"][rate]) for rate in _RATES),
            *(with_interval(*_area(areas.get(name))) for areas in others.values()),
        ]
        for name, attack in ((name, report["attacks"][name]) for name in attacks)
    ]
    blocks = [drawn, Table(header, rows)]
    blocks += [Callout(note) for note in report["notes"]]
    if figures["left_out"]:
        blocks += [Heading("Attacks that did not run"), Bullets(_reasons(figures["left_out"]))]
    lead = (
        "An attack scores each record; higher means member, and no figure is ever flipped. TPR at x % FPR is the share "
        "of members that it names while it accuses x % of the non-members."
    )
    return Section("Membership", blocks, lead)


def _exposed(figures: Mapping[str, Any]) -> Section:
    strongest, rows = figures["verdict"]["strongest"], figures["exposed"]
    title = "Most exposed records"
    if figures["verdict"]["kind"] == SWAPPED:
        return Section(title, [Absent("Not shown: the attacks rank the non-members higher.")])
    words = {True: "yes", False: "no", None: UNKNOWN}
    header = ["", "record", "where", "score", "non-members at or above", "reproduced", "attacks that agree"]
    cells = [
        [
            rank,
            Code(row["record_id"][:16]),
            row["place"],
            f"{row['score']:.4g}",
            f"{row['nonmembers_above']} of {strongest['nonmembers']}",
            words[row["reproduced"]],
            percent(row["agreeing"], 0),
        ]
        for rank, row in enumerate(rows, start=1)
    ]
    lead = (
        f"The {len(rows)} members that '{strongest['attack']}' ranks highest, and how many non-members an attacker "
        "would accuse to name each. Attacks that agree rank it above 95 % of the non-members: it is the record that "
        "stands out, and not one attack's taste; another training may expose others. All stand in scores.parquet."
    )
    return Section(title, [Table(header, cells, words=3), *_shared(figures["membership"], strongest["attack"])], lead)


def _shared(membership: Mapping[str, Any], attack: str) -> list[Block]:
    """How many of the most exposed members the teacher exposes most too, beside what the baseline has of them."""
    overlaps = membership.get("exposed_overlap", {}).get(attack)
    if not overlaps or not overlaps["top"]:
        return []
    header, rows = ["share of the members", "student", "by chance"], []
    header += ["baseline", "student beyond baseline"] if "no_kd" in overlaps else []
    for share, top in overlaps["top"].items():
        row = [
            percent(float(share), 0),
            with_interval(top["overlap"], top["overlap_ci95"], 2),
            percent(top["by_chance"]),
        ]
        if "no_kd" in overlaps:
            other, excess = overlaps["no_kd"]["top"][share], overlaps["excess"][share]
            row += [with_interval(other["overlap"], other["overlap_ci95"], 2)]
            row += [with_interval(excess["difference"], excess["ci95"], 2, sign=True)]
        rows.append(row)
    words = (
        f"Of the members that '{attack}' ranks highest, the share that is among as many of the teacher's, with 95 % "
    )
    words += "intervals. What the baseline, which never met the teacher, shares with it is how easy a record is."
    return [Heading("Shared with the teacher"), Table(header, rows), Paragraph(words)]


def _memorization(report: Mapping[str, Any] | None) -> Section:
    title = "Memorization"
    if report is None:
        return Section(title, [Absent("Not measured.")])
    names = {
        "token_accuracy": f"first {report['tokens']} tokens right, greedy",
        "reproduced": f"first {report['tokens']} tokens all right",
        "rouge_l": "ROUGE-L",
        "edit_similarity": "edit similarity",
    }
    beside = "no_kd" in report["token_accuracy"]
    header = ["", "members", "non-members", "gap [95 % interval]"]
    header += ["gap of the baseline", "student beyond baseline"] if beside else []
    rows = []
    for name, title_ in names.items():
        gap = report[name]
        row = [title_, number(gap["members"]), number(gap["nonmembers"]), _gap(gap)]
        rows.append(row + ([_gap(gap["no_kd"]), _gap(gap["excess"])] if beside else []))
    blocks: list[Block] = [Table(header, rows)]
    if "inherited" in report:
        hits = report["inherited"]["records"]
        blocks.append(
            Paragraph(
                f"Teacher and student reproduce {hits['members']} members and {hits['nonmembers']} non-members "
                "that the baseline does not."
            )
        )
    lead = "What greedy decoding reproduces from the prompt alone. What it reproduces of non-members is not memorized."
    return Section(title, blocks, lead)


def _inputs(figures: Mapping[str, Any]) -> Section:
    inputs = figures["inputs"]
    models = [
        [
            who,
            model["source"],
            model["name"],
            Code(model["sha256"][:12]),
            model["template"] or "",
            {True: "its own", False: "the student's", None: ""}[model["own_tokenizer"]],
            {True: "yes", False: "no", None: ""}[model["starts_with_bos"]],
            model["words"] or "",
        ]
        for who, model in inputs["models"].items()
    ]
    header = ["model", "from", "name", "sha256", "template", "tokenizer", "BOS first", "vocabulary size"]
    settings = [[name, value] for name, value in {**inputs["records"], **inputs["settings"]}.items()]
    blocks = [Table(header, models, words=7), Details("Records and settings", Table(["", ""], settings))]
    return Section("What was audited", blocks)


def _curve(scores: pd.DataFrame, attack: str) -> tuple[np.ndarray, np.ndarray]:
    kept = scores[[*KEYS, attack]].dropna(subset=[attack])
    member = (kept["role"] == MEMBER).to_numpy()
    values = kept[attack].to_numpy(np.float64)
    return roc_curve(values[member], values[~member])


def _reasons(left_out: Mapping[str, str]) -> list[Paragraph]:
    return [Paragraph(Code(name), ": ", reason) for name, reason in left_out.items()]


def _estimate(area: Mapping[str, Any] | None) -> Estimate:
    return Estimate(*_area(area))


def _area(area: Mapping[str, Any] | None) -> tuple[float | None, list | None]:
    return (area["auc"], area["auc_ci95"]) if area else (None, None)


def _gap(gap: Mapping[str, Any]) -> str:
    return f"{number(gap['gap'])} {interval(gap['gap_ci95'])}".strip()
