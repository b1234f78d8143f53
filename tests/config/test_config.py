"""params.yaml is refused with one line that names the key and what was meant."""

import copy
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import yaml

from kdleak.config.load import RENAMED, load_params, parse_params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.pipeline.validate import check_environment

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = yaml.safe_load((ROOT / "params.yaml").read_text())


def changed(key: str, value: object, content: dict = DEFAULT) -> dict:
    """params.yaml with `value` at `key`, in which a number is a place in a list."""
    content = copy.deepcopy(content)
    *sections, last = (int(part) if part.isdigit() else part for part in key.split("."))
    place = content
    for section in sections:
        place = place[section]
    place[last] = value
    return content


def message(key: str, value: object) -> str:
    with pytest.raises(KdleakError) as caught:
        parse_params(changed(key, value))
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_projects_own_parameters_are_valid():
    params = load_params(ROOT / "params.yaml")
    check_environment(params, Project(ROOT))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("kd.metod", "kd", "kd.metod: unknown key; did you mean 'method'?"),
        ("teacher.epochs", -1, "teacher.epochs: input should be greater than or equal to 0, not '-1'"),
        ("teacher.epochs", 2.5, "teacher.epochs: input should be a valid integer"),
        ("teacher.epochs", True, "teacher.epochs: input should be a valid integer"),
        ("teacher.lr", "1e-3", "teacher.lr: input should be a valid number, not '1e-3'"),
        ("teacher.lr", float("nan"), "teacher.lr"),
        ("teacher.lr", 1e-9, "below optimizer.min_lr"),
        ("seed", -1, "seed"),
        ("data.source", "kd; touch x", "data.source: string should match pattern"),
        ("data.sizes.privat", 5, "data.sizes.privat: unknown key; did you mean 'private'?"),
        ("data.max_response_chars", 0, "data.max_response_chars"),
        ("model.max_tokens", 100, "max_prompt_tokens must be below max_tokens"),
        ("study.methods", ["kd", "kd"], "stands twice"),
        ("study.methods", ["sft", "kd"], "leave it out"),
        ("canaries.repetitions", [1, 4, 4], "canaries: repetitions: a number stands twice"),
        ("canaries.repetitions", [0, 4], "canaries.repetitions.0: input should be greater than or equal to 1"),
        ("epsilon.canaries", 501, "canaries: two halves of coins, twenty at least: 0, or an even number from 40 on"),
        ("epsilon.canaries", 20, "an even number from 40 on"),
        ("epsilon.methods", ["kd", "kd"], "a method stands twice in the list"),
        ("epsilon.methods", ["sft"], "'sft' hears no teacher and is audited as the control anyway; leave it out"),
        ("epsilon.delta", 0.0, "epsilon.delta: input should be greater than 0"),
        ("memorization.tokens", 400, "they and a prompt exceed model.max_tokens"),
        ("report.headline", "los", "did you mean 'loss'?"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_remedy(key, value, words):
    assert words in message(key, value)


@pytest.mark.parametrize("old", RENAMED)
def test_a_parameter_of_an_earlier_version_is_refused_with_its_new_place(old):
    content = copy.deepcopy(DEFAULT)
    *sections, last = old.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = 1
    with pytest.raises(KdleakError) as caught:
        parse_params(content)
    assert str(caught.value) == f"params.yaml: {old}: is now {RENAMED[old]}; move it there"
    key = RENAMED[old].split(",")[0]
    assert reduce(getitem, key.split("."), DEFAULT) is not content  # the new place is there


#: What a run sets -> the lines of params.yaml that it changes, by their keys.
SET = {
    "kd.method=rkl": ["method"],
    "seed=3": ["seed"],
    "kd.recipes.kd.lr=0.002": ["kd"],
    "kd.recipes.minillm.rollouts=16": ["rollouts"],
    "audit.mope.draws=1": ["mope"],
    "data.max_prompt_chars=300": ["max_prompt_chars"],
    "kd.student_fraction=0.5": ["student_fraction"],
    "kd.start=null": [],
    "compute.micro_batch_tokens=null": [],
    "optimizer.checkpointing=true": ["checkpointing"],
    "optimizer.min_lr=1e-8": ["min_lr"],
    "data.path=/data/dolly.jsonl": ["path"],
    "canaries.repetitions=[1,4,8]": ["-"],
}


@pytest.mark.parametrize("setting", [*SET, ",".join(SET)], ids=lambda setting: setting[:30])
def test_a_run_changes_the_lines_of_its_own_keys(tmp_path, setting):
    """By the function with which `dvc exp run -S` writes params.yaml; comments stay."""
    from dvc.utils.hydra import apply_overrides

    copied, text = tmp_path / "params.yaml", (ROOT / "params.yaml").read_text()
    copied.write_text(text)
    settings = [setting] if setting in SET else [*SET]
    apply_overrides(str(copied), settings)
    lines = list(zip(text.splitlines(), copied.read_text().splitlines(), strict=True))
    changed_keys = [before.split()[0].rstrip(":") for before, now in lines if before != now]
    assert sorted(changed_keys) == sorted(key for each in settings for key in SET[each])
    assert all(a.partition("#")[2].strip() == b.partition("#")[2].strip() for a, b in lines)


def test_no_speed_knob_stands_outside_compute_and_no_stage_declares_compute():
    assert set(DEFAULT["compute"]) == {
        "device", "processes", "measure_processes", "batch_tokens", "generation_batch", "micro_batch_tokens", "workers",
    }  # fmt: skip
    for file in ("dvc.yaml", "study/dvc.yaml"):
        for stage in yaml.safe_load((ROOT / file).read_text())["stages"].values():
            assert not [p for p in stage.get("params", []) if str(p).split(".")[0] in ("compute", "params")]


def test_a_missing_key_is_named():
    content = copy.deepcopy(DEFAULT)
    del content["kd"]["method"]
    with pytest.raises(KdleakError, match=r"params.yaml: kd.method: missing"):
        parse_params(content)


def test_a_missing_file_and_broken_yaml_are_one_line(tmp_path):
    with pytest.raises(KdleakError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("seed: [\n")
    with pytest.raises(KdleakError, match="not valid YAML") as caught:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model.family", "gpt2-tny", "did you mean 'gpt2-tiny'?"),
        ("model.student", "smal", "did you mean 'small'?"),
        ("data.source", "fil", "params.yaml: data.source: 'fil' is unknown; did you mean 'file'?"),
        ("data.rows", 100, "records are asked for, but rows makes 100"),
        ("data.roles", "column", "the synthetic corpus has no role column"),
    ],
)
def test_what_the_schema_cannot_know_is_refused_before_anything_runs(key, value, words):
    with pytest.raises(KdleakError, match=words.replace("?", r"\?")):
        check_environment(parse_params(changed(key, value)), Project(ROOT))
