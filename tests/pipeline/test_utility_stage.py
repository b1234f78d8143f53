"""What a student is worth."""

from __future__ import annotations

import pytest

from kdleak.core.files import read_json
from kdleak.core.paths import Project
from kdleak.pipeline.utility import measure_utility
from tests.support.distillation import SIZES, params, untrained


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return untrained(tmp_path_factory.mktemp("project"))


def test_utility_is_measured_on_the_held_out_records(project):
    measure_utility("sft", params(), project)
    figures = read_json(project.utility("sft"))
    assert figures["records"] == SIZES["heldout"]
    assert figures["perplexity"] > 1 and figures["perplexity_of_base"] > 1
    low, high = figures["rouge_l_ci95"]
    assert 0 <= low <= figures["rouge_l"] <= high <= 1
