"""`kdleak audit --identifiers`: valid where nothing was met, found where it was, refused where the control fails."""

from __future__ import annotations

import hashlib
import json
import math
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

import kdleak
from kdleak.auditing import identifiers
from kdleak.auditing.identifier_words import identifier_words
from kdleak.auditing.lists import read_lists
from kdleak.core.errors import KdleakError
from kdleak.stats.f_dp import choice_epsilon
from tests.docs.test_measures import without_entry
from tests.support.standalone_models import model_that_knows, people, tokenizer_of

N, OTHERS = 12, 9
TEMPLATE = {"template": "{instruction}\n", "quick": True, "memorization": False, "attacks": ["loss"]}


def tickets(seed: int) -> list[dict[str, str]]:
    """Records that state a hash each, and nothing else that differs from list to list."""
    rows = people(N, seed)
    hashes = [hashlib.md5(f"{seed}/{i}".encode()).hexdigest() for i in range(N)]
    return [row | {"response": f"Its hash is {each}."} for row, each in zip(rows, hashes, strict=True)]


MEMBERS, NONMEMBERS = tickets(1), tickets(2)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identifiers")
    tokenizer = tokenizer_of([*tickets(3), *tickets(4)])
    knows = model_that_knows(MEMBERS, folder / "knows", tokenizer)
    return knows, model_that_knows([], folder / "fresh", tokenizer, seed=7)


def test_a_student_that_knows_its_records_prefers_every_identifier_and_the_files_say_so(models, tmp_path):
    knows, fresh = models
    result = kdleak.audit(knows, MEMBERS, NONMEMBERS, pretrained=fresh, identifiers=OTHERS, out=tmp_path, **TEMPLATE)
    found = json.loads((tmp_path / "audit.json").read_text())["identifiers"]
    assert found["members"]["first"] == found["members"]["identifiers"] == N and found["members"]["mean_rank"] == 0
    assert found["control"] == "passed" and found["reference"] == "pretrained"
    x = 0.05 ** (1 / N)
    assert found["epsilon_lower"] == pytest.approx(math.log(OTHERS * x / (1 - x)), abs=1e-3)
    assert "The student has met identifiers of the members" in result.verdict and "not of a model" in result.verdict
    page = (tmp_path / "report.html").read_text()
    assert "Identifiers" in page and f"in {N}; by chance that would be 1.2" in page
    assert not any(row["response"][12:44] in page + json.dumps(found) for row in [*MEMBERS, *NONMEMBERS])
    schema = json.loads((files("kdleak.auditing") / "audit.schema.json").read_text())
    jsonschema.validate(json.loads((tmp_path / "audit.json").read_text()), schema, jsonschema.Draft202012Validator)
    assert without_entry({"identifiers": found}) == set()


def test_a_student_that_met_none_is_not_said_to_have(models):
    found = kdleak.audit(models[1], MEMBERS, NONMEMBERS, identifiers=OTHERS, **TEMPLATE).figures["identifiers"]
    assert found["members"]["p_value"] > 0.01 and found["epsilon_lower"] < 1 and found["reference"] is None
    assert "Nothing shows" in found["headline"] and "no proof" in " ".join(found["sentences"])


def test_without_the_option_nothing_is_looked_for_and_without_identifiers_nothing_is_said(models):
    plain = kdleak.audit(models[1], MEMBERS, NONMEMBERS, **TEMPLATE)
    assert "identifiers" not in plain.figures and "dentifiers" not in plain.report
    found = kdleak.audit(models[1], people(N, 1), people(N, 2), identifiers=3, **TEMPLATE).figures["identifiers"]
    assert found["members"]["identifiers"] == 0 and found["control"] == "could not run"
    assert "nothing can be said" in found["headline"] and found["epsilon_lower"] is None


def test_a_candidate_is_the_record_with_another_identifier_and_one_that_is_not_read_whole_has_none():
    frame = read_lists(MEMBERS, NONMEMBERS).frame
    ends = frame["response"].str.len().to_numpy() - 1  # before the full stop
    rows, owners = identifiers._candidates(frame, np.where(np.arange(2 * N) < 5, ends - 1, ends), 3, seed=0)
    assert owners.tolist() == list(range(5, 2 * N)) and len(rows) == 4 * len(owners)
    for place, owner in enumerate(owners):
        true, *others = rows["response"][4 * place : 4 * place + 4]
        assert true == frame["response"][owner] and len({true, *others}) == 4
        assert all(len(each) == len(true) and each.startswith("Its hash is ") for each in others)


def judged(members: np.ndarray, others: np.ndarray, k: int) -> dict:
    sides = {"members": identifiers._side(members, k), "nonmembers": identifiers._side(others, k)}
    return {"alternatives": k, "delta": 1e-5, **sides} | identifiers._judged(sides, k)


def test_non_members_that_are_told_too_refuse_the_bound():
    uniform = np.random.default_rng(0).integers(1, 11, 40)
    told = judged(np.ones(40, int), np.ones(20, int), 9)
    assert told["control"] == "failed" and told["epsilon_lower"] is None
    assert "not as random as their format says" in identifier_words(told)["sentences"][0]
    few = judged(np.ones(40, int), uniform[:4], 9)
    assert few["control"] == "could not run" and few["epsilon_lower"] == choice_epsilon(40, 40, 40, 1e-5, 9)
    assert "Too few non-members" in identifier_words(few)["sentences"][1]


def test_of_100_lists_that_were_never_met_at_most_5_have_a_p_below_005_or_a_bound_above_0():
    """Ranks are uniform then; ties count as lost, so that p errs on the side of nothing."""
    rng = np.random.default_rng(1)
    found = [judged(rng.integers(1, 21, 50), rng.integers(1, 21, 50), 19) for _ in range(100)]
    assert sum(each["members"]["p_value"] < 0.05 for each in found) <= 8
    assert sum((each["epsilon_lower"] or 0) > 0 for each in found) <= 5


def test_a_number_of_others_that_cannot_be_is_refused():
    for number in (-1, 1000):
        with pytest.raises(KdleakError, match=rf"--identifiers {number}: others that an identifier is ranked"):
            kdleak.audit("student", MEMBERS, NONMEMBERS, identifiers=number)
