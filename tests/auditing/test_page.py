"""The audit's page and result, from figures as an audit writes them: no model is run."""

from __future__ import annotations

import copy
import html
import re

import numpy as np
import pandas as pd
import pytest

from kdleak.attacks import ATTACKS
from kdleak.auditing.list_verdict import NO_NULL
from kdleak.auditing.page import report_page
from kdleak.auditing.result import AuditResult
from kdleak.render.palette import STUDENT, STYLES

N = 20
RATES = ("0.25", "0.05", "0.01", "0.001", "0")
SHARES = dict.fromkeys(RATES, 0.4)
LOSS = {"auc": 0.8, "auc_ci95": [0.7, 0.9], "p_holm": 0.001, "tpr_at_fpr": SHARES}
ZLIB = {"auc": 0.6, "auc_ci95": [0.5, 0.7], "p_holm": 0.4, "tpr_at_fpr": SHARES}
AREA = {"auc": 0.5, "auc_ci95": [0.4, 0.6]}
BLIND = {
    **AREA,
    "state": "passed",
    "verdict": "The text is blind.",
    "scorer": "words",
    "noticeable_auc": 0.63,
    "scorers": {"words": AREA, "pretrained": {"auc": 0.52, "auc_ci95": [0.41, 0.61]}},
}
SHUFFLED = {"best": None, "state": "could not run", "verdict": "Nothing to shuffle.", "n_permutations": 0}
MODEL = {"name": "<b>student</b>", "source": "folder", "sha256": "0" * 64, "template": "alpaca", "own_tokenizer": True,
         "starts_with_bos": True, "words": 300}  # fmt: skip
FIGURES = {
    "verdict": {
        "kind": "leak",
        "headline": "It leaks.",
        "sentences": ["Of 1,000 members, 400 are named.", "One half is chance."],
        "strongest": {"attack": "loss", "auc": 0.8, "nonmembers": N},
        "power": {"noticeable_auc": 0.6, "probability": 0.95, "sufficient": True},
    },
    "list": {
        "kind": "learned",
        "why": "",
        "headline": "The student learned from this list.",
        "sentences": ["All attacks together show it."],
        "p_value": 0.0005,
        "alpha": 0.01,
        **AREA,
        "noticeable_auc": 0.56,
        "shares": {"0.6": None, "0.9": 0.12},
        "own_share": 0.3,
        "placebo": {"baseline": 0.4},
    },
    "membership": {
        "attacks": {"zlib": ZLIB, "loss": LOSS},
        "beside": {"no_kd": {"loss": {"auc": 0.5, "auc_ci95": [0.4, 0.6]}}},
        "notes": [],
        "controls": {
            "blind": BLIND,
            "permutation": SHUFFLED,
            "overlap": {"ngram": 13, "some": {"n_nonmembers": 0}},
        },
    },
    "memorization": None,
    "left_out": {
        "rmia": "needs --pretrained, the student as it was before any fine-tuning and --population, other records",
        "mope": "left out by --quick",
    },
    "exposed": [
        {
            "record_id": "f" * 64,
            "place": "members.jsonl, line 3",
            "score": -0.1,
            "nonmembers_above": 0,
            "reproduced": None,
            "agreeing": 0.75,
        }
    ],
    "inputs": {
        "models": {"student": MODEL, "baseline": MODEL},
        "records": {"members": N, "nonmembers": N, "population": 0, "overlap_left_out": {"member": 0, "nonmember": 0}},
        "settings": {"fpr": 0.01},
    },
}


@pytest.fixture
def scores() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    role = ["member"] * N + ["nonmember"] * N
    ids = [f"{i:04x}" for i in range(2 * N)]
    return pd.DataFrame({"record_id": ids, "role": role, "task": "t", "loss": rng.normal(size=2 * N)})


def page_of(scores: pd.DataFrame, kind: str = "leak", **changes: object) -> str:
    figures = copy.deepcopy(FIGURES) | changes
    figures["verdict"]["kind"] = kind
    return report_page(figures, scores, {"no_kd": scores})


def first_screen(page: str) -> str:
    return page.split("<header>")[1].split("</header>")[0]


def test_the_first_screen_says_what_its_words_mean(scores):
    shown = first_screen(page_of(scores))
    assert shown.index("It leaks.") < shown.index("Of 1,000 members") < shown.index("What the words mean")
    assert "AUC: the chance that the attack scores a random member above a random non-member" in shown
    assert "<code>loss</code> scores a record by how likely the student finds its response" in shown
    assert " ".join(ATTACKS["loss"].source.split()) in html.unescape(shown)  # its definition and its paper


def test_the_first_screen_says_what_the_inputs_that_were_not_given_hid(scores):
    shown = first_screen(page_of(scores))
    assert "With <code>--pretrained</code> this audit could have seen how much likelier training made" in shown
    assert "and run <code>rmia</code>" in shown and "Without <code>--quick</code>" in shown
    assert "<code>--population</code>" in shown and "--baseline" not in shown  # the baseline was given
    everything = copy.deepcopy(FIGURES["inputs"])
    everything["models"] |= dict.fromkeys(("teacher", "pretrained", "reference"), MODEL)
    everything["records"]["population"] = 5
    assert "could not see" not in first_screen(page_of(scores, inputs=everything, left_out={}))


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("leak", "distil again with less of a signal"),
        ("no_leak_found", "It is no proof"),
        ("cannot_tell", "do not all belong together"),
        ("lists_differ", "Draw members and non-members from one pool"),
        ("swapped", "which as --nonmembers, and audit again"),
    ],
)
def test_the_first_screen_says_what_to_do_next(kind, step, scores):
    assert step in first_screen(page_of(scores, kind))


@pytest.mark.parametrize(
    ("sufficient", "attack", "of_list", "tone"),
    [
        (True, "ez", "no_evidence", "good"),
        (False, "ez", "cannot_tell", "warn"),
        (True, "loss", "no_evidence", "warn"),
        (True, "ez", "learned", "bad"),
        (True, "ez", NO_NULL, "warn"),
    ],
)
def test_no_leak_found_is_green_only_with_the_stated_power_and_a_strong_attack(
    sufficient, attack, of_list, tone, scores
):
    membership = copy.deepcopy(FIGURES["membership"]) | {"attacks": {attack: LOSS}}
    verdict = FIGURES["verdict"] | {"strongest": {"attack": attack, "auc": 0.8, "nonmembers": N}}
    verdict |= {"power": {"noticeable_auc": 0.62, "probability": 0.95, "sufficient": sufficient}}
    told = {"kind": "cannot_tell", "why": NO_NULL} if of_list == NO_NULL else {"kind": of_list}
    changes = {"membership": membership, "verdict": verdict, "list": FIGURES["list"] | told}
    shown = first_screen(page_of(scores.assign(ez=scores["loss"]), "no_leak_found", **changes))
    assert re.search(r'class="[^"]*callout[^"]*"', shown)[0].split()[-1].strip('"') == tone


def test_the_most_exposed_stand_beside_the_baselines(scores):
    top = {"k": 2, "overlap": 0.8, "overlap_ci95": [0.7, 0.9], "by_chance": 0.1, "p_value": 0.01}
    other, excess = top | {"overlap": 0.76}, {"difference": 0.04, "ci95": [-0.05, 0.1]}
    overlaps = {"loss": {"top": {"0.1": top}, "no_kd": {"top": {"0.1": other}}, "excess": {"0.1": excess}}}
    page = page_of(scores, membership=FIGURES["membership"] | {"exposed_overlap": overlaps})
    row = [".80 [.70, .90]", "10.0 %", ".76 [.70, .90]", "+.04 [-.05, +.10]"]
    assert all(cell in page for cell in row) and "Shared with the teacher" in page


def test_every_blind_scorer_and_every_state_of_a_control_stand_on_the_page(scores):
    """Each scorer's AUC and interval, what it reads, the smallest difference seen; three states, in words."""
    page = html.unescape(page_of(scores))
    assert "An AUC above .630 would have been noticed (95 %)." in page
    assert "Passed. The text is blind. The strongest scorer, 'words': AUC .500 [.400, .600]." in page
    assert "the pretrained base" in page and ".520 [.410, .610]" in page
    assert "Could not run. Nothing to shuffle." in page
    controls = copy.deepcopy(FIGURES["membership"])
    controls["controls"]["permutation"] |= {"state": "failed", "verdict": "Too narrow."}
    controls["controls"]["placebo"] = {"teacher_aware": AREA | {"state": "failed", "verdict": "It hears the teacher."}}
    page = html.unescape(page_of(scores, membership=controls))
    assert "Failed. Too narrow." in page and "Failed. It hears the teacher. AUC .500 [.400, .600]." in page


def test_names_are_text_and_one_model_has_one_colour(scores):
    page = page_of(scores)
    assert "<b>student" not in page and "&lt;b&gt;student" in page and "<script" not in page
    assert STUDENT.colour.lower() in page and STYLES["sft"].colour.lower() in page
    assert "loss" in page and "f" * 16 in page


def test_the_list_as_a_whole_stands_on_the_first_screen_and_in_a_section(scores):
    page = page_of(scores)
    assert "The student learned from this list." in first_screen(page) and "All attacks together show it." in page
    rows = ["p-value, one-sided, of a test at level .01", ".0005", "had each attack an AUC of .90", "12 %", "30 %"]
    assert all(row in page for row in rows) and page.index("The list as a whole") < page.index("Membership")


@pytest.mark.parametrize(("kind", "learned"), [("learned", True), ("no_evidence", False), ("cannot_tell", None)])
def test_a_result_says_in_code_whether_the_list_was_learned_from(kind, learned, scores):
    figures = copy.deepcopy(FIGURES)
    figures["list"]["kind"] = kind
    assert AuditResult(figures, scores, "").learned_from_list is learned


@pytest.mark.parametrize(("kind", "leaks"), [("leak", True), ("no_leak_found", False), ("lists_differ", None)])
def test_a_result_says_in_code_what_the_page_says_in_words(kind, leaks, scores):
    figures = copy.deepcopy(FIGURES)
    figures["verdict"]["kind"] = kind
    result = AuditResult(figures, scores, "")
    assert result.leaks is leaks and result.auc == 0.8
    table = result.to_frame()
    assert list(table["attack"]) == ["loss", "zlib"]  # the best first
    assert list(table.columns) == ["attack", "auc", "auc_low", "auc_high", "p_holm", *(f"tpr_at_{r}" for r in RATES)]
