"""A method is one file: put into the folder, it is found, checked, and trained by the pipeline's stages."""

from __future__ import annotations

import copy
import sys

import pytest

from kdleak.config.load import parse_params
from kdleak.core.errors import KdleakError
from kdleak.distill import methods
from kdleak.distill.methods import METHODS
from kdleak.distill.recipes import check_methods, recipe
from kdleak.distill.registry import Method, method
from tests.support.distillation import DEFAULT, made, untrained

TOY = '''
"""Forward and reverse KL in one."""

from kdleak.config.schema import Share
from kdleak.distill.divergences import forward_kl, reverse_kl
from kdleak.distill.matching import DivergenceMethod
from kdleak.distill.registry import method


@method("toy_kl", source="a test")
class Toy(DivergenceMethod):
    """balance: of the forward KL."""

    loss = "toy"
    balance: Share = 0.5

    def divergence(self):
        def both(student, teacher):
            return self.balance * forward_kl(student, teacher) + (1 - self.balance) * reverse_kl(student, teacher)

        return both
'''


@pytest.fixture
def toy(tmp_path, monkeypatch) -> str:
    """A method whose file was put into a folder of methods."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    methods.discover()
    yield "toy_kl"
    del METHODS["toy_kl"], sys.modules["kdleak.distill.methods.toy"]


def test_a_file_makes_a_method_and_params_need_not_know_it(toy, tmp_path):
    content = copy.deepcopy(DEFAULT)
    content["study"]["methods"] += [toy]
    content["kd"]["method"] = toy
    params = parse_params(content)
    check_methods(params)
    assert recipe(toy, params.kd) == METHODS[toy]()
    record = made(toy, untrained(tmp_path / "project"))
    assert (record["loss"], record["text"], record["starts_from"]) == ("toy", "references", "sft")
    assert record["options"] == {"balance": 0.5} and len(record["history"]) == 2
    assert record["history"][1]["loss"] < record["history"][0]["loss"]


def test_its_options_are_checked_like_any_others(toy):
    content = copy.deepcopy(DEFAULT)
    content["kd"]["recipes"][toy] = {"balanse": 0.5}
    with pytest.raises(KdleakError, match=r"kd\.recipes\.toy_kl\.balanse: unknown key; did you mean 'balance'\?"):
        check_methods(parse_params(content))


@pytest.mark.parametrize("name", ["kd", "KD", "a method", "../x", "", "x;y"])
def test_a_name_is_new_and_fit_for_a_path_and_a_command_line(name):
    before = dict(METHODS)
    with pytest.raises(ValueError, match=r"two methods are called|use lower-case letters"):
        method(name, source="a test")(Method)
    assert before == METHODS
