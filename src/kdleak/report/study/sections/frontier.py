"""Defences on one frontier: what each costs in utility, and what still leaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdleak.defend.defences import DEFENCES
from kdleak.defend.frontier import BETTER
from kdleak.render.blocks import Absent, Block, Chart, Heading, Paragraph, Table
from kdleak.render.frontier import NO_KD, UNDEFENDED, frontier_figure
from kdleak.render.palette import label
from kdleak.render.wording import listed, number, with_interval
from kdleak.report.frontier import COMMAND, NOT_ADAPTIVE, epsilon_words, leak_words, verdict_words
from kdleak.report.study.sections import Content, section

if TYPE_CHECKING:
    from kdleak.report.study.sections import Report


@section("Defences on one frontier", order=104)
def defences(report: Report) -> Content:
    """Utility against leak of every defence and strength of defence.grid, beside the controls at equal utility."""
    found = report.study.frontier or {}
    if not found.get("points"):
        return Content([Absent(f"No defences were compared (`{COMMAND}`).")])
    methods = list(dict.fromkeys(row["method"] for row in found["points"]))
    blocks: list[Block] = []
    for method in methods:
        blocks += [
            Heading(label(method)),
            Chart(frontier_figure(found, method), _caption(found)),
            _table(found, method),
        ]
    if found["left_out"]:
        blocks.append(Paragraph("Not possible: " + "; ".join(f"{n}: {why}" for n, why in found["left_out"].items())))
    blocks.append(Paragraph(_limits(found)))
    return Content(blocks, lead=_lead(found))


def _caption(found: Mapping[str, Any]) -> str:
    return (
        "Filled: no other point is more useful and leaks less; hollow: dominated. Squares are controls, the grey band "
        f"their line; dotted, the hull. The attack is '{found['attack']}', the strongest on the undefended student."
    )


def _table(found: Mapping[str, Any], method: str) -> Table:
    rows = []
    for row in (each for each in found["compared"] if each["method"] == method):
        points = [p for p in found["points"] if p["name"] == row["point"] and p["method"] == method]
        one = points[0] if points else found["no_kd"]
        exposure = "" if one["exposure"] is None else with_interval(one["exposure"], one["exposure_ci95"], 1)
        attack = one["attacks"].get(found["attack"])
        named = "" if attack is None else with_interval(attack["tpr_at_1pct"], attack["tpr_at_1pct_ci95"])
        learned = with_interval(one["token_accuracy_gap"], one["token_accuracy_gap_ci95"])
        words = (_called(row["point"]), verdict_words(row), epsilon_words(points), _not_protected(points))
        useful = number(row["perplexity"], 2), with_interval(one["rouge_l"], one["rouge_l_ci95"])
        rows.append([*words, *useful, leak_words(row), named, exposure, learned])
    header = ("defence", "beside the controls", "ε", "does not protect", "perplexity", "ROUGE-L",
              f"leak by {found['attack']}", "TPR at 1 % FPR", "canary exposure", "token accuracy gap")  # fmt: skip
    return Table(header, rows, words=4)


def _called(point: str) -> str:
    return {UNDEFENDED: "undefended", NO_KD: label("sft")}.get(point, point)


def _not_protected(points: list[Mapping[str, Any]]) -> str:
    return DEFENCES[points[0]["defence"]].does_not_protect if points else ""


def _lead(found: Mapping[str, Any]) -> str:
    tried = [row for row in found["compared"] if "verdict" in row]
    better = [row for row in tried if row["verdict"] == BETTER]
    if not tried:
        return "Controls alone were trained: nothing is compared with them."
    if not better:
        return f"None of {len(tried)} defences is shown to leak less than the controls at equal utility."
    names = listed([f"{row['point']} ({label(row['method'])})" for row in better])
    under = "" if all(row["adaptive_attack"] for row in better) else f", {NOT_ADAPTIVE}"
    return f"At equal utility {names} leaked less than the controls, of {len(tried)} compared{under}."


def _limits(found: Mapping[str, Any]) -> str:
    said = (
        "Leak is |AUC − ½| + ½. Each defence is compared at its own perplexity with the controls' line, interpolated "
        "in log perplexity between two of them, on the same records. It differs where all attacks see it "
        "(intersection-union test), Holm-corrected over all points. Perplexity is taken as known, and counts "
        "calibration: a signal that is flattened or cut (temperature, top_k, label_only) can lose it and keep ROUGE-L."
    )
    if any(not row.get("adaptive_attack", True) for row in found["compared"]):
        said += (
            " An attack that knows the defence can find more than these, which do not: what is said here holds "
            f"{NOT_ADAPTIVE}. Teachers on halves of the records for each point (`-S defence.shadows=8`) make it."
        )
    return said
