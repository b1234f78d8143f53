"""What holds for every registered defence: registering is being tested."""

from __future__ import annotations

import pytest

from kdleak.core.files import read_parquet
from kdleak.data.canaries import planted_rows
from kdleak.data.encoding import Encoder
from kdleak.data.records import read_role
from kdleak.defend.choice import acting, check_defence, chosen
from kdleak.defend.defences import DEFENCES
from kdleak.defend.registry import Acts, Defence
from kdleak.inference.release import identity
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.training.finetune import cross_entropy
from kdleak.training.run import run_training, training_seed
from tests.support.defending import defended_project, needs_accountant, settings, student_of, teacher_of, weights
from tests.support.distillation import encoded

#: Methods of a defence, by where it acts.
HOOKS = {
    Acts.TEACHER: {"teacher"},
    Acts.SIGNAL: {"release"},
    Acts.TRANSFER_SET: {"transfer_set"},
    Acts.STUDENT: {"student", "method"},
    Acts.ENSEMBLE: {"shards", "release", "student"},
    None: set(),
}
every_defence = pytest.mark.parametrize("name", list(DEFENCES))
every_other = pytest.mark.parametrize("name", [name for name in DEFENCES if name != "none"])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return defended_project(tmp_path_factory.mktemp("defended"))


@pytest.fixture(scope="module")
def undefended(tmp_path_factory) -> dict[str, bytes]:
    """Weights of teacher and of a student of the untrained teacher."""
    made = defended_project(tmp_path_factory.mktemp("undefended"))
    student = student_of(made)[0]
    return {"student": student, "teacher": teacher_of(made)[0]}


@every_defence
def test_it_says_what_it_is_and_what_it_protects_and_what_not(name):
    options = DEFENCES[name]
    for words in (options.source, options.protects, options.does_not_protect, options.__doc__):
        assert words and words.strip()
    assert options.knob in (*options.model_fields, "")
    assert bool(options.model_fields) == bool(options.knob)
    assert options.protects != options.does_not_protect


@every_defence
def test_it_changes_nothing_but_the_place_where_it_acts(name):
    hooks = {hook for hooks in HOOKS.values() for hook in hooks}
    own = {hook for hook in hooks if getattr(DEFENCES[name], hook) is not getattr(Defence, hook)}
    assert own <= HOOKS[DEFENCES[name].acts_on]
    assert own or name == "none"


@every_defence
def test_its_defaults_are_valid_and_a_wrong_knob_is_refused(name):
    needs_accountant(name)
    check_defence(settings(name))
    knob = DEFENCES[name].knob
    if knob:
        with pytest.raises(Exception, match=rf"defence\.{knob}: "):
            chosen(settings(name, **{knob: -1}).defence)


@every_other
def test_it_acts_where_it_says_and_leaves_the_other_stage_its_bytes(name, project, undefended, tmp_path):
    needs_accountant(name)
    own = defended_project(tmp_path / name)
    method, acts_on = "kd", DEFENCES[name].acts_on
    on_teacher, on_student = acts_on in (Acts.TEACHER, Acts.ENSEMBLE), acts_on is not Acts.TEACHER
    if acts_on is Acts.ENSEMBLE:  # there is a signal once there are its teachers
        teacher, of_teacher = teacher_of(own, name)
    student, record = student_of(own, name, method)
    if acts_on is not Acts.ENSEMBLE:
        teacher, of_teacher = teacher_of(own, name)
    assert (teacher != undefended["teacher"]) is on_teacher
    assert (student != undefended["student"]) is on_student
    for there, found in ((on_teacher, of_teacher), (on_student, record)):
        assert ("defence" in found) is there
    described = (of_teacher if on_teacher else record)["defence"]
    assert (described["name"], described["acts_on"]) == (name, DEFENCES[name].acts_on)
    assert described["knobs"].keys() == DEFENCES[name].model_fields.keys()


@every_other
def test_the_baseline_learns_from_no_teacher_and_has_no_defence(name, project):
    if DEFENCES[name].acts_on in (Acts.TEACHER, Acts.ENSEMBLE):
        pytest.skip("it acts on the teacher")
    plain = student_of(project, "none", "sft")
    assert student_of(project, name, "sft") == plain


def test_without_a_defence_the_teacher_is_fine_tuned_as_it_always_was(project, tmp_path):
    """By the training loop alone, without any code of defences: the same bytes."""
    params, base = settings(), project.base_teacher
    rows = planted_rows(read_parquet(project.canaries))
    records = encoded(project, "private") + Encoder(load_tokenizer(base)).encode_frame(rows)
    model = load_model(base)
    run_training(model, records, cross_entropy, params.teacher, params, name="teacher", state=tmp_path / "state")
    save_checkpoint(model, load_tokenizer(base), tmp_path / "model")
    teacher, record = teacher_of(project)
    assert teacher == (tmp_path / "model" / "model.safetensors").read_bytes()
    assert set(record) == {"history", "records", "canary_rows"}
    assert training_seed(params, "teacher") == training_seed(settings("dp_sgd"), "teacher")


def test_none_gives_everything_out_and_leaves_nothing_out(project):
    none = DEFENCES["none"]()
    public = read_role(project.records, "public")
    assert none.release(project.base_teacher, project.model("teacher")) is identity
    assert none.transfer_set(public, lambda: public) is public
    assert none.described({}) == {}
    assert acting(settings("top_k"), Acts.TEACHER) == none
    assert acting(settings("top_k"), Acts.SIGNAL) == DEFENCES["top_k"]()
    assert weights(project, "teacher")
