"""Families: from scratch or from a folder, trained whole or through adapters, refused where they do not fit."""

import copy
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from kdleak.config.load import parse_params
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json, write_parquet
from kdleak.core.paths import Project
from kdleak.data.canaries import write_canaries
from kdleak.data.records import ROLES
from kdleak.distill.methods import METHODS
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.compatibility import check_fit
from kdleak.models.families import load_family
from kdleak.models.lora import merged, with_lora
from kdleak.pipeline.base import make_bases
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.teacher import fine_tune_teacher
from tests.support.audits import audit
from tests.support.pipeline_project import ROOT
from tests.support.standalone_models import model_that_knows, people, tokenizer_of
from tests.support.tiny_models import tiny_model

FAMILIES = yaml.safe_load((ROOT / "families.yaml").read_text())
SMALL = {
    "data.sizes": {"private": 12, "public": 12, "heldout": 12, "auxiliary": 6, "population": 6},
    "base.epochs": 1,
    "teacher.epochs": 1,
    "canaries.repetitions": [1],
    "canaries.each": 1,
    "canaries.references": 4,
    "generation.max_new_tokens": 8,
    "audit.mope.draws": 1,
    "audit.blocks.draws": 2,
    "audit.permutations": 10,
} | {f"kd.recipes.{method}.epochs": 1 for method in METHODS}


def params(**changes):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in {**SMALL, **changes}.items():
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[last] = value
    return parse_params(content)


def project_with(folder, families) -> Project:
    """A project of 48 records, and the families of these entries."""
    rows = people(48, seed=4)
    roles = np.repeat(ROLES, [12, 12, 12, 6, 6])
    frame = pd.DataFrame(rows).assign(role=roles, task="qa", context="", record_id=[f"{i:04d}" for i in range(48)])
    frame["group_id"], frame["facts"] = frame["record_id"], [[] for _ in roles]
    made = Project(folder)
    write_parquet(frame, made.records)
    made.families.write_text(yaml.safe_dump(families))
    return made


@pytest.mark.parametrize("family", ["opt-smoke", "llama-smoke"])
def test_a_family_goes_through_every_stage_and_audit(family, tmp_path):
    """LLaMA through adapters: what is saved is the merged model."""
    project, settings = project_with(tmp_path, FAMILIES), params(**{"model.family": family})
    write_canaries(settings.canaries, 0, project)
    make_bases(settings, project)
    fine_tune_teacher(settings, project)
    for method in ("sft", "kd", "gkd"):
        make_student(method, settings, project)
    audit(project, settings, "teacher", "sft", "kd")
    names = {type(load_model(project.model(name))).__name__ for name in ("teacher", "kd")}
    assert names == {"OPTForCausalLM" if family == "opt-smoke" else "LlamaForCausalLM"}
    report = read_json(project.membership("kd"))
    assert not report["not_applicable"] and len(read_json(project.blocks("kd"))["blocks"]) == 1
    start, end = (load_model(f).state_dict() for f in (project.base_teacher, project.model("teacher")))
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    if family == "llama-smoke":
        assert changed and all(name.split(".")[-2] in ("q_proj", "v_proj") for name in changed)
    else:
        assert changed == set(start)


def test_a_family_of_local_folders_is_loaded_as_one_of_the_hub_would_be(tmp_path):
    tokenizer = tokenizer_of(people(48, 4))
    entry = {}
    for part, family, seed in (("teacher", "gpt2", 1), ("small", "gpt2", 2), ("external", "opt", 3)):
        model = tiny_model(family, seed=seed, layers=1, vocabulary=len(tokenizer), positions=512)
        save_checkpoint(model, tokenizer, tmp_path / "hub" / part)
        entry[part] = {"hub": str(tmp_path / "hub" / part)}
    family = {"teacher": entry["teacher"], "students": {"small": entry["small"]}, "external": entry["external"]}
    project, settings = project_with(tmp_path, {"mine": family}), params(**{"model.family": "mine"})
    make_bases(settings, project)
    weights = (project.base_student / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "hub" / "small" / "model.safetensors").read_bytes()
    assert load_tokenizer(project.base_teacher).get_vocab() == tokenizer.get_vocab()
    assert read_json(project.base_training("student")) == {"history": [], "records": 0}
    write_canaries(settings.canaries, 0, project)
    fine_tune_teacher(settings, project)
    make_student("sft", settings, project)
    make_student("kd", settings, project)
    assert load_model(project.model("kd")).config.n_layer == 1


def test_models_that_do_not_fit_together_are_refused_and_both_are_named(tmp_path):
    wide, narrow = tokenizer_of(people(48, 4)), tokenizer_of(people(48, 4), words=280)
    folders = {
        "teacher": model_that_knows([], tmp_path / "a", wide),
        "student": model_that_knows([], tmp_path / "b", narrow, family="opt"),
    }
    names = {"teacher": "org/a@1", "student": "org/b@2"}
    with pytest.raises(KdleakError, match=r"teacher org/a@1 has a vocabulary of 320, the student org/b@2 one of 280"):
        check_fit(folders, names, 100)
    with pytest.raises(KdleakError, match=r"teacher org/a@1 has 128 positions, model.max_tokens is 512"):
        check_fit(folders, names, 512)
    config = folders["student"] / "config.json"
    config.write_text(config.read_text().replace("OPTForCausalLM", "OPTForSequenceClassification"))
    with pytest.raises(KdleakError, match=r"student org/b@2 is a OPTForSequenceClassification; a causal LM is needed"):
        check_fit(folders, names, 100)
    same = tokenizer_of(people(48, 99))
    assert len(same) == len(wide)
    other = model_that_knows([], tmp_path / "c", same)
    with pytest.raises(KdleakError, match="of other tokens"):
        check_fit({"teacher": folders["teacher"], "student": other}, names, 100)


def test_a_base_with_pickle_weights_is_refused(tmp_path):
    folder = model_that_knows([], tmp_path / "hub", tokenizer_of(people(48, 4)))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    origin = {"hub": str(folder)}
    family = {"teacher": origin, "students": {"small": origin}, "external": origin}
    project = project_with(tmp_path, {"mine": family})
    with pytest.raises(KdleakError, match="pickle files are never read"):
        make_bases(params(**{"model.family": "mine"}), project)


def test_a_hub_family_out_of_reach_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    project = project_with(tmp_path, FAMILIES)
    with pytest.raises(
        KdleakError, match=r"openai-community/gpt2-xl: no such folder here.* at revision 15ea56d"
    ) as error:
        make_bases(params(**{"model.family": "gpt2", "model.student": "base"}), project)
    assert "\n" not in str(error.value)


def test_adapters_leave_a_model_as_it_was_until_it_is_trained_and_merge_to_the_same_function():
    lora = load_family(ROOT / "families.yaml", "llama-smoke").lora
    model = tiny_model("llama", layers=2)
    ids = torch.arange(1, 20)[None]
    before = model(ids).logits
    wrapped = with_lora(copy.deepcopy(model), lora, seed=0).eval()
    torch.testing.assert_close(wrapped(ids).logits, before, rtol=0, atol=1e-6)
    trainable = {n for n, p in wrapped.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in name for name in trainable)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    trained = wrapped(ids).logits
    assert not torch.allclose(trained, before, atol=1e-3)
    plain = merged(wrapped)
    torch.testing.assert_close(plain(ids).logits, trained, rtol=0, atol=1e-4)
    assert set(plain.state_dict()) == set(model.state_dict())


def test_adapters_for_an_architecture_without_those_projections_are_refused():
    lora = load_family(ROOT / "families.yaml", "llama2").lora
    with pytest.raises(KdleakError, match="a GPT2LMHeadModel has no 'q_proj'"):
        with_lora(tiny_model("gpt2"), lora, seed=0)


@pytest.mark.parametrize(("family", "size"), [(f, s) for f, entry in FAMILIES.items() for s in entry["students"]])
def test_the_settings_of_every_family_are_valid_params(family, size):
    entry = load_family(ROOT / "families.yaml", family)
    settings = {"model.family": family, "model.student": size, **entry.settings(size)}
    found = params(**settings)
    assert found.model.family == family
    for origin in (entry.teacher, entry.student(size), entry.external):
        assert origin.scratch or origin.package or origin.prune or len(origin.revision) == 40


def test_the_papers_recipes_depend_on_the_size():
    family = load_family(ROOT / "families.yaml", "gpt2")
    batches = {size: family.settings(size)["kd.recipes.kd.batch_size"] for size in family.students}
    assert batches == {"large": 4, "medium": 8, "base": 16}
    assert load_family(ROOT / "families.yaml", "llama2").settings("3b")["teacher.lr"] == 5e-4


def test_kdleak_family_prints_what_dvc_takes(tmp_path, monkeypatch, capsys):
    from kdleak.cli import results

    shutil.copy(ROOT / "families.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    results.family("gpt2", "base")
    printed = capsys.readouterr().out
    assert printed.startswith("-S model.family=gpt2 -S model.student=base -S ")
    assert "-S teacher.epochs=5" in printed and "-S kd.recipes.kd.batch_size=16" in printed
