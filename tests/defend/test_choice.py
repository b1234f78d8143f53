"""params.yaml's section `defence`: one name and its knobs, and what is wrong with others in one line."""

from __future__ import annotations

import pytest

from kdleak.core.errors import KdleakError
from kdleak.defend.choice import check_defence, chosen
from kdleak.defend.registry import Acts, Defence, defence
from tests.support.defending import settings


def refused(name: str, **knobs: object) -> str:
    with pytest.raises(KdleakError) as caught:
        check_defence(settings(name, **knobs))
    return str(caught.value)


def test_a_name_and_its_knob_are_the_defence():
    found = chosen(settings("dp_sgd", sigma=0.5).defence)
    assert (found.name, found.acts_on) == ("dp_sgd", Acts.TEACHER)
    assert repr(found) == "PrivateTeacher(sigma=0.5, clip=1.0)"
    assert chosen(settings("top_k").defence).model_dump() == {"k": 5}


@pytest.mark.parametrize(
    ("name", "knobs", "words"),
    [
        ("dp_sdg", {}, "params.yaml: defence.name: 'dp_sdg' is unknown; did you mean 'dp_sgd'?"),
        ("top_k", {"sgima": 1.0}, "defence.sgima: no defence has this knob; did you mean 'sigma'?"),
        ("top_k", {"sigma": 0.5}, "defence.sigma: 'top_k' does not read it; leave it empty, or name one of dp_sgd"),
        ("none", {"rank": 2}, "defence.rank: 'none' does not read it; leave it empty, or name one of lora"),
        ("top_k", {"k": 0}, "defence.k: input should be greater than or equal to 1"),
        ("dp_sgd", {"sigma": -0.5}, "defence.sigma: input should be greater than or equal to 0"),
        ("dp_sgd", {"sigma": "big"}, "defence.sigma: input should be a valid number"),
        ("dp_sgd", {"clip": 0.0}, "defence: clip: noise is a multiple of it; give a bound, or set sigma to 0"),
        ("early_stop", {"epochs": 3}, "defence.epochs: 'early_stop' after 3 of 3 epochs stops nothing"),
        ("regularise", {"label_smoothing": 0.0}, "'regularise' with all of its knobs at 0 is no defence"),
        ("filter_public", {"dropped": 1.0}, "defence.dropped: input should be less than 1"),
        ("blend", {"base_share": 1.5}, "defence.base_share: input should be less than or equal to 1"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_key(name, knobs, words):
    assert words in refused(name, **knobs)


@pytest.mark.parametrize("name", ["none", "DP", "a defence", "../x", ""])
def test_a_name_is_new_and_fit_for_a_path_and_a_command_line(name):
    with pytest.raises(ValueError, match=r"two defences are called|use lower-case letters"):
        defence(name, acts_on=Acts.SIGNAL, source="a test")(Defence)


def test_an_empty_section_is_refused_as_any_other():
    with pytest.raises(KdleakError, match=r"defence\.name: "):
        settings("")
