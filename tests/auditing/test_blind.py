"""Claims on the blind battery: lists that differ in any script and any way are told apart, fair ones are not."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit, ndtri, stdtrit

from kdleak.auditing.blind import SCORERS, blind_scores
from kdleak.auditing.controls import COULD_NOT_RUN, FAILED, PASSED, blind_control, negative_control
from kdleak.auditing.lists import read_lists
from kdleak.stats import auc
from tests.support.simulated_audits import NULLS, simulated_audit

N = 120
MEMBER = np.arange(N) % 2 == 1
HAN = [chr(0x4E00 + i) for i in range(300)]


def frame(texts, groups=None):
    ids = [f"{i:04d}" for i in range(len(texts))]
    role = np.where(np.arange(len(texts)) % 2, "member", "nonmember")
    fields = {"task": "qa", "instruction": "", "context": "", "group_id": ids if groups is None else groups}
    return pd.DataFrame({"record_id": ids, "role": role, "response": texts, **fields})


def words(generator, k):
    return ["".join(generator.choice(list("abcdefghijklmnop"), 5)) for _ in range(k)]


def chinese(generator, member):
    year = 2024 if member else generator.integers(1990, 2024)
    first, second = ("".join(generator.choice(HAN, 12)) for _ in range(2))
    return f"{first}{year}年{second}"


DIFFERENCES = {
    "every member says 2024, in Chinese": chinese,
    "capitals": lambda g, m: str.capitalize(" ".join(words(g, 12))) if m else " ".join(words(g, 12)),
    "the order of words": lambda g, m: " ".join(sorted(words(g, 12)) if m else words(g, 12)),
    "the order of two words": lambda g, m: ("the {} of {}" if m else "of {} the {}").format(*words(g, 2)),
    "commas": lambda g, m: (", " if m and g.random() < 0.7 else " ").join(words(g, 12)),
    "length": lambda g, m: " ".join(words(g, int(g.integers(10, 20)) + 4 * m)),
    "digits": lambda g, m: f"{' '.join(words(g, 8))} {g.integers(10 ** (5 if m else 3), 10 ** (6 if m else 4))}",
}  # fmt: skip


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_lists_that_differ_are_caught_whatever_they_differ_in(difference):
    generator = np.random.default_rng(0)
    report = blind_control(frame([DIFFERENCES[difference](generator, member) for member in MEMBER])).report
    assert report["state"] == FAILED and report["auc_ci95"][0] > 0.5
    assert set(report["scorers"]) == set(SCORERS)


def test_a_small_fair_list_passes_and_says_what_it_could_have_seen():
    generator = np.random.default_rng(1)
    report = blind_control(frame([" ".join(words(generator, 8)) for _ in range(40)])).report
    assert report["state"] == PASSED and report["noticeable_auc"] > 0.75  # 20 records a side see little
    larger = blind_control(frame([" ".join(words(generator, 8)) for _ in range(400)])).report
    assert larger["state"] == PASSED and 0.66 < larger["noticeable_auc"] < 0.7


def test_a_control_that_could_not_run_has_not_passed():
    """One group holds every record: there is no fold that has not seen it."""
    blind = blind_control(frame(["a text", "another text"] * 20, groups=["one"] * 40))
    assert blind.report["state"] == COULD_NOT_RUN and np.isnan(blind.scores).all()
    assert "could not run" in blind.report["verdict"] and blind.report["noticeable_auc"] is None
    undefined = negative_control(np.full(N, np.nan), MEMBER, "passed", "failed")
    assert undefined["state"] == COULD_NOT_RUN and "could not run" in undefined["verdict"]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_model_that_saw_neither_list_and_tells_them_apart_is_a_blind_scorer(sign):
    generator = np.random.default_rng(2)
    table = frame([" ".join(words(generator, 8)) for _ in range(N)])
    report = blind_control(table, models={"pretrained": sign * MEMBER + generator.normal(size=N)}).report
    assert report["state"] == FAILED and report["failed"] == ["pretrained"] and report["scorer"] == "pretrained"
    assert "a model that saw neither list" in report["verdict"]
    fair = blind_control(table, models={"pretrained": generator.normal(size=N)}).report
    assert fair["state"] == PASSED and len(fair["scorers"]) == len(SCORERS) + 1


@pytest.mark.parametrize("shape", ["instruction", "messages"])
def test_a_context_that_all_records_share_joins_none_of_them(shape):
    generator = np.random.default_rng(3)
    line = "You are a helpful assistant who answers briefly, politely and in full sentences. " * 4

    def row():
        asked, answered = (" ".join(words(generator, 6)) for _ in range(2))
        if shape == "instruction":
            return {"instruction": asked, "context": line, "response": answered}
        turns = [("system", line), ("user", asked), ("assistant", answered)]
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    lists = read_lists([row() for _ in range(20)], [row() for _ in range(20)])
    assert lists.frame["group_id"].nunique() == 40
    assert blind_control(lists.frame).report["state"] == PASSED


def test_fair_lists_of_a_few_documents_are_not_told_apart():
    """Six documents a list, sixteen records of each: intervals that know neither how few they are nor that training
    sets overlap called every second such split unfair."""
    states = [simulated_audit(seed, **NULLS["few documents"], nulls=()).kind for seed in range(7, 71, 8)]
    assert states.count("lists_differ") == 0


def test_the_interval_of_a_cross_fitted_scorer_knows_that_training_sets_overlap():
    """1.5 times DeLong's on the logit scale, and Student's quantile for the number of groups; an exact bound stays."""
    generator = np.random.default_rng(4)
    texts = [" ".join(words(generator, 8)) for _ in range(N)]
    area = blind_control(frame(texts)).report["scorers"]["words"]
    scores = blind_scores([f"\x1f\x1f{text}" for text in texts], MEMBER, np.array([f"{i:04d}" for i in range(N)]))
    level = 1 - 0.05 / len(SCORERS)
    plain = auc(scores["words"][MEMBER], scores["words"][~MEMBER], level)
    widths = [np.ptp(logit(ends)) for ends in (area["auc_ci95"], (plain.low, plain.high))]
    tail = (1 + level) / 2
    assert area["auc"] == pytest.approx(plain.value)
    assert widths[0] / widths[1] == pytest.approx(1.5 * stdtrit(N // 2 - 1, tail) / ndtri(tail))
