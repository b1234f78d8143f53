"""What a student is worth."""

from __future__ import annotations

import pytest

from kdleak.core.files import read_json
from kdleak.core.paths import Project
from kdleak.core.variants import Variant
from kdleak.models.checkpoints import load_tokenizer
from kdleak.pipeline.measure import measure_base, measure_run
from kdleak.pipeline.passes import write_passes
from kdleak.pipeline.utility import judge_utility
from tests.support.distillation import SIZES, params, untrained


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    made = untrained(tmp_path_factory.mktemp("project"))
    if not made.base_external.exists():
        made.base_external.symlink_to(made.base_student)
    return made


def test_utility_is_measured_on_the_held_out_records(project):
    write_passes(measure_base(project.base_student, params(), project), project.base_passes("student"))
    passes = measure_run(Variant("sft"), [], params(), project, memorization=False)
    judge_utility(Variant("sft"), passes, load_tokenizer(project.model("sft")), project)
    figures = read_json(project.utility("sft"))
    assert figures["records"] == SIZES["heldout"]
    assert figures["perplexity"] > 1 and figures["perplexity_of_base"] > 1
    low, high = figures["rouge_l_ci95"]
    assert 0 <= low <= figures["rouge_l"] <= high <= 1
