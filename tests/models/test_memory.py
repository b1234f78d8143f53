"""A model of GPT-2's shape (124 million weights) goes through teacher, one KD step and an audit in little memory."""

import os
from collections.abc import Callable

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import kdleak
from kdleak.core.files import read_json
from kdleak.data.canaries import write_canaries
from kdleak.models.checkpoints import save_checkpoint
from kdleak.pipeline.base import make_bases
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.teacher import fine_tune_teacher
from tests.models.test_families import params, project_with
from tests.support.forks import fork
from tests.support.standalone_models import people, tokenizer_of

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not hasattr(os, "fork"), reason="measures forks of itself")]
GIB = 2**30
#: Bytes of its weights; gradients and Adam's moments are three times that.
WEIGHTS = 4 * 124_439_808
SETTINGS = {
    "model.family": "mine",
    "model.max_prompt_tokens": 32,
    "model.max_tokens": 64,
    "teacher.batch_size": 16,
    "kd.start": "base",
    "kd.recipes.kd.batch_size": 16,
    "compute.micro_batch_tokens": 256,
}


def peak(work: Callable[[], object]) -> int:
    """Bytes that a process of its own has at most resident while it does `work`."""
    _, status, usage = os.wait4(fork(work), 0)
    assert status == 0
    return usage.ru_maxrss * 1024


def test_gpt2_small_goes_through_teacher_one_kd_step_and_an_audit(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    base, settings = tmp_path / "hub", params(**SETTINGS)
    origin = {"hub": str(base)}
    families = {"mine": {"teacher": origin, "students": {"small": origin}, "external": origin}}
    project = project_with(tmp_path / "project", families)
    write_canaries(settings.canaries, 0, project)

    def build() -> None:
        tokenizer = tokenizer_of(people(48, 4))
        model = GPT2LMHeadModel(GPT2Config(eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.eos_token_id))
        assert 4 * sum(p.numel() for p in model.parameters()) == WEIGHTS
        save_checkpoint(model, tokenizer, base)
        make_bases(settings, project)

    def audit() -> None:
        lists = [people(10, seed) for seed in (1, 2)]
        models = {"teacher": project.model("teacher"), "pretrained": project.base_student}
        limits = {"max_tokens": 64, "max_prompt_tokens": 32, "batch_tokens": 512}
        kdleak.audit(project.model("kd"), *lists, quick=True, memorization=False, **models, **limits)

    stages = {
        "build": build,
        "teacher": lambda: fine_tune_teacher(settings, project),
        "kd": lambda: make_student("kd", settings, project),
        "audit": audit,
    }
    peaks = {name: peak(work) / GIB for name, work in stages.items()}
    torch.set_num_threads(threads)
    print({name: f"{gib:.2f} GiB" for name, gib in peaks.items()})
    assert [entry["step"] for entry in read_json(project.training("kd"))["history"]] == [1]
    assert peaks["teacher"] < 4 * WEIGHTS / GIB + 1  # weights, gradients, two moments
    assert peaks["kd"] < 5 * WEIGHTS / GIB + 1  # and the teacher
    assert peaks["audit"] < 2 * WEIGHTS / GIB + 1  # one model at a time
