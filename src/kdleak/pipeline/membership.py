"""The membership and blocks stages: attacks on one model, and the exposure of each of its blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks import ATTACKS, AttackInput, attack_scores
from kdleak.attacks.teacher_aware import without_teacher
from kdleak.auditing.blocks import block_report
from kdleak.auditing.comparisons import exposed_overlap, inherited, paired_differences
from kdleak.auditing.controls import blind_control, overlap_control, permutation_control, placebo_control
from kdleak.auditing.membership import KEYS, membership_report, to_json
from kdleak.core.distributed import is_main
from kdleak.core.files import read_parquet, replacing_file, write_csv, write_parquet
from kdleak.core.seeds import derive
from kdleak.core.variants import Variant
from kdleak.data.overlap import ngram_overlap
from kdleak.data.records import read_role
from kdleak.inference.cache import ArrayCache
from kdleak.pipeline.passes import Scorer, gather, noise_of
from kdleak.stats import roc_curve

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def attack_model(name: str | Variant, params: Params, project: Project) -> None:
    """Write scores.parquet, membership.json and roc.csv of `teacher`, or of the student that `name` made.

    A student is compared with the No-KD student and with the teacher, whose scores must be there.
    """
    records = read_role(project.records, "private", "heldout")
    given, disturbed = gather(name, records, Scorer(params, project), project)
    if not is_main():
        return  # the passes are shared, the statistics of them are the main process's
    missing = {attack: ATTACKS[attack].needs.missing(given) for attack in params.audit.attacks}
    applicable = [attack for attack in params.audit.attacks if not missing[attack]]
    scores = records[["record_id", "role", "task"]].assign(**attack_scores(given, applicable))
    report = membership_report(scores, controls=_controls(name, scores, records, given, params, project))
    report["not_applicable"] = {attack: f"needs {' and '.join(lacks)}" for attack, lacks in missing.items() if lacks}
    if disturbed is not None:
        error = disturbed.auc_error((records["role"] == "private").to_numpy())
        report["attacks"]["mope"]["auc_monte_carlo_error"] = error
    if (variant := Variant.of(name)).is_distilled:
        teacher = read_parquet(project.scores(variant.teacher))
        report["teacher"] = {
            "inherited": inherited(scores, teacher),
            "exposed_overlap": exposed_overlap(scores, teacher),
        }
    write_parquet(scores, project.scores(name))
    write_csv(roc_table(scores), project.roc(name))
    _write_report(report, project.membership(name))


def measure_blocks(name: str | Variant, params: Params, project: Project) -> None:
    """Write blocks.json and block_scores.parquet of a model; a student's stand beside the No-KD student's."""
    records = read_role(project.records, "private", "heldout")
    scorer, folder = Scorer(params, project), project.model(name)
    encoded = scorer.encoder(folder).encode_frame(records)
    found = scorer.block_mope(folder, encoded, scorer.statistics(folder, encoded))
    if not is_main():
        return
    variant = Variant.of(name)
    baseline = read_parquet(project.block_scores(variant.baseline)) if variant.is_distilled else None
    keys = records[["record_id", "role", "task"]]
    write_parquet(
        keys.assign(**{f"block_{i}": block.scores for i, block in enumerate(found)}), project.block_scores(name)
    )
    _write_report(block_report(keys, found, noise_of(params, "blocks"), baseline), project.blocks(name))


def roc_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Columns attack, fpr, tpr: the curve of every attack, at its distinct thresholds."""
    import pandas as pd

    member = (scores["role"] == "private").to_numpy()
    curves = []
    for name in (column for column in scores.columns if column not in KEYS):
        values = scores[name].to_numpy()
        fpr, tpr = roc_curve(_defined(values[member]), _defined(values[~member]))
        curves.append(pd.DataFrame({"attack": name, "fpr": fpr.round(6), "tpr": tpr.round(6)}))
    return pd.concat(curves, ignore_index=True)


def _controls(
    name: str | Variant,
    scores: pd.DataFrame,
    records: pd.DataFrame,
    given: AttackInput,
    params: Params,
    project: Project,
) -> dict[str, Any]:
    overlap = ngram_overlap(records, params.checks.ngram)
    shares = dict(zip(records["record_id"], overlap, strict=True))
    seed = derive(params.seed, "controls")
    controls = {
        "blind": blind_control(records, seed=seed, cache=ArrayCache(project.cache)),
        "permutation": permutation_control(scores, permutations=params.audit.permutations, seed=seed),
        "overlap": {"ngram": params.checks.ngram, **overlap_control(scores, shares)},
    }
    if "teacher_aware" in scores:
        placebo = ATTACKS["teacher_aware"].score(without_teacher(given))
        controls["placebo"] = {"teacher_aware": placebo_control(placebo, (records["role"] == "private").to_numpy())}
    if (variant := Variant.of(name)).is_distilled:
        controls["no_kd"] = _beside(scores, read_parquet(project.scores(variant.baseline)))
    return controls


def _beside(scores: pd.DataFrame, baseline: pd.DataFrame) -> dict[str, Any]:
    """The No-KD student's AUCs, and the student's excess over them."""
    differences = paired_differences(scores, baseline)
    areas = membership_report(baseline[[*KEYS, *differences]])["attacks"]
    keep = ("auc", "auc_ci95", "p_value", "p_holm")
    return {
        attack: {key: areas[attack][key] for key in keep} | {"excess": differences[attack]} for attack in differences
    }


def _write_report(report: Mapping[str, Any], path: Path) -> None:
    text = to_json(report)
    with replacing_file(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def _defined(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
