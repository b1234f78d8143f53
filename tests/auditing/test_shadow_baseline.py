"""Claims on `--learned`: a shadow is trained where labels are free, once, and no label of an audited record is used."""

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

import kdleak
from kdleak.auditing import shadow_baseline
from kdleak.auditing.shadow_baseline import FEWEST, halved
from kdleak.core.errors import KdleakError
from tests.support.standalone_models import model_that_knows, people, tokenizer_of

N = 30
MEMBERS, NONMEMBERS, OTHERS = people(N, 1), people(N, 2), people(60, 3)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("shadow"), tokenizer_of(OTHERS)
    base = model_that_knows([], folder / "base", tokenizer)
    return {"student": model_that_knows(MEMBERS, folder / "student", tokenizer), "pretrained": base}


def audit(models, cache, members=MEMBERS, nonmembers=NONMEMBERS, **options):
    how = {"template": "{instruction}\n", "attacks": ["loss", "ez", "learned"], "memorization": False, "learned": True}
    how |= {"population": OTHERS, "cache": cache, "pretrained": models["pretrained"], **options}
    return kdleak.audit(models["student"], members, nonmembers, **how)


@pytest.fixture(scope="module")
def first(models, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return audit(models, cache), cache


def test_it_finds_what_was_trained_on_and_its_placebo_does_not(first):
    result, cache = first
    areas = result.figures["membership"]["attacks"]
    assert areas["learned"]["auc"] > 0.9
    assert result.figures["controls"]["placebo of learned"]["state"] == "passed"
    assert result.figures["inputs"]["models"]["baseline"]["source"] == "trained here"
    (folder,) = (p for p in (cache / "shadows").iterdir() if p.is_dir() and not p.name.endswith(".state"))
    with safe_open(folder / "model.safetensors", "np") as weights:
        assert len(list(weights.keys())) > 0


def test_it_is_trained_once_and_its_cost_is_said_before(models, first, monkeypatch, capsys, tmp_path):
    result, cache = first
    monkeypatch.setattr(shadow_baseline, "train", lambda *_, **__: pytest.fail("trained again"))
    again = audit(models, cache)
    np.testing.assert_array_equal(again.table["learned"], result.table["learned"])
    assert "--learned:" not in capsys.readouterr().err
    with pytest.raises(BaseException, match="trained again"):
        audit(models, tmp_path)
    said = capsys.readouterr().err
    assert "--learned: a shadow of base is trained on 30 of 60 population records, 4 epochs: " in said
    assert "passes over the lists" in said


def test_labels_of_the_audited_records_change_no_score(models, first):
    result, cache = first
    swapped = audit(models, cache, members=NONMEMBERS, nonmembers=MEMBERS)
    one, other = (each.table.set_index("record_id")["learned"].sort_index() for each in (result, swapped))
    pd.testing.assert_series_equal(one, other)


def test_near_duplicates_of_the_population_are_in_one_half():
    rows = pd.DataFrame({"instruction": [f"Who owes {i}?" for i in range(40)], "response": "Nobody."})
    inside = halved(rows.assign(context=[f"page {i // 2}" for i in range(40)]))
    assert inside.sum() == 20 and (inside[::2] == inside[1::2]).all()


@pytest.mark.parametrize("lacking", [{"pretrained": None}, {"population": None}])
def test_without_base_or_population_it_is_one_line(models, lacking, tmp_path):
    with pytest.raises(KdleakError, match="--learned: it trains --pretrained, a folder, on half of --population"):
        audit(models, tmp_path, **lacking)


def test_a_small_population_is_one_line(models, tmp_path):
    with pytest.raises(KdleakError, match=f"--learned: {FEWEST - 1} records of --population are too few to halve"):
        audit(models, tmp_path, population=people(FEWEST - 1, 4))


def test_an_audit_that_leaves_the_attack_out_trains_nothing(models, tmp_path):
    with pytest.raises(KdleakError, match="--learned: --attacks leaves 'learned' out; take back one of the two"):
        audit(models, tmp_path, attacks=["loss"])
