"""A run that changes one thing is trained with that and audited as every other; its figures stay, its student goes."""

from __future__ import annotations

import shutil

import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json
from kdleak.core.paths import Project
from kdleak.core.variants import CONTROL, Variant
from kdleak.pipeline.measure import measure_base, measure_run
from kdleak.pipeline.membership import judge_membership
from kdleak.pipeline.passes import BASES, audited_records, write_passes
from kdleak.pipeline.trial import run_trial
from tests.support.distillation import params, untrained

LISTS = {"study.seeds": [1], "study.fractions": [1], "study.grids": ["paper"], "study.lr_multipliers": [0.5]}
PARAMS = params(**{**LISTS, "audit.attacks": ["loss", "ref_pretrained", "ref_no_kd", "ez", "wbc", "mope"],
                   "audit.permutations": 20, "kd.recipes.kd.epochs": 1})  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """What a run reads: the passes of bases, teacher and no-KD student, and the scores of the latter two."""
    made = untrained(tmp_path_factory.mktemp("project"))
    shutil.copytree(made.base_teacher, made.base_external)
    for part in BASES:
        passes = measure_base(made.base_model(part), PARAMS, made, known=part == "student")
        write_passes(passes, made.base_passes(part))
    attacks = [attack for attack in PARAMS.audit.attacks if attack != "mope"]
    audited = PARAMS.model_copy(update={"audit": PARAMS.audit.model_copy(update={"attacks": attacks})})
    write_passes(measure_base(made.model("sft"), PARAMS, made), made.passes(CONTROL))  # a student of no member
    for name in ("sft", "teacher"):
        passes = measure_run(Variant(name), (), PARAMS, made, memorization=False)
        write_passes(passes, made.passes(name))
        judge_membership(Variant(name), passes, audited_records(made), audited, made)
    return made


@pytest.fixture(scope="module")
def runs(project) -> dict[str, dict]:
    """Run -> its training.json."""
    names = [run.name for run in PARAMS.study.variants if run.method == "kd"]
    for name in names:
        run_trial("kd", name, PARAMS, project)
    return {name: read_json(project.results("kd") / "runs" / name / "training.json") for name in names}


def test_every_run_leaves_its_figures_and_no_student(runs, project):
    assert set(runs) == {"rate-0.5", "seed-1", "grid-paper", "fraction-1"}
    for name in runs:
        folder = project.results("kd") / "runs" / name
        assert {f.name for f in folder.iterdir()} == {
            "training.json", "membership.json", "scores.parquet", "utility.json",
        }  # fmt: skip
        report = read_json(folder / "membership.json")
        assert set(report["attacks"]) == {"loss", "ref_pretrained", "ref_no_kd", "ez", "wbc"}  # mope needs passes
        assert report["controls"]["no_kd"]["loss"]["excess"]
        assert not project.model(Variant("kd", seed=1)).exists()


def test_each_changes_what_its_name_says(runs):
    plain = runs["seed-1"]
    assert runs["rate-0.5"]["lr"] == 0.5 * plain["lr"] and runs["fraction-1"]["lr"] == plain["lr"]
    assert (plain["starts_from"], runs["grid-paper"]["starts_from"]) == ("sft", "base")
    assert runs["fraction-1"]["realised"]["student_token_share"] == 1
    assert plain["realised"]["student_token_share"] == 0
    losses = {name: [entry["loss"] for entry in run["history"]] for name, run in runs.items()}
    assert len({tuple(each) for each in losses.values()}) == len(losses)


def test_the_same_run_again_is_the_same_figures(runs, project):
    folder = project.results("kd") / "runs" / "fraction-1"
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    run_trial("kd", "fraction-1", PARAMS, project)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before


def test_a_run_that_no_list_asks_for_is_refused(project):
    with pytest.raises(KdleakError, match=r"'seed-2' of 'kd' is no run of the lists .* rate-0\.5, seed-1, grid-paper"):
        run_trial("kd", "seed-2", PARAMS, project)
