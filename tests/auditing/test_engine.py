"""Claims on the one engine: its two callers agree, and an attack brings the passes that it needs with it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

import kdleak
from kdleak.attacks import ATTACKS, AttackInput
from kdleak.attacks.likelihood import mean_log_prob
from kdleak.attacks.registry import ModelPass, PassInput, TextPass, attack
from kdleak.attacks.rmia import A, ratios
from kdleak.config.load import parse_params
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json
from kdleak.core.paths import Project
from kdleak.data.records import record_id
from kdleak.data.templates import prompt_text
from kdleak.models.checkpoints import save_checkpoint
from tests.support.audits import audit
from tests.support.pipeline_project import ROOT
from tests.support.standalone_models import people, sentencepiece_tokenizer, tokenizer_of
from tests.support.tiny_models import tiny_model

MODELS = {"base/teacher": 1, "base/student": 2, "base/external": 3, "teacher": 4, "students/sft": 5, "students/kd": 6}
ROLES = ("private", "heldout", "population", "public")
N = 12


def settings(**audit):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["data"]["sizes"] = dict.fromkeys(content["data"]["sizes"], N)
    content["audit"] |= {"permutations": 20} | audit
    return parse_params(content)


def byte_level(texts):
    return tokenizer_of([{"text": text} for text in texts])


@pytest.fixture(scope="module", params=[byte_level, sentencepiece_tokenizer], ids=["byte-level BPE", "SentencePiece"])
def project(request, tmp_path_factory):
    """Untrained models with a tokenizer of either kind; some responses are too long, as are some prompts."""
    frame = pd.DataFrame(people(4 * N, seed=4)).assign(context="", task="qa", role=np.repeat(ROLES, N))
    frame.loc[::5, "response"] += " " + " ".join(["apples and boats"] * 200)
    frame.loc[::7, "instruction"] += " " + " ".join(["candles and drums"] * 100)
    frame["record_id"] = [record_id(i, "", r) for i, r in zip(frame["instruction"], frame["response"], strict=True)]
    frame["group_id"], frame["facts"] = frame["record_id"], [[] for _ in range(4 * N)]
    made = Project(tmp_path_factory.mktemp("project"))
    made.records.parent.mkdir()
    frame.to_parquet(made.records)
    tokenizer = request.param([prompt_text(i, "") for i in frame["instruction"]] + list(frame["response"]))
    for name, seed in MODELS.items():
        family = "opt" if "external" in name else "llama"
        model = tiny_model(family, seed=seed, layers=1, vocabulary=len(tokenizer), positions=512)
        save_checkpoint(model, tokenizer, made.root / "models" / name)
    return made


def test_the_pipeline_and_kdleak_audit_give_one_student_the_same_scores(project):
    params = settings()
    audit(project, params, "teacher", "sft", "kd")
    pipeline = pd.read_parquet(project.scores("kd")).set_index("record_id").sort_index()
    assert set(pipeline["role"]) == {"private", "heldout"}
    frame = pd.read_parquet(project.records).sort_values("record_id")
    lists = {role: rows[["instruction", "response"]].to_dict("records") for role, rows in frame.groupby("role")}
    models = {"teacher": project.model("teacher"), "baseline": project.model("sft")}
    models |= {"pretrained": project.base_student, "reference": project.base_external}
    result = kdleak.audit(
        project.model("kd"),
        lists["private"],
        lists["heldout"],
        population=lists["population"],
        template="alpaca",
        attacks=params.audit.attacks,
        max_prompt_tokens=params.model.max_prompt_tokens,
        max_tokens=params.model.max_tokens,
        **models,
    )
    standalone = result.table.set_index("record_id").sort_index()
    assert list(standalone.index) == list(pipeline.index)
    names = [name for name in params.audit.attacks if name in standalone]
    assert "learned" not in names and "learned" in pipeline  # which records the baseline saw, no list says
    assert set(ATTACKS) - set(names) - {"learned"} <= {"teacher_aware"}  # left out where its placebo succeeds
    assert set(result.figures["left_out"]) == set(ATTACKS) - set(names)
    signal = {"loss": np.exp(standalone["loss"])}
    signal["ref_pretrained"] = np.exp(standalone["loss"] - standalone["ref_pretrained"])
    tuned = read_json(project.membership("kd"))["attacks"]["rmia"]["a"]  # the lists say nothing of what a model saw
    standalone["rmia"] = np.log(ratios(signal["loss"], signal["ref_pretrained"], tuned))
    assert result.figures["membership"]["attacks"]["rmia"]["a"] == A
    for name in names:
        np.testing.assert_allclose(standalone[name], pipeline[name], rtol=1e-6, atol=1e-6, err_msg=name)
    assert result.figures["cut"]["responses"] > 0 and result.figures["cut"]["prompts"] > 0
    assert f"{result.figures['cut']['prompts']} prompts" in result.verdict


@pytest.fixture
def toy():
    """An attack that reads its records backwards, and the model's own weights."""
    backwards = TextPass("backwards", lambda given: [replace(r, response=r.response[::-1]) for r in given.records])

    def norms(model, given: PassInput, scale: float, max_tokens: int, progress) -> np.ndarray:
        norm = sum(float(p.detach().square().sum()) for p in model.parameters())
        return np.full(len(given.records), scale * norm)

    norm = ModelPass("norm of the weights", lambda given: given.options.get("norm_scale", 2.0), norms)

    @attack("toy", passes=(backwards, norm))
    def toy(given: AttackInput) -> np.ndarray:
        """A toy."""
        return mean_log_prob(given.variants["backwards"]) + given.computed["norm of the weights"]

    yield
    del ATTACKS["toy"]


def test_an_attack_that_declares_a_pass_of_its_own_runs_without_a_word_elsewhere(project, toy):
    audit(project, settings(attacks=["loss", "toy"]), "teacher")
    scores = pd.read_parquet(project.scores("teacher"))
    assert np.isfinite(scores["toy"]).all() and scores["toy"].nunique() > N
    frame = pd.read_parquet(project.records)
    lists = [frame[frame["role"] == r][["instruction", "response"]].to_dict("records") for r in ("private", "heldout")]
    options = {"template": "alpaca", "attacks": ["loss", "toy"], "memorization": False}
    options |= {"max_prompt_tokens": 256, "max_tokens": 512}
    result = kdleak.audit(project.model("teacher"), *lists, **options)
    table = result.table.set_index("record_id").loc[scores["record_id"]]
    np.testing.assert_allclose(table["toy"], scores["toy"], rtol=1e-6)
    quick = kdleak.audit(project.model("teacher"), *lists, quick=True, **options)
    assert quick.figures["left_out"] == {"toy": "left out by --quick"}


def test_a_pass_that_a_model_cannot_make_leaves_its_attack_out_and_says_why(project, toy, monkeypatch):
    def refuse(*_):
        raise KdleakError("no such weights")

    norm = ATTACKS["toy"].needs.passes[1]
    needs = replace(ATTACKS["toy"].needs, passes=(replace(norm, name="no weights", compute=refuse),))
    monkeypatch.setitem(ATTACKS, "toy", replace(ATTACKS["toy"], needs=needs))
    audit(project, settings(attacks=["loss", "toy"]), "teacher")
    scores = pd.read_parquet(project.scores("teacher"))
    assert "toy" not in scores and '"toy": "no such weights"' in project.membership("teacher").read_text()
