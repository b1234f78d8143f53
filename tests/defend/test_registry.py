"""A defence is one file: put into the folder, it is found, checked, run by the stages it acts on, and by no other."""

from __future__ import annotations

import shutil
import sys

import pytest

from kdleak.core.fingerprint import SourceTree
from kdleak.core.paths import Project
from kdleak.defend import defences
from kdleak.defend.choice import acting, chosen
from kdleak.defend.defences import DEFENCES
from kdleak.defend.registry import Acts
from kdleak.pipeline.validate import BY_METHOD, DEFENDED, ENTRIES, fingerprint, grid_code, validate
from tests.support.defending import defended_project, settings, student_of, teacher_of
from tests.support.pipeline_project import ROOT

SOURCE = SourceTree(ROOT / "src")
#: Another value of the knob of a defence that counts.
OTHER = {"early_stop": 1, "lora": 2, "goldfish": 3, "top_k": 2, "split_teachers": 3}
TOY = '''
"""Everything uniform."""

from kdleak.config.schema import Share
from kdleak.defend.registry import Acts, Defence, defence


@defence("toy_uniform", acts_on=Acts.SIGNAL, source="a test")
class Toy(Defence):
    """flatness: 1 is the uniform distribution."""

    knob = "flatness"
    protects = "all"
    does_not_protect = "utility"
    flatness: Share = 1.0

    def release(self, public_base, teacher):
        return lambda logits: logits * (1 - self.flatness)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch) -> str:
    """A defence whose file was put into a folder of defences."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(defences, "__path__", [*defences.__path__, str(tmp_path)])
    defences.discover()
    yield "toy_uniform"
    del DEFENCES["toy_uniform"], sys.modules["kdleak.defend.defences.toy"]


def test_a_file_makes_a_defence_and_params_need_not_know_it(toy, tmp_path):
    assert chosen(settings(toy, flatness=0.5).defence).model_dump() == {"flatness": 0.5}
    project = defended_project(tmp_path / "project")
    plain, record = student_of(project, "none")
    toys, of_toy = student_of(project, toy)
    assert toys != plain and "defence" not in record
    assert of_toy["defence"] == {"name": toy, "acts_on": "signal", "knobs": {"flatness": 1.0}}
    # A teacher that gives nothing out might as well be another.
    teacher_of(project)
    assert student_of(project, toy)[0] == toys and student_of(project, "none")[0] != plain


def codes(source: SourceTree, params) -> dict[str, str]:
    """Stage -> what its fingerprint says under the defence of `params`."""
    found = {}
    for stage in ENTRIES:
        for method in ("sft", "kd") if stage in BY_METHOD else (None,):
            defence = acting(params, *(() if method == "sft" else DEFENDED.get(stage, ())))
            found[f"{stage}/{method}" if method else stage] = fingerprint(source, stage, method, defence)
    return found


@pytest.mark.parametrize("name", [name for name in DEFENCES if name != "none"])
def test_a_defence_and_its_knob_are_a_dependency_of_the_stages_that_it_acts_on(name):
    plain, defended = codes(SOURCE, settings()), codes(SOURCE, settings(name))
    changed = {stage for stage in plain if plain[stage] != defended[stage]}
    both = {"control", "shadow", "epsilon"}  # which train teachers and students
    students = both | {"distill/kd", "trial/kd"}
    assert (
        changed
        == {
            Acts.TEACHER: both | {"teacher"},
            Acts.SIGNAL: students | {"text/kd"},
            Acts.TRANSFER_SET: students | {"text/kd"},
            Acts.STUDENT: students,
            Acts.ENSEMBLE: students | {"teacher", "text/kd"},
        }[DEFENCES[name].acts_on]
    )
    module = DEFENCES[name].__module__
    for stage in changed:
        assert f" {module}\n" in defended[stage] and defended[stage].splitlines()[-1].startswith(f"defence {name} ")
    for stage in plain.keys() - {"report"}:
        assert f" {module}\n" not in plain[stage]
    if DEFENCES[name].knob:
        other = codes(SOURCE, settings(name, **{DEFENCES[name].knob: OTHER.get(name, 0.7)}))
        assert {stage for stage in other if other[stage] != defended[stage]} == changed


def test_a_new_defence_file_is_no_dependency_of_any_stage(tmp_path):
    shutil.copytree(ROOT / "src" / "kdleak", tmp_path / "kdleak", ignore=shutil.ignore_patterns("__pycache__"))
    before = codes(SourceTree(tmp_path), settings("dp_sgd"))
    (tmp_path / "kdleak" / "defend" / "defences" / "toy.py").write_text(TOY)
    other = tmp_path / "kdleak" / "defend" / "defences" / "lora.py"
    other.write_text(other.read_text().replace("rank: Count = 4", "rank: Count = 5"))
    assert codes(SourceTree(tmp_path), settings("dp_sgd")) == before


def test_the_grid_depends_on_the_files_of_its_defences_alone():
    grid = [{"name": "top_k", "k": 2}, {"name": "lora", "rank": 2}]
    code = grid_code(SOURCE, settings(**{"defence.grid": grid}))
    named = {name for name, each in DEFENCES.items() if f" {each.__module__}\n" in code}
    assert named == {"none", "top_k", "lora"}
    assert grid_code(SOURCE, settings()) == fingerprint(SOURCE, "defences")


def test_what_accounts_for_privacy_is_read_by_private_trainings_alone():
    plain, private = codes(SOURCE, settings()), codes(SOURCE, settings("dp_sgd"))
    assert " kdleak.defend.accountant\n" in private["teacher"]
    for stage in plain.keys() - {"report", "epsilon"}:  # one writes it in words, one holds guesses to it
        assert " kdleak.defend.accountant\n" not in plain[stage] and " kdleak.defend.dp\n" not in plain[stage]


def test_the_params_stage_writes_it_down(tmp_path):
    for name in ("params.yaml", "families.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    params = settings("top_k", k=3, **{"study.methods": ["kd"], "data.path": str(ROOT / "src/kdleak/data/synthetic")})
    validate(params, Project(tmp_path))
    last = {f"{p.parent.name}/{p.stem}": p.read_text().splitlines()[-1] for p in (tmp_path / ".code").rglob("*.txt")}
    told = {stage for stage, line in last.items() if line == "defence top_k TruncatedSignal(k=3)"}
    assert (
        told == {"text/kd", "distill/kd", "trial/kd", ".code/control", ".code/shadow", ".code/epsilon"}
        and {"distill/sft", ".code/teacher"} <= last.keys() - told
    )
