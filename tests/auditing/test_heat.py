"""Claims on `--show-text`: texts stand in one private file, if it is asked for; a token's colour is its shift."""

import html
import re
import stat
from typing import Any

import numpy as np
import pytest

import kdleak
from kdleak.auditing.export import export_logprobs
from kdleak.auditing.heat import coloured, token_heat
from kdleak.auditing.settings import Settings
from kdleak.core.errors import KdleakError
from kdleak.inference.token_statistics import TokenStatistics
from tests.support.standalone_models import model_that_knows, people, tokenizer_of

MEMBERS, NONMEMBERS = people(24, 1), people(24, 2)
HOW: dict[str, Any] = {"template": "{instruction}\n", "attacks": ["loss"], "memorization": False}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return model_that_knows(MEMBERS[:16], tmp_path_factory.mktemp("heat") / "student", tokenizer_of(people(12, 3)))


def test_texts_stand_in_a_private_file_that_was_asked_for_and_nowhere_else(student, tmp_path):
    result = kdleak.audit(student, MEMBERS, NONMEMBERS, show_text=True, out=tmp_path, **HOW)
    page = html.unescape(re.sub("<[^>]*>", "", (tmp_path / "exposed-texts.html").read_text()))
    shown = [row for row in MEMBERS if row["response"] in page and row["instruction"] in page]
    assert len(shown) == 20 == len(result.figures["exposed"])
    assert not any(row["response"] in page for row in NONMEMBERS)
    assert stat.S_IMODE((tmp_path / "exposed-texts.html").stat().st_mode) == 0o600
    for name in ("report.html", "audit.json", "scores.parquet"):
        content = (tmp_path / name).read_bytes()
        assert not any(row["response"].encode() in content for row in MEMBERS)
    kdleak.audit(student, MEMBERS, NONMEMBERS, out=tmp_path, **HOW)
    assert not (tmp_path / "exposed-texts.html").exists()


def test_a_token_has_its_shift_and_every_character_stands_once():
    """By hand: the first token begins in the prompt, the third shares a character with the second."""
    spans, heat = np.array([[-1, 2], [2, 4], [3, 5]]), np.array([2.0, -8.0, 0.0])
    pieces = list(coloured("ab<d e", spans, heat, "why"))
    assert [re.sub("<[^>]*>", "", str(p)) for p in pieces] == ["ab", "&lt;d", " ", "e"]
    assert 'rgba(214,69,41,0.30)" title="+2.00 nats, why"' in pieces[0]
    assert 'rgba(41,98,214,0.60)" title="-8.00 nats, why"' in pieces[1]


def test_the_colour_is_the_shift_from_base_or_baseline_that_reads_the_same_tokens():
    def statistics(values, offsets=(0, 2)):
        columns = [np.array(values, np.float32)] * 3
        return TokenStatistics(np.array(["r"]), np.array(offsets), *columns, missed=np.zeros(len(values), bool))

    own, base, other = statistics([-1.0, -3.0]), statistics([-2.0, -2.0]), statistics([-2.0], (0, 1))
    for beside, expected, words in (
        ({"pretrained": base, "no_kd": own}, [1.0, -1.0], "its pretrained base"),
        ({"pretrained": other, "no_kd": base}, [1.0, -1.0], "the baseline"),
        ({}, [1.0, -1.0], "mean token"),
    ):
        heat, said = token_heat(own, beside)
        assert heat.tolist() == expected and words in said


def test_a_log_prob_file_has_no_characters(student, tmp_path):
    export_logprobs(student, MEMBERS, NONMEMBERS, None, Settings(template=HOW["template"]), tmp_path / "s.jsonl")
    with pytest.raises(KdleakError, match="--show-text: a log-prob file does not say which characters a token has"):
        kdleak.audit(None, MEMBERS, NONMEMBERS, logprobs={"student": tmp_path / "s.jsonl"}, show_text=True, **HOW)
