"""What greedy decoding gives back verbatim: token accuracy and its gap, canaries, private facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE, TEACHER
from kdleak.render import charts
from kdleak.render.blocks import Absent, Block, Chart, Heading, Paragraph, Table
from kdleak.render.charts import Estimate
from kdleak.render.palette import label
from kdleak.render.wording import number, percent, with_interval
from kdleak.report.study.results import PAPER_TECHNIQUES
from kdleak.report.study.sections import Content, section

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from kdleak.report.study.results import Study
    from kdleak.report.study.sections import Report


@section("Verbatim memorization", order=70)
def verbatim(report: Report) -> Content:
    """Token accuracy of greedy continuations, members against records that nobody saw; facts; canaries."""
    study = report.study
    names = study.with_("memorization")
    if not names:
        return Content([Absent("The memorization audit has not been run (`dvc repro -P`).")])
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
    header = ("model", "members", "non-members", "gap", "gap beyond no-KD student", "reproduced", "private facts")
    rows = [_row(name, report) for name, report in reports.items()]
    note = "Reproduced (every token right), private facts: share of members / share of records that nobody saw."
    answer = gist(study)
    blocks = [Chart(drawn, caption), Table(header, rows), Paragraph(note), *_canaries(reports)]
    return Content(blocks, answer, answer if study.with_("memorization", study.techniques) else "")


def gist(study: Study) -> str:
    """The answer in one sentence."""
    students = {n: study.models[n].memorization for n in study.with_("memorization", study.techniques)}
    beyond = {n: r["token_accuracy"].get("excess") for n, r in students.items()}
    shown = [n for n, e in beyond.items() if e and (e["gap_ci95"][0] or 0) > 0]
    if not students:
        return "Of the students only the no-KD one has been measured so far."
    inherited = [r["inherited"]["records"]["members"] for r in students.values() if "inherited" in r]
    text = f"{len(shown)} of {len(students)} students say more of the members than the no-KD student does"
    if inherited:
        most = max(inherited) or "no"
        text += f"; {'at most ' if max(inherited) else ''}{most} member{'' if most == 1 else 's'} are reproduced by "
        text += "teacher and student alike and not by the no-KD student"
    return text + "."


def _row(name: str, report: Mapping[str, Any]) -> list[object]:
    accuracy, reproduced = report["token_accuracy"], report["reproduced"]
    excess, facts = accuracy.get("excess"), report["extraction"].get("facts", {}).get("all")
    return [
        label(name),
        number(accuracy["members"]),
        number(accuracy["nonmembers"]),
        with_interval(accuracy["gap"], accuracy["gap_ci95"], sign=True),
        with_interval(excess["gap"], excess["gap_ci95"], sign=True) if excess else "",
        f"{percent(reproduced['members'])} / {percent(reproduced['nonmembers'])}",
        f"{percent(facts['members'])} / {percent(facts['nonmembers'])}" if facts else "",
    ]


def _canaries(reports: Mapping[str, Any]) -> list[Block]:
    planted = {n: r["extraction"]["canaries"] for n, r in reports.items() if "canaries" in r["extraction"]}
    if not planted:
        return [Heading("Canaries"), Absent("No canaries were planted.")]
    levels = sorted({int(k) for c in planted.values() for k in c["repetitions"]})
    series = {
        name: (
            list(range(len(levels))),
            [_exposure(c["repetitions"].get(str(level))) for level in levels],
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
    header = ["model", *(f"exposure, {level} ×" for level in levels), f"{levels[-1]} × against {levels[0]} ×"]
    header += [f"beyond no-KD student, {level} ×" for level in levels]
    rows = [_canary_row(name, c, levels) for name, c in planted.items()]
    note = "Bits, with 95 % intervals. Beyond the no-KD student: the mean difference on the same canaries, since some "
    note += "secrets are likelier than others to a model that never saw them."
    return [Heading("Canaries"), Chart(drawn, caption), Table(header, rows), Paragraph(note)]


def _exposure(level: Mapping[str, Any] | None) -> Estimate:
    return Estimate(level["exposure"], level["exposure_ci95"]) if level else Estimate(None)


def _canary_row(name: str, canaries: Mapping[str, Any], levels: list[int]) -> list[object]:
    found = [canaries["repetitions"].get(str(level), {}) for level in levels]
    contrast, excess = canaries["most_against_least"], [level.get("excess") for level in found]
    return [
        label(name),
        *(with_interval(level["exposure"], level["exposure_ci95"], 2) if level else "" for level in found),
        with_interval(contrast["difference"], contrast["ci95"], 2, sign=True),
        *(with_interval(each["exposure"], each["ci95"], 2, sign=True) if each else "" for each in excess),
    ]
