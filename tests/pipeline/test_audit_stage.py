"""Claims on the audit of one model: complete, paid for once, the same each time, and honest about what it lacks."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import yaml

from kdleak.attacks import ATTACKS, AttackInput
from kdleak.attacks.mope import noise_of
from kdleak.attacks.perturbation import Noise, PerturbationScores
from kdleak.auditing import engine, passes
from kdleak.auditing.blocks import block_report
from kdleak.auditing.settings import EngineSettings
from kdleak.config.load import parse_params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.core.variants import CONTROL
from kdleak.models.checkpoints import save_checkpoint
from kdleak.models.tokenizer import train_tokenizer
from kdleak.pipeline.judge import judge_model
from kdleak.pipeline.passes import audited_records, read_passes, reference_files
from kdleak.stats import auc
from tests.support.audits import audit
from tests.support.pipeline_project import ROOT
from tests.support.tiny_models import tiny_model

WORDS = np.array(["river", "stone", "Cloud", "ember", "Field", "glass", "harbour", "iron", "juniper", "kite"])
NAMES = ("teacher", "sft", "kd")
MODELS = {"base/teacher": 1, "base/student": 2, "base/external": 3, "teacher": 4, "students/sft": 5, "students/kd": 6}


def params(**audit):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["data"]["sizes"] = {"private": 12, "public": 12, "heldout": 12, "auxiliary": 12, "population": 12}
    small = {"mope": {"sigma": 0.1, "draws": 2}, "blocks": {"sigma": 0.2, "draws": 2, "most": 12}, "permutations": 20}
    content["audit"] |= small | {"prefix_tokens": 20} | audit
    return parse_params(content)


@pytest.fixture
def project(tmp_path):
    generator = np.random.default_rng(0)
    roles = np.repeat(["private", "heldout", "population", "public"], 12)
    frame = pd.DataFrame({"record_id": [f"{i * 7919 % 1009:04d}" for i in range(48)], "role": roles, "task": "qa"})
    frame["instruction"] = [" ".join(generator.choice(WORDS, 4)) for _ in roles]
    frame["response"] = [" ".join(generator.choice(WORDS, generator.integers(2, 9))) for _ in roles]
    frame["context"], frame["group_id"], frame["facts"] = "", frame["record_id"], [[] for _ in roles]
    made = Project(tmp_path)
    made.records.parent.mkdir()
    frame.to_parquet(made.records)
    tokenizer = train_tokenizer([*frame["instruction"], *frame["response"]] * 3, 300)
    for name, seed in MODELS.items():
        model = tiny_model("opt" if "external" in name else "gpt2", seed=seed, layers=2, vocabulary=300, positions=512)
        save_checkpoint(model, tokenizer, tmp_path / "models" / name)
    return made


def test_an_audit_is_complete_and_byte_identical_the_second_time(project):
    audit(project, params(), *NAMES)
    files = [f(name) for name in NAMES for f in (project.membership, project.blocks, project.roc, project.passes)]
    first = [path.read_bytes() for path in files]
    report = json.loads(project.membership("kd").read_text())
    assert set(report["attacks"]) == set(params().audit.attacks) and not report["not_applicable"]
    assert set(report["attacks"]) == set(ATTACKS)
    assert set(report["controls"]) == {"blind", "permutation", "overlap", "placebo", "no_kd"}
    teacher = json.loads(project.membership("teacher").read_text())
    without_kd = dict.fromkeys(("ref_no_kd", "ez_no_kd", "wbc_no_kd"), "needs reference 'no_kd'")
    assert teacher["not_applicable"] == {
        "learned": "needs reference 'no_kd'",
        "teacher_aware": "needs reference 'teacher' and reference 'no_kd'",
        **without_kd,
    }
    assert set(teacher["attacks"]) == set(ATTACKS) - {"teacher_aware", "learned", *without_kd}
    scores = pd.read_parquet(project.scores("kd"))
    assert np.isfinite(scores[["loss", "mope", "rmia", "recall", "ez", "wbc", "ref_no_kd"]]).all(axis=None)
    for path in project.cache.iterdir():
        path.unlink()
    audit(project, params(), *NAMES)
    assert [path.read_bytes() for path in files] == first


def test_what_was_measured_is_judged_and_measured_again_without_a_model(project, monkeypatch):
    audit(project, params(), *NAMES)
    first = project.membership("kd").read_bytes()
    monkeypatch.setattr(passes, "load_model", lambda folder, _: pytest.fail(f"{folder.name} was run again"))
    audit(project, params(), *NAMES)
    assert project.membership("kd").read_bytes() == first
    shutil.rmtree(project.cache)
    for weights in project.root.rglob("model.safetensors"):
        weights.unlink()
    for name in NAMES:
        judge_model(name, params(attacks=["wbc", "loss"], permutations=30), project)
    assert set(json.loads(project.membership("kd").read_text())["attacks"]) == {"wbc", "loss"}


def test_rmias_a_is_the_authors_on_the_no_kd_student_and_stands_in_the_report(project):
    """By the plain formula: the first a of 0, .1 … 1 with the largest AUC of public against population."""
    audit(project, params(), *NAMES)
    model, base = (read_passes(path).known for path in (project.passes("sft"), project.base_passes("student")))
    public = set(pd.read_parquet(project.records).query("role == 'public'")["record_id"])
    signal = [
        np.array([np.exp(np.mean(each.log_prob[a:b].astype(np.float64))) for a, b in pairwise(each.offsets)])
        for each in (model, base)
    ]
    inside = np.array([i in public for i in model.record_ids])
    assert inside.sum() == 12 and len(inside) == 24
    areas = []
    for a in np.arange(11) / 10:
        ratio = signal[0] / (((1 + a) * signal[1] + 1 - a) / 2)
        areas.append(auc(ratio[inside], ratio[~inside]).value)
    for name in NAMES:
        report = json.loads(project.membership(name).read_text())
        assert report["attacks"]["rmia"]["a"] == pytest.approx(np.argmax(areas) / 10)
    for name in ("teacher", "kd"):
        assert read_passes(project.passes(name)).known is None


def test_the_control_of_teacher_aware_is_a_student_of_a_teacher_that_saw_no_member(project):
    """By hand: the attack on the control's passes, everything else the audited student's."""
    audit(project, params(), *NAMES)
    control = json.loads(project.membership("kd").read_text())["controls"]["placebo"]["teacher_aware"]
    references = {role: read_passes(path).audited.statistics for role, path in reference_files("kd", project).items()}
    records = audited_records(project)
    inputs = AttackInput(references.pop("control"), references, groups=records["group_id"].to_numpy().astype(str))
    scores, member = ATTACKS["teacher_aware"].score(inputs), (records["role"] == "member").to_numpy()
    assert control["model"] == "control" and control["state"] in ("passed", "failed")
    assert control["auc"] == pytest.approx(auc(scores[member], scores[~member]).value, abs=1e-6)
    project.passes(CONTROL).unlink()
    with pytest.raises(KdleakError, match=r"passes.safetensors: no such file; run the stage that writes it"):
        judge_model("kd", params(), project)


def test_passes_are_private_and_a_damaged_file_of_them_is_one_line(project):
    audit(project, params(), "teacher")
    path = project.passes("teacher")
    assert path.stat().st_mode & 0o077 == 0
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", (project.base_teacher / "model.safetensors").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(KdleakError, match=r"passes.safetensors: damaged \(not the passes of a model\); delete it"):
            read_passes(path)
    path.unlink()
    with pytest.raises(KdleakError, match=r"passes.safetensors: no such file; run the stage that writes it"):
        judge_model("teacher", params(), project)


def test_an_attack_costs_the_passes_that_it_needs_and_no_more(project):
    """Of an audit in one process; the measure stages make those of all attacks."""
    records, folders = audited_records(project), {"target": project.model("teacher"), "external": project.base_external}
    subjects, _ = passes.make_subjects(folders, passes.make_encoders(folders, 256, 512), records)
    results = engine.run(
        subjects, records, EngineSettings(["loss", "mink", "minkpp", "zlib"], 0, permutations=20)
    ).passes
    assert set(results) == {"target"}
    assert not (results["target"].variants or results["target"].computed)


def test_the_noise_of_the_published_code_is_absolute_and_single(project):
    corrected, published = (
        noise_of({"noise": n, "mope": {"sigma": 0.1, "draws": 2}}, "mope", 0) for n in ("corrected", "as_published")
    )
    assert (corrected.relative, corrected.antithetic) == (True, True)
    assert (published.relative, published.antithetic, published.sigma, published.draws) == (False, False, 0.01, 10)
    assert noise_of({"noise": "as_published", "distilled": False}, "mope", 0).sigma == 0.005
    assert noise_of({"noise": "as_published", "distilled": False}, "blocks", 0).sigma == 0.01
    assert corrected.seed == published.seed != noise_of({}, "blocks", 0).seed


def test_a_model_of_blocks_that_differ_says_so_and_one_of_equal_blocks_does_not():
    generator = np.random.default_rng(0)
    keys = pd.DataFrame({"record_id": [f"{i:03d}" for i in range(200)], "task": "qa"})
    keys["role"] = np.where(np.arange(200) % 2, "member", "nonmember")
    is_member = (keys["role"] == "member").to_numpy()
    noise = Noise(sigma=0.1, draws=4)
    base = generator.normal(size=200)
    strong = [
        PerturbationScores(base + lift * is_member + 0.1 * generator.normal(size=(4, 200))) for lift in (0, 2, 0.1)
    ]
    baseline = keys.assign(**{f"block_{i}": generator.normal(size=200) for i in range(3)})
    report = block_report(keys, strong, noise, baseline)
    assert report["spread"]["highest"] == 1 and report["spread"]["p_corrected"] < 1e-6
    assert (
        report["blocks"][1]["excess_over_no_kd"]["p_holm"] < 1e-6 < report["blocks"][0]["excess_over_no_kd"]["p_holm"]
    )
    scores = strong[1].scores
    assert report["blocks"][1]["auc"] == auc(scores[is_member], scores[~is_member]).value
    equal = [PerturbationScores(base + 0.1 * generator.normal(size=(4, 200))) for _ in range(3)]
    assert block_report(keys, equal, noise)["spread"]["p_corrected"] > 0.05
