"""What a student is worth."""

from __future__ import annotations

import math

import pytest
import torch

from kdleak.core.files import read_json
from kdleak.core.paths import Project
from kdleak.core.variants import Variant
from kdleak.data.records import read_role
from kdleak.models.checkpoints import load_model, load_tokenizer
from kdleak.pipeline.measure import measure_base, measure_run
from kdleak.pipeline.passes import write_passes
from kdleak.pipeline.utility import judge_utility, rouge_l
from kdleak.stats import mean_interval
from tests.support.distillation import SIZES, encoded, params, untrained


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    made = untrained(tmp_path_factory.mktemp("project"))
    if not made.base_external.exists():
        made.base_external.symlink_to(made.base_student)
    return made


def test_utility_is_measured_on_other_records_than_membership(project):
    """Perplexity by the plain formula, over the population"""
    write_passes(measure_base(project.base_student, params(), project), project.base_passes("student"))
    passes = measure_run(Variant("sft"), [], params(), project, memorization=False)
    judge_utility(Variant("sft"), passes, load_tokenizer(project.model("sft")), project)
    figures = read_json(project.utility("sft"))
    assert figures["records"] == SIZES["population"] == len(passes.responses)
    low, high = figures["rouge_l_ci95"]
    assert 0 <= low <= figures["rouge_l"] <= high <= 1
    population = read_role(project.records, "population")
    scores = rouge_l(load_tokenizer(project.model("sft")), passes.responses, list(population["response"]))
    owners = population["group_id"].to_numpy()
    assert [low, high] == pytest.approx(mean_interval(scores, owners)[1:], abs=1e-6)
    for name, folder in (("perplexity", project.model("sft")), ("perplexity_of_base", project.base_student)):
        assert figures[name] == pytest.approx(perplexity(folder, encoded(project, "population")), abs=1e-3)


def perplexity(folder, records) -> float:
    """Record by record in float64: exp of the mean of -log p over all response tokens, EOS included."""
    model, total, count = load_model(folder).double(), 0.0, 0
    for record in records:
        logits = model(torch.tensor([record.prompt + record.response])).logits[0, len(record.prompt) - 1 : -1]
        log_probs = logits.log_softmax(-1).gather(-1, torch.tensor(record.response)[:, None])
        total, count = total - log_probs.sum().item(), count + len(record.response)
    return math.exp(total / count)
