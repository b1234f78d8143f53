"""What a model can be made to say: memorization and its gap, canaries, private facts, and what students inherit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdleak.core.paths import BASELINE, TEACHER
from kdleak.render import charts
from kdleak.render.charts import Estimate
from kdleak.render.page import Html, Section, absent, figure, heading, paragraph, table
from kdleak.render.palette import label
from kdleak.render.wording import number, percent, with_interval
from kdleak.report.study.results import PAPER_TECHNIQUES

if TYPE_CHECKING:
    from kdleak.report.study.results import Study


def what_is_said(study: Study) -> Section:
    """Token accuracy of greedy continuations, members against records that nobody saw; facts; canaries."""
    names = study.with_("memorization")
    title = "What the models say word for word"
    if not names:
        return Section(title, [absent("The memorization audit has not been run (`dvc repro -P`).")])
    reports = {name: study.models[name].memorization for name in names}
    gaps = [Estimate(r["token_accuracy"]["gap"], r["token_accuracy"]["gap_ci95"]) for r in reports.values()]
    drawn = charts.dots(
        names, {"gap": gaps}, xlabel="members' token accuracy above non-members'", reference=0.0, group_label=label,
        legend=False,
    )  # fmt: skip
    tokens = next(iter(reports.values())).get("tokens", 32)
    caption = (
        f"Share of the first {tokens} response tokens that a greedy continuation of the prompt gets right: members "
        "minus records that nobody saw, with 95 % intervals (records of a group count once)."
    )
    header = ("model", "members", "non-members", "gap", "gap beyond no KD", "given back whole", "private facts")
    rows = [_row(name, report) for name, report in reports.items()]
    note = "Given back whole, private facts: share of members / share of records that nobody saw."
    return Section(
        title,
        [figure(drawn, caption), table(header, rows), paragraph(note), *_canaries(reports)],
        lead=gist(study),
    )


def gist(study: Study) -> str:
    """The answer in one sentence."""
    students = {n: study.models[n].memorization for n in study.with_("memorization", study.techniques)}
    beyond = {n: r["token_accuracy"].get("excess") for n, r in students.items()}
    shown = [n for n, e in beyond.items() if e and (e["gap_ci95"][0] or 0) > 0]
    if not students:
        return "Of the students only the one without KD has been measured so far."
    inherited = [r["inherited"]["records"]["members"] for r in students.values() if "inherited" in r]
    text = f"{len(shown)} of {len(students)} students say more of the members than the student without KD does"
    if inherited:
        most = max(inherited) or "no"
        text += f"; {'at most ' if max(inherited) else ''}{most} member{'' if most == 1 else 's'} came back whole from "
        text += "teacher and student alike and not from the student without KD"
    return text + "."


def _row(name: str, report: Mapping[str, Any]) -> list[object]:
    accuracy, whole = report["token_accuracy"], report["reproduced"]
    excess, facts = accuracy.get("excess"), report["extraction"].get("facts", {}).get("all")
    return [
        label(name),
        number(accuracy["members"]),
        number(accuracy["nonmembers"]),
        with_interval(accuracy["gap"], accuracy["gap_ci95"], sign=True),
        with_interval(excess["gap"], excess["gap_ci95"], sign=True) if excess else "",
        f"{percent(whole['members'])} / {percent(whole['nonmembers'])}",
        f"{percent(facts['members'])} / {percent(facts['nonmembers'])}" if facts else "",
    ]


def _canaries(reports: Mapping[str, Any]) -> list[Html]:
    planted = {n: r["extraction"]["canaries"] for n, r in reports.items() if "canaries" in r["extraction"]}
    if not planted:
        return [heading("Canaries"), absent("No canaries were planted.")]
    levels = sorted({int(k) for c in planted.values() for k in c["repetitions"]})
    series = {
        name: (
            list(range(len(levels))),
            [Estimate(c["repetitions"].get(str(level), {}).get("exposure")) for level in levels],
        )
        for name, c in planted.items()
        if name in (TEACHER, BASELINE, *PAPER_TECHNIQUES)
    }
    one = next(iter(planted.values()))
    drawn = charts.curves(
        series, xlabel="times planted in the teacher's training data", ylabel="exposure, bits", reference=one["chance"],
        categories=[str(level) for level in levels],
    )  # fmt: skip
    n = one["repetitions"][str(levels[-1])]["n"]
    caption = (
        f"Mean exposure of {n} random secrets at each level, ranked among {one['references']} that were not planted: "
        f"{one['maximum']:.1f} bits is the first place, {one['chance']:.1f} is chance. So few canaries show large "
        "effects only."
    )
    most = {name: c["most_against_least"] for name, c in planted.items()}
    rows = [[label(name), with_interval(m["difference"], m["ci95"], 2, sign=True)] for name, m in most.items()]
    beside = table(("model", f"exposure {levels[-1]} times against {levels[0]}, bits"), rows)
    return [heading("Canaries"), figure(drawn, caption), beside]


def what_is_inherited(study: Study) -> Section:
    """The share of the teacher's leak that a student has, by membership and by memorization."""
    title = "What students inherit"
    names = [n for n in study.with_("memorization", study.techniques) if "inheritance" in study.models[n].memorization]
    shares = {n: _share(study, n) for n in study.techniques if _share(study, n) is not None}
    blocks: list[Html] = []
    if shares:
        drawn = charts.dots(
            list(shares), {"share": list(shares.values())}, xlabel="(student's AUC − ½) / (teacher's AUC − ½)",
            reference=1.0, group_label=label, legend=False,
        )  # fmt: skip
        caption = (
            f"Leak by {study.attack} as a share of the teacher's; 95 % intervals (Fieller). The line is all of it."
        )
        blocks.append(figure(drawn, caption))
    else:
        blocks.append(absent("No student has been attacked beside its teacher."))
    if names:
        blocks += _inheritance_curve(study, names)
    else:
        blocks.append(absent("The memorization audit of the students has not been run (`dvc repro -P`)."))
    lead = ""
    if shares:
        most = max(shares, key=lambda name: shares[name].value)
        lead = f"By membership {label(most)} has {percent(shares[most].value, 0)} of its teacher's leak."
    return Section(title, blocks, lead=lead)


def _share(study: Study, name: str) -> Estimate | None:
    found = study.models[name].membership.get("teacher", {}).get("inherited", {}).get(study.attack)
    return Estimate(found["share"], found["ci95"]) if found and found["share"] is not None else None


def _inheritance_curve(study: Study, names: list[str]) -> list[Html]:
    points = {name: study.models[name].memorization["inheritance"] for name in names}
    first = [point for point in points[names[0]] if point["n"]]
    if not first:
        return [absent("The teacher memorizes no member above the lowest threshold.")]
    places = list(range(len(first)))
    series = {
        name: (places, [Estimate(point["student_accuracy"]) for point in curve[: len(first)]])
        for name, curve in points.items()
        if name in PAPER_TECHNIQUES
    }
    series[BASELINE] = (places, [Estimate(point.get("no_kd_accuracy")) for point in first])
    series[TEACHER] = (places, [Estimate(point["teacher_accuracy"]) for point in first])
    drawn = charts.curves(
        series, xlabel="members on which the teacher's token accuracy exceeds", ylabel="mean token accuracy",
        categories=[f"{point['threshold']:g}\nn={point['n']}" for point in first],
    )  # fmt: skip
    caption = (
        "Mean token accuracy on the members that the teacher memorizes better than a threshold; n: how many they are."
    )
    return [heading("On the records that the teacher memorizes"), figure(drawn, caption)]
