"""A teacher that was fine-tuned elsewhere (teacher.epochs 0), heads of unequal size, folders as dependencies."""

import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json
from kdleak.core.variants import CONTROL
from kdleak.data.canaries import write_canaries
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.vocabulary import vocabulary_size
from kdleak.pipeline.base import make_bases
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.teacher import fine_tune_teacher
from kdleak.pipeline.validate import check_environment, local_models
from tests.models.test_families import params, project_with
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model

TOKENIZER = tokenizer_of(people(48, 4))


def save(folder, seed, vocabulary=None, tokenizer=TOKENIZER):
    model = tiny_model(seed=seed, layers=1, vocabulary=vocabulary or len(tokenizer), positions=512)
    save_checkpoint(model, tokenizer, folder)
    return model


def own_family(folder, **parts):
    """A family of local folders, by part; `tuned` is the teacher's fine-tuned version."""
    origins = {part: {"hub": str(folder / part)} for part in ("teacher", "tuned", "student")}
    family = {"teacher": origins["teacher"], "students": {"small": origins["student"]}, "external": origins["student"]}
    return project_with(folder, {"mine": family | {"fine_tuned": origins["tuned"]} | parts})


@pytest.fixture
def folder(tmp_path):
    for seed, part in enumerate(("teacher", "tuned", "student")):
        save(tmp_path / part, seed)
    return tmp_path


OWN = {"model.family": "mine", "teacher.epochs": 0}


def test_ones_own_teacher_is_taken_as_it_is_and_the_controls_is_its_base(folder):
    project, settings = own_family(folder), params(**OWN)
    check_environment(settings, project)
    write_canaries(settings.canaries, 0, project)
    make_bases(settings, project)
    fine_tune_teacher(settings, project)
    fine_tune_teacher(settings, project, CONTROL.teacher)
    for name, source in (("teacher", "tuned"), (CONTROL.teacher, "teacher")):
        found, expected = load_model(project.model(name)), load_model(folder / source)
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))
    assert read_json(project.training("teacher")) == {"history": [], "records": 0, "canary_rows": 0}
    make_student("sft", settings, project)
    make_student("kd", settings, project)


def test_teacher_epochs_0_is_refused_where_a_teacher_would_have_to_be_trained(folder):
    with pytest.raises(KdleakError, match=r"teacher.epochs: 0 trains no teacher, and families.yaml names none that is"):
        check_environment(params(**OWN), own_family(folder, fine_tuned=None))
    for more, named in (
        ({"shadow.models": 8}, "shadow.models"),
        ({"epsilon.canaries": 40}, "epsilon.canaries"),
        ({"defence.name": "lora"}, "defence.name 'lora'"),
    ):
        with pytest.raises(KdleakError, match=rf"teacher.epochs: 0 trains no teacher, and {named} needs one that is"):
            check_environment(params(**OWN, **more), own_family(folder))


def test_a_fine_tuned_teacher_of_another_vocabulary_is_refused(folder):
    other = tokenizer_of(people(48, 99))
    save(folder / "tuned", 1, tokenizer=other)
    project, settings = own_family(folder), params(**OWN)
    make_bases(settings, project)
    with pytest.raises(KdleakError, match=r"fine_tuned .* has another vocabulary than its family's teacher; name"):
        fine_tune_teacher(settings, project)


@pytest.mark.parametrize("wide", ["teacher", "student"])
def test_heads_of_unequal_size_are_cut_to_the_smaller_and_every_token_keeps_its_logit(wide, folder):
    model = save(folder / wide, 7, vocabulary=len(TOKENIZER) + 13)
    project, settings = own_family(folder), params(**{"model.family": "mine"})
    make_bases(settings, project)
    assert {vocabulary_size(f) for f in (project.base_teacher, project.base_student)} == {len(TOKENIZER)}
    ids = torch.tensor([[5, 3, 17]])
    found = load_model(project.base_teacher if wide == "teacher" else project.base_student)(ids).logits
    torch.testing.assert_close(found, model(ids).logits[..., : len(TOKENIZER)], rtol=0, atol=1e-5)
    assert load_tokenizer(project.base_teacher).get_vocab() == TOKENIZER.get_vocab()


def test_a_stage_depends_on_what_lies_in_the_folders_that_it_copies(folder):
    project = own_family(folder)
    trained, own = params(**{"model.family": "mine"}), params(**OWN)

    def said():
        return local_models("base", own, project), local_models("teacher", own, project)

    base, teacher = said()
    assert base.count("model ") == 3 and teacher.count("model ") == 1
    assert local_models("teacher", trained, project) == "" == local_models("distill", own, project)
    assert local_models("base", params(), project_with(folder / "b", {"gpt2-tiny": _scratch()})) == ""
    (folder / "tuned" / "tokenizer_config.json").write_text("{}")
    assert said()[0] == base and said()[1] != teacher
    save(folder / "student", 8)
    assert said()[0] != base


def _scratch():
    scratch = {"scratch": {"model_type": "gpt2"}}
    return {"tokenizer": {"vocab_size": 300}, "teacher": scratch, "students": {"small": scratch}, "external": scratch}
