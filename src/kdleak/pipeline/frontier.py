"""The frontier's files: the figures of every point of defence.grid gathered, compared and drawn.

frontier.json: attack (by which points are ranked and drawn: of ATTACKS the strongest on the undefended student, so no
defence has a part in the choice), points (a row for each defence, strength, method and seed), compared (for each
defence, strength and method, over its seeds), no_kd, left_out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kdleak.core.files import read_json, read_parquet, replacing_file, write_csv, write_json
from kdleak.core.paths import BASELINE, Project
from kdleak.core.variants import Variant
from kdleak.defend.frontier import Adaptive, Measured, Verdict, compared, controls_line, dominated, folded, hull
from kdleak.defend.grid import UNDEFENDED, GridPoint
from kdleak.pipeline.defended import TEACHERS_TRAINING
from kdleak.render.frontier import frontier_figure
from kdleak.render.svg import by_itself
from kdleak.stats.contrasts import leaks
from kdleak.stats.delong import Leak
from kdleak.stats.trainings import MeanLeak

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from kdleak.config.schema import Params

#: The attacks of the average case: none of them knows a defence.
ATTACKS = ("loss", "ez", "ref_no_kd")
FPR = "0.01"
NO_KD = "no-KD"
#: What attacks with shadow models of a point's defence found.
SHADOWS = "shadows.json"
#: Columns of frontier.csv.
COLUMNS = ("defence", "strength", "method", "seed", "perplexity", "rouge_l", "auc", "auc_low", "auc_high",
           "tpr_at_1pct", "exposure", "token_accuracy_gap", "extracted", "epsilon", "dominated")  # fmt: skip

Task = tuple[GridPoint, Variant]


def write_nothing(project: Project) -> None:
    """The files of an empty grid."""
    _write({"points": []}, project)


def write_frontier(asked: Sequence[Task], left_out: Mapping[str, str], params: Params, project: Project) -> None:
    """Write frontier.json, .csv and .svg from the results of `asked`, students of points."""
    rows = [_row(point, variant, project) for point, variant in asked]
    no_kd = _figures(project.results(BASELINE))
    attack = _strongest([row for row in rows if row["defence"] == UNDEFENDED])
    for row in rows:
        row |= {"auc": row["attacks"][attack]["leak"], "auc_ci95": row["attacks"][attack]["leak_ci95"],
                "tpr_at_1pct": row["attacks"][attack]["tpr_at_1pct"]}  # fmt: skip
    summary: list[dict[str, Any]] = []
    for variant in dict.fromkeys(variant for _, variant in asked):
        points = [point for point, its in asked if its == variant]
        measured = _measured(points, variant, params, project)
        summary += _compared(measured, str(variant), attack)
    out = {each["name"] for each in summary if each["dominated"]}
    for row in rows:
        row["dominated"] = f"{row['name']} {row['method']}" in out
    found = {
        "attack": attack,
        "family": params.model.family,
        "source": params.data.source,
        "points": rows,
        "compared": summary,
        "no_kd": no_kd,
        "left_out": dict(left_out),
    }
    _write(found, project)


def _write(found: dict[str, Any], project: Project) -> None:
    import pandas as pd

    write_json(found, project.frontier, digits=6)
    rows = [{**row, **dict(zip(("auc_low", "auc_high"), row["auc_ci95"], strict=True))} for row in found["points"]]
    write_csv(pd.DataFrame(rows, columns=pd.Index(COLUMNS)), project.frontier_table)
    with replacing_file(project.frontier_figure) as fresh:
        fresh.write_text(by_itself(frontier_figure(found)), encoding="utf-8")


def _row(point: GridPoint, variant: Variant, project: Project) -> dict[str, Any]:
    """One training: what it was, what it is worth, what it leaks, and ε with whose records it covers."""
    folder = project.defended / point.name / str(variant)
    own, teachers = (read_json(folder / name).get("defence") or {} for name in ("training.json", TEACHERS_TRAINING))
    spent = own if "epsilon" in own else teachers
    return {
        "name": _name(point),
        "defence": point.defence.name,
        "strength": point.strength,
        "knobs": point.defence.model_dump(),
        "acts_on": point.defence.acts_on and point.defence.acts_on.value,
        "control": point.defence.control,
        "method": str(variant),
        "seed": point.seed,
        "epsilon": spent.get("epsilon"),
        "delta": spent.get("delta"),
        "epsilon_covers": spent.get("covers"),
        "epsilon_of_groups": {name: group["epsilon"] for name, group in spent.get("groups", {}).items()},
        **_figures(folder),
    }


def _name(point: GridPoint) -> str:
    """The defence and its strength, without the seed."""
    return point.name.rpartition("-seed-")[0]


def _figures(folder: Path) -> dict[str, Any]:
    """Utility and leak of one student, from the files that the judge functions wrote."""
    utility, membership, memorization = (
        read_json(folder / f"{name}.json") for name in ("utility", "membership", "memorization")
    )
    planted = memorization["extraction"]["canaries"]["repetitions"]
    most = planted[max(planted, key=int)] if planted else {}
    accuracy, extracted = memorization["token_accuracy"], memorization["extraction"]["discoverable"]["1"]["0.5"]
    return {
        "perplexity": utility["perplexity"],
        "rouge_l": utility["rouge_l"],
        "rouge_l_ci95": utility["rouge_l_ci95"],
        "attacks": {name: _leak(membership["attacks"][name]) for name in ATTACKS if name in membership["attacks"]},
        "exposure": most.get("exposure"),
        "exposure_ci95": most.get("exposure_ci95"),
        "token_accuracy_gap": accuracy["gap"],
        "token_accuracy_gap_ci95": accuracy["gap_ci95"],
        "extracted": extracted["members"],
        "extracted_gap_ci95": extracted["gap_ci95"],
    }


def _leak(found: Mapping[str, Any]) -> dict[str, Any]:
    low, high = found["auc_ci95"]
    below = found["auc"] < 0.5
    return {
        "auc": found["auc"],
        "leak": abs(found["auc"] - 0.5) + 0.5,
        "leak_ci95": [max(0.5, 1 - high), 1 - low] if below else [max(0.5, low), high],
        "tpr_at_1pct": found["tpr_at_fpr"][FPR],
        "tpr_at_1pct_ci95": found["tpr_ci95"][FPR],
    }


def _strongest(undefended: Sequence[Mapping[str, Any]]) -> str:
    """The attack with the largest mean leak on undefended students."""
    names = [name for name in ATTACKS if all(name in row["attacks"] for row in undefended)]
    return max(names, key=lambda name: sum(row["attacks"][name]["leak"] for row in undefended))


def _measured(points: Sequence[GridPoint], variant: Variant, params: Params, project: Project) -> list[Measured]:
    """The students of one method, the seeds of a defence and strength together; and the no-KD student."""
    scores = {point: read_parquet(_file(project, point, variant, "scores")) for point in points}
    groups = read_parquet(project.memorization_table(BASELINE))[["record_id", "group_id"]]
    tables: dict[Any, pd.DataFrame] = {point: table.merge(groups, on="record_id") for point, table in scores.items()}
    tables[NO_KD] = read_parquet(project.scores(BASELINE)).merge(groups, on="record_id")
    by_attack = {attack: leaks(tables, attack) for attack in ATTACKS}
    by_attack = {attack: found for attack, found in by_attack.items() if all(point in found for point in points)}
    measured, adaptive = [], _adaptive(points, variant, project)
    for name in dict.fromkeys(map(_name, points)):
        own = [point for point in points if _name(point) == name]
        perplexities = [read_json(_file(project, each, variant, "utility"))["perplexity"] for each in own]
        by_seed = {
            attack: MeanLeak({each.seed: folded(found[each]) for each in own}) for attack, found in by_attack.items()
        }
        control = own[0].defence.control
        measured.append(Measured(name, sum(perplexities) / len(own), by_seed, control, adaptive.get(name)))
    without = {a: folded(found[NO_KD]) if NO_KD in found else _chance(found) for a, found in by_attack.items()}
    no_kd = read_json(project.utility(BASELINE))["perplexity"]
    return [*measured, Measured(NO_KD, no_kd, without, control=True)]


def _chance(found: Mapping[Any, Leak]) -> Leak:
    """What an attack that compares with the no-KD student says of that student itself: one half, of every record."""
    other = next(iter(found.values()))
    return Leak(0.5 + 0 * other.members, 0.5 + 0 * other.nonmembers, other.groups)


def _file(project: Project, point: GridPoint, variant: Variant, kind: str) -> Path:
    return project.defended / point.name / str(variant) / f"{kind}.{'parquet' if kind == 'scores' else 'json'}"


def _adaptive(points: Sequence[GridPoint], variant: Variant, project: Project) -> dict[str, Adaptive]:
    """By name of a point, what an attack with shadow models of its defence finds; nothing of points without them.

    The attack is the one that finds most on undefended students: no defence has a part in the choice.
    """
    paths = {_name(point): project.defended / point.name / "shadows" / SHADOWS for point in points}
    reports = {name: read_json(path)["attacks"].get(variant.method) for name, path in paths.items() if path.is_file()}
    if variant.difference or not reports.get(UNDEFENDED):
        return {}
    undefended = reports[UNDEFENDED]
    attack = max((each for each in undefended if ":" in each), key=lambda each: undefended[each]["auc"]["value"])
    return {name: _of_shadows(attack, report, undefended) for name, report in reports.items() if report}


def _of_shadows(attack: str, report: Mapping[str, Any], undefended: Mapping[str, Any]) -> Adaptive:
    def leak(found: Mapping[str, Any], name: str) -> float:
        return abs(found[name]["auc"]["value"] - 0.5) + 0.5

    alone = attack.partition(":")[2]
    gained = {name: leak(undefended, name) - leak(report, name) for name in (attack, alone)}
    area = report[attack]["auc"]
    return Adaptive(
        leak(report, attack), (area["high"] - area["low"]) / 2 / 1.96, attack, gained[alone] - gained[attack]
    )


def _compared(measured: Sequence[Measured], method: str, attack: str) -> list[dict[str, Any]]:
    cost = {each.name: (each.perplexity, each.leaks[attack].value) for each in measured}
    out, corners, verdicts = dominated(cost), hull(cost), compared(measured, attack)
    line = {each.name for each in controls_line(measured, attack)}
    rows = []
    for each in measured:
        error = each.leaks[attack].error
        row = {"name": f"{each.name} {method}", "point": each.name, "method": method, "perplexity": each.perplexity,
               "leak": cost[each.name][1], "error": error, "control": each.control, "dominated": each.name in out,
               "on_hull": each.name in corners, "on_line": each.name in line}  # fmt: skip
        if each.adaptive is not None:
            row["adaptive"] = asdict(each.adaptive)
        rows.append(row | _verdict(verdicts.get(each.name)))
    return rows


def _verdict(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {}
    difference = {
        name: {"value": each.value, "ci95": list(each.interval), "p_value": each.p_value, "runs": each.runs}
        for name, each in verdict.difference.items()
    }
    return {
        "verdict": verdict.says,
        "beside": dict(verdict.beside),
        "difference": difference,
        "p_holm": verdict.p_holm,
        "detectable": verdict.detectable,
        "adaptive_attack": verdict.adaptive,
    }
