"""Claims on `kdleak audit`: it finds a leak in a model of any family, and says when a figure means nothing."""

import json
from importlib.resources import files

import jsonschema
import pandas as pd
import pytest

import kdleak
from kdleak.auditing.result import SCHEMA_VERSION
from kdleak.auditing.standalone import most_exposed
from kdleak.core.errors import KdleakError
from tests.support.pipeline_project import ROOT
from tests.support.standalone_models import model_that_knows, people, texts, tokenizer_of

N = 30
SCHEMA = json.loads((files("kdleak.auditing") / "audit.schema.json").read_text())
MEMBERS, NONMEMBERS, OTHERS = people(N, 1), people(N, 2), people(N, 3)
TEMPLATE = {"template": "{instruction}\n"}


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of(OTHERS)


@pytest.fixture(scope="module")
def student(tokenizer, tmp_path_factory):
    return model_that_knows(MEMBERS, tmp_path_factory.mktemp("models") / "student", tokenizer)


@pytest.fixture(scope="module")
def fresh(tokenizer, tmp_path_factory):
    """A model that was trained on nothing."""
    return model_that_knows([], tmp_path_factory.mktemp("models") / "fresh", tokenizer, seed=7)


@pytest.fixture(scope="module")
def everything(student, fresh, tokenizer, tmp_path_factory):
    """An audit with every input there is; its teacher is of another architecture and has another tokenizer."""
    folder = tmp_path_factory.mktemp("everything")
    other_words = tokenizer_of(OTHERS, words=290)
    teacher = model_that_knows(MEMBERS, folder / "teacher", other_words, family="llama", seed=3)
    reference = model_that_knows([], folder / "reference", other_words, family="llama", seed=4)
    models = {"teacher": teacher, "reference": reference, "baseline": fresh, "pretrained": fresh}
    result = kdleak.audit(student, MEMBERS, NONMEMBERS, population=OTHERS, out=folder / "out", **models, **TEMPLATE)
    return result, folder / "out"


def test_a_leak_is_found_and_put_in_words(everything):
    result, _ = everything
    found = result.figures["verdict"]
    assert found["kind"] == "leak"
    assert result.figures["membership"]["attacks"]["loss"]["auc"] == 1
    assert found["sentences"][0].startswith(
        f"Of 1,000 members, an attacker who accepts no false accusation among these {N} non-members names 1000 "
    )
    assert "too few non-members for the rate asked for, 1 %" in found["sentences"][1]
    assert f"1/{N} = 3.3 %" in found["sentences"][1]
    assert "distillation added to the leak" in result.verdict and "The teacher's own AUC" in result.verdict
    assert "it gets 100.0 % of the members' first 32 tokens right" in result.verdict
    assert "it gives back all of them for 100.0 % of the members and 0.0 % of the non-members" in result.verdict


def test_every_attack_runs_that_has_its_inputs(everything):
    result, _ = everything
    from kdleak.attacks import ATTACKS

    expected = {name for name in ATTACKS if not name.endswith("_published")} - {"teacher_aware", "learned"}
    assert set(result.figures["membership"]["attacks"]) == expected
    # teacher_aware goes token by token, and the teacher has other tokens; which records the baseline saw, none said.
    assert set(result.figures["left_out"]) == {"teacher_aware", "learned"}
    assert set(result.figures["membership"]["beside"]) == {"teacher", "no_kd"}
    assert result.figures["membership"]["beside"]["teacher"]["loss"]["auc"] == 1
    assert result.figures["inputs"]["models"]["teacher"]["own_tokenizer"]
    assert not result.figures["inputs"]["models"]["pretrained"]["own_tokenizer"]


def test_the_files_hold_figures_and_no_text(everything):
    result, out = everything
    written = json.loads((out / "audit.json").read_text())
    assert written["verdict"]["headline"] == result.figures["verdict"]["headline"]
    table = pd.read_parquet(out / "scores.parquet")
    assert list(table.columns[:4]) == ["record_id", "role", "task", "place"] and len(table) == 2 * N
    page = (out / "report.html").read_text()
    assert page == result.report and "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert len(written["exposed"]) == 20 and written["exposed"][0]["record_id"][:16] in page
    for row in [*MEMBERS, *NONMEMBERS, *OTHERS]:
        for text in ((out / "audit.json").read_text(), page):
            assert row["instruction"] not in text and row["response"] not in text
    assert result._repr_html_().startswith("<iframe")


def test_the_figures_have_a_version_the_sizes_of_the_lists_and_the_state_of_every_control(everything):
    _, out = everything
    written = json.loads((out / "audit.json").read_text())
    assert written["schema_version"] == SCHEMA_VERSION == SCHEMA["properties"]["schema_version"]["const"]
    groups = written["lists"]["groups"]
    assert (written["lists"]["members"], written["lists"]["nonmembers"]) == (N, N)
    assert 0 < groups["members"] <= N and 0 < groups["nonmembers"] <= N
    assert json.loads((ROOT / "docs" / "audit.schema.json").read_text()) == SCHEMA
    assert set(written["controls"]) >= {"blind", "permutation"}
    assert {each["state"] for each in written["controls"].values()} <= {"passed", "failed", "could not run"}


@pytest.mark.parametrize("case", ["everything", "quick", "texts"])
def test_audit_json_is_what_its_schema_says(case, everything, student, tokenizer, tmp_path):
    """Also that nothing stands in the file which the schema does not name."""
    if case == "everything":
        written = (everything[1] / "audit.json").read_text()
    else:
        rows = (MEMBERS, NONMEMBERS) if case == "quick" else (texts(N, 1), texts(N, 2))
        options = {"quick": True, "memorization": case == "texts", "out": tmp_path / "out"}
        kdleak.audit(student, *rows, **options, **(TEMPLATE if case == "quick" else {}))
        written = (tmp_path / "out" / "audit.json").read_text()
    jsonschema.validate(json.loads(written), SCHEMA, jsonschema.Draft202012Validator)
    broken = json.loads(written) | {"an_unknown_key": 1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA, jsonschema.Draft202012Validator)


def test_no_pass_is_made_that_no_figure_needs(student, fresh, monkeypatch):
    """No decoding as the published script had it, no pass over the population but for attacks that ask for one; the
    teacher is attacked with its own base."""
    from kdleak.auditing import passes
    from kdleak.inference.decoding import AS_PUBLISHED

    decoded, scored = [], []
    continued, statistics = passes.continuations_under, passes.ModelRunner.statistics

    def continuations(decodings, *given, **options):
        decoded.extend(decodings)
        return continued(decodings, *given, **options)

    def score(self, subject, records, label="records", choices=False):
        scored.append((subject.folder.name, label))
        return statistics(self, subject, records, label, choices)

    monkeypatch.setattr(passes, "continuations_under", continuations)
    monkeypatch.setattr(passes.ModelRunner, "statistics", score)
    models = {"teacher": student, "pretrained": fresh, "teacher_pretrained": fresh}
    result = kdleak.audit(
        student, MEMBERS, NONMEMBERS, population=OTHERS, attacks=["loss", "rmia"], **models, **TEMPLATE
    )
    assert decoded and AS_PUBLISHED not in decoded
    assert {label for _, label in scored} == {"records"}
    assert "rmia" in result.figures["membership"]["beside"]["teacher"]


def test_a_model_card_says_what_was_found_and_what_could_not_be_seen(everything):
    result, _ = everything
    card = result.model_card
    assert (
        card.startswith("### Privacy of the teacher's training data") and result.figures["verdict"]["headline"] in card
    )
    assert f"{N} members and {N} non-members" in card and "| `ez` | 1.000 " in card and "`teacher_aware`" in card
    assert "blind: passed" in card and not any(row["response"] in card for row in MEMBERS)


def test_the_attack_that_knows_the_teacher_runs_beside_its_placebo(student, fresh, tokenizer, tmp_path):
    base = model_that_knows([], tmp_path / "base", tokenizer, seed=9)
    models = {"teacher": student, "baseline": fresh, "pretrained": base, "teacher_pretrained": fresh}
    result = kdleak.audit(student, MEMBERS, NONMEMBERS, quick=True, memorization=False, **models, **TEMPLATE)
    control = result.figures["membership"]["controls"]["placebo"]["teacher_aware"]
    assert (control["state"] == "passed") == ("teacher_aware" in result.figures["membership"]["attacks"])
    assert (control["state"] == "passed") == ("teacher_aware" not in result.figures["left_out"])
    assert control["verdict"] in result.report
    assert result.figures["verdict"]["strongest"]["attack"] != "teacher_aware"  # an attacker does not hold the teacher
    assert (control["state"] == "passed") == ("by 'teacher_aware'." in result.verdict)
    assert "The teacher's own AUC by this attack" in result.verdict


def test_an_attack_without_its_inputs_is_named_with_what_it_lacks(student):
    result = kdleak.audit(student, MEMBERS, NONMEMBERS, quick=True, memorization=False, **TEMPLATE)
    assert set(result.figures["membership"]["attacks"]) == {"loss", "zlib", "mink", "minkpp"}
    left_out = result.figures["left_out"]
    assert left_out["mope"] == "left out by --quick"
    assert left_out["ref_external"].startswith("needs --reference")
    assert "--pretrained" in left_out["rmia"] and "--baseline" in left_out["ref_no_kd"]
    assert "Not measured" in result.report


def test_attacks_token_by_token_are_left_out_where_the_reference_has_another_tokenizer(student, tmp_path):
    base = model_that_knows([], tmp_path / "base", tokenizer_of(OTHERS, words=290))
    result = kdleak.audit(student, MEMBERS, NONMEMBERS, pretrained=base, quick=True, memorization=False, **TEMPLATE)
    assert "ref_pretrained" in result.figures["membership"]["attacks"]
    assert "the target's tokenizer" in result.figures["left_out"]["wbc"]


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_students_of_other_families_are_audited(family, tokenizer, tmp_path):
    folder = model_that_knows(MEMBERS, tmp_path / family, tokenizer, family=family)
    result = kdleak.audit(folder, MEMBERS, NONMEMBERS, **TEMPLATE)
    assert result.figures["verdict"]["kind"] == "leak"
    assert {"mope", "lowercase"} <= set(result.figures["membership"]["attacks"])


def test_texts_without_a_prompt_are_audited_and_their_second_half_is_given_back(tokenizer, tmp_path):
    members = texts(N, 1)
    folder = model_that_knows(members, tmp_path / "student", tokenizer, template="plain")
    for rows, name in ((members, "members.csv"), (texts(N, 2), "nonmembers.csv")):
        pd.DataFrame(rows).to_csv(tmp_path / name, index=False)
    result = kdleak.audit(folder, tmp_path / "members.csv", tmp_path / "nonmembers.csv", quick=True)
    assert result.figures["verdict"]["kind"] == "leak" and result.figures["inputs"]["records"]["shape"] == "text"
    assert result.figures["memorization"]["reproduced"]["members"] == 1
    assert result.figures["exposed"][0]["place"].startswith("members.csv, line ")


def test_an_untrained_model_is_not_accused(fresh):
    """With fifty records, as few as they are."""
    members, nonmembers = people(25, 11), people(25, 12)
    result = kdleak.audit(fresh, members, nonmembers, quick=True, **TEMPLATE)
    assert result.figures["verdict"]["kind"] == "no_leak_found"
    low, high = (result.figures["verdict"]["strongest"][f"auc_{end}"] for end in ("low", "ceiling"))
    assert low < 0.5 < high and f"an AUC beyond {high:.2f}" in result.verdict


def test_swapped_lists_are_said_to_be(student):
    result = kdleak.audit(student, NONMEMBERS, MEMBERS, quick=True, **TEMPLATE)
    assert result.figures["verdict"]["kind"] == "swapped"
    assert "swapped" in result.figures["verdict"]["headline"] and "below one half" in result.verdict
    assert result.figures["membership"]["attacks"]["loss"]["auc"] == 0  # never flipped
    assert "Not shown" in result.report


def test_lists_that_a_blind_attack_tells_apart_are_no_evidence(student):
    dated = [{**row, "instruction": f"In the year 1999: {row['instruction']}"} for row in NONMEMBERS]
    result = kdleak.audit(student, MEMBERS, dated, quick=True, memorization=False, **TEMPLATE)
    assert result.figures["verdict"]["kind"] == "lists_differ"
    assert result.verdict.startswith("The two lists can be told apart without any model")
    assert "A blind attack that sees the texts alone reaches an AUC of" in result.verdict


def test_a_second_audit_is_the_same_byte_for_byte_and_takes_its_passes_from_the_cache(student, tmp_path, monkeypatch):
    from kdleak.auditing import passes

    options = {**TEMPLATE, "cache": tmp_path / "cache"}
    first = kdleak.audit(student, MEMBERS, NONMEMBERS, out=tmp_path / "a", **options)
    monkeypatch.setattr(passes, "load_model", None)  # would raise, were it called
    second = kdleak.audit(student, MEMBERS[::-1], NONMEMBERS, out=tmp_path / "b", **options)
    assert first.verdict == second.verdict
    attacks = [json.loads((tmp_path / run / "audit.json").read_text())["membership"] for run in "ab"]
    assert attacks[0] == attacks[1]


def test_a_tokenizer_that_is_not_the_models_is_refused_and_both_are_named(tokenizer, tmp_path):
    from kdleak.models.checkpoints import save_checkpoint
    from tests.support.tiny_models import tiny_model

    save_checkpoint(tiny_model("opt", vocabulary=100), tokenizer, tmp_path / "m")
    with pytest.raises(KdleakError, match=r"its tokenizer \(.*320 tokens\).*OPTForCausalLM\) has a vocabulary of 100"):
        kdleak.audit(tmp_path / "m", MEMBERS, NONMEMBERS, quick=True, **TEMPLATE)


def test_the_most_exposed_say_how_many_attacks_agree():
    """By hand: of three attacks, 20 non-members with scores 0 … 19, so that 19 is the threshold at 5 %.
    The auditor's attack does not count, nor one that is not defined on the record."""
    ids, low = [f"r{i:02d}" for i in range(22)], [float(i) for i in range(20)]
    scores = pd.DataFrame({"record_id": ids, "role": ["member"] * 2 + ["nonmember"] * 20, "task": "t"})
    scores = scores.assign(loss=[30.0, 25.0, *low], zlib=[19.0, 30.0, *low], mink=[float("nan"), 30.0, *low])
    scores = scores.assign(teacher_aware=[50.0, -1.0, *low])
    rows = most_exposed(scores.assign(place="file:1"), scores, "loss", None)
    assert [(row["record_id"], row["agreeing"]) for row in rows] == [("r00", 0.5), ("r01", 1.0)]


def test_the_list_as_a_whole_is_judged_in_every_output(everything):
    result, out = everything
    listed = json.loads((out / "audit.json").read_text())["list"]
    assert listed["kind"] == "learned" and result.learned_from_list and listed["p_value"] <= 0.01
    assert set(listed["placebo"]) == {"baseline", "pretrained"} and not {"teacher_aware"} & set(listed["attacks"])
    assert listed["headline"] in result.verdict and listed["headline"] in result.model_card
    assert "The list as a whole" in result.report
    ensemble = pd.read_parquet(out / "scores.parquet").groupby("role")["ensemble"].mean()
    assert ensemble["member"] > ensemble["nonmember"]
