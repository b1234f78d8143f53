"""The share of the teacher's leak that a student has, by membership and by memorization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE, TEACHER
from kdleak.render import charts
from kdleak.render.blocks import Absent, Block, Chart, Heading, Paragraph, Table
from kdleak.render.charts import Estimate
from kdleak.render.palette import label
from kdleak.render.wording import percent, with_interval
from kdleak.report.study.results import PAPER_TECHNIQUES
from kdleak.report.study.sections import Content, section

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from kdleak.report.study.results import Study
    from kdleak.report.study.sections import Report

#: The share of the members that counts as most exposed, as membership.json writes it.
TOP = "0.1"


@section("What students inherit", order=80)
def what_is_inherited(report: Report) -> Content:
    """The share of the teacher's leak that a student has, by membership and by memorization."""
    study = report.study
    names = [n for n in study.with_("memorization", study.techniques) if "inheritance" in study.models[n].memorization]
    shares = {n: share for n in study.techniques if (share := _share(study, n)) is not None}
    blocks: list[Block] = []
    if shares:
        drawn = charts.dots(
            list(shares), {"share": list(shares.values())}, xlabel="(student's AUC − ½) / (teacher's AUC − ½)",
            reference=1.0, group_label=label, legend=False,
        )  # fmt: skip
        caption = (
            f"Leak by {study.attack} as a share of the teacher's; 95 % intervals (Fieller). The line is all of it."
        )
        blocks.append(Chart(drawn, caption))
    else:
        blocks.append(Absent("No student has been attacked beside its teacher."))
    blocks += _exposed(study)
    if names:
        blocks += _inheritance_curve(study, names)
    else:
        blocks.append(Absent("The memorization audit of the students has not been run (`dvc repro -P`)."))
    lead = ""
    if shares:
        most = max(shares, key=lambda name: shares[name].value or 0.0)
        lead = f"By membership {label(most)} has {percent(shares[most].value, 0)} of its teacher's leak."
    return Content(blocks, lead=lead)


def _share(study: Study, name: str) -> Estimate | None:
    inherited = study.models[name].membership.get("teacher", {}).get("inherited", {}).get(study.attack)
    return Estimate(inherited["share"], inherited["ci95"]) if inherited and inherited["share"] is not None else None


def _exposed(study: Study) -> list[Block]:
    """How many of a student's most exposed members are the teacher's, beside what the no-KD student has of them."""
    rows = []
    for name in study.techniques:
        overlaps = study.models[name].membership.get("teacher", {}).get("exposed_overlap", {}).get(study.attack, {})
        top, other = overlaps.get("top", {}).get(TOP), overlaps.get("no_kd", {}).get("top", {}).get(TOP)
        if top is None or other is None:
            continue
        excess = overlaps["excess"][TOP]
        cells = [with_interval(each["overlap"], each["overlap_ci95"], 2) for each in (top, other)]
        rows.append([label(name), *cells, with_interval(excess["difference"], excess["ci95"], 2, sign=True)])
    if not rows:
        return []
    share = percent(float(TOP), 0)
    header = ("student", "shared with the teacher", "the no-KD student", "beyond it")
    words = f"Of the {share} of members that {study.attack} ranks highest under a student, the share that is among the "
    words += (
        f"teacher's own {share}; chance is {share}. The no-KD student never met the teacher: what it shares is how "
    )
    words += "easy a record is. 95 % intervals draw groups of records; ties count by their share of the places left."
    return [Heading("The most exposed members"), Table(header, rows), Paragraph(words)]


def _inheritance_curve(study: Study, names: list[str]) -> list[Block]:
    points = {name: study.models[name].memorization["inheritance"] for name in names}
    first = [point for point in points[names[0]] if point["n"]]
    if not first:
        return [Absent("The teacher memorizes no member above the lowest threshold.")]
    places = list(range(len(first)))
    series = {
        name: (places, [_point(point, "student_accuracy") for point in curve[: len(first)]])
        for name, curve in points.items()
        if name in PAPER_TECHNIQUES
    }
    series[BASELINE] = (places, [_point(point, "no_kd_accuracy") for point in first])
    series[TEACHER] = (places, [_point(point, "teacher_accuracy") for point in first])
    drawn = charts.curves(
        series, xlabel="members on which the teacher's token accuracy exceeds", ylabel="mean token accuracy",
        categories=[f"{point['threshold']:g}\nn={point['n']}" for point in first],
    )  # fmt: skip
    caption = (
        "Mean token accuracy on the members that the teacher memorizes better than a threshold, with 95 % intervals "
        "over groups; n: how many they are."
    )
    return [Heading("On the records that the teacher memorizes"), Chart(drawn, caption), *_beyond(points, first)]


def _point(point: Mapping[str, Any], key: str) -> Estimate:
    return Estimate(point.get(key), point.get(f"{key}_ci95"))


def _beyond(points: Mapping[str, list], first: list) -> list[Block]:
    """By how much each student is above the no-KD student on the same members, at three of the thresholds."""
    chosen = sorted({0, len(first) // 2, len(first) - 1})
    rows = [
        [label(name), *(with_interval(e["difference"], e["ci95"], sign=True) for e in excesses)]
        for name, curve in points.items()
        if all(excesses := [curve[i].get("excess") for i in chosen])
    ]
    if not rows:
        return []
    header = ["beyond the no-KD student", *(f"above {first[i]['threshold']:g} (n={first[i]['n']})" for i in chosen)]
    words = "The student's token accuracy less the no-KD student's on the same members, by the teacher's accuracy on "
    words += "them: what both say of a record that is easy to guess cancels."
    return [Table(header, rows), Paragraph(words)]
