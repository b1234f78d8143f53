"""The table of known failures: what goes wrong, the whole message, word for word. Each was read by a person.

Failures that other tests already show by a piece of their message (wrong input, parameters, damage, disks) are not
repeated; the last test sees to it that no message of the source stands in no test at all.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from kdleak.attacks import ATTACKS, AttackInput, attack_scores
from kdleak.auditing.comparisons import between_techniques, paired_differences
from kdleak.auditing.lists import read_lists, read_population
from kdleak.auditing.settings import Settings
from kdleak.auditing.standalone import run_audit
from kdleak.config.load import load_params, parse_params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.core.yaml_file import read_yaml
from kdleak.data.canaries import SPACE, canary_table
from kdleak.data.encoding import EncodedRecord, Encoder
from kdleak.data.sources import check_path, read_file
from kdleak.data.templates import choose_template
from kdleak.inference.greedy import greedy_continuations
from kdleak.inference.scoring import token_statistics
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.compatibility import check_fit
from kdleak.models.families import build_from_scratch, load_family
from kdleak.models.hub import model_folder
from kdleak.models.model_files import base_folder, read_fields, weight_files
from kdleak.pipeline.provenance import Provenance
from kdleak.pipeline.validate import check_environment
from kdleak.report.experiments import results_of
from tests.support.pipeline_project import ROOT
from tests.support.small_project import CommandLine, change, small_project
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import random_records, tiny_model

LONG = EncodedRecord("r" * 64, (1,) * 20, (1,), 1)
ROW = {"instruction": "a", "context": "", "response": "b"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small project with, in `in/`, a file for whatever can be wrong with one."""
    made = small_project(tmp_path_factory.mktemp("errors")).root
    given = made / "in"
    (given / "sub").mkdir(parents=True)
    (given / "latin.csv").write_bytes("instruction,response\ncafé,b\n".encode("latin-1"))
    (given / "latin.jsonl").write_bytes(b'{"instruction": "caf\xe9"}\n')
    (given / "facts.jsonl").write_text(json.dumps(ROW | {"facts": ["x"]}) + "\n")
    (given / "quote.csv").write_text('instruction,response\n"a"b,c\n')
    (given / "role.jsonl").write_text(json.dumps(ROW | {"role": "privat"}) + "\n")
    (given / "blank.jsonl").write_text("\n\n")
    (given / "list.yaml").write_text("- gpt2\n")
    (given / "family.yaml").write_text("x: {teacher: {hub: a}, students: {small: {hub: a}}, lora: {r: 0}}\n")
    (given / "adapter").mkdir()
    (given / "adapter" / "adapter_config.json").write_text("{}")
    (given / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    (given / "bare").mkdir()
    (given / "bare" / "config.json").write_text("{}")
    (given / "bare" / "model.safetensors").write_bytes(b"")
    save_checkpoint(tiny_model(layers=1, vocabulary=100), TOKENIZER, given / "misfit")
    (given / "lock").mkdir()
    (given / "lock" / "dvc.lock").write_text("- no lock file\n")
    return made


TOKENIZER = tokenizer_of(people(30, 1))
RECORDS = random_records(3)
STATISTICS = token_statistics(tiny_model(layers=1), RECORDS)
SCORES = pd.DataFrame({"record_id": ["a", "b"], "role": ["private", "heldout"], "task": "qa", "loss": [1.0, 0.0]})


def settings(**changes: object):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in changes.items():
        change(content, key.replace("__", "."), value)
    return parse_params(content)


def without(**fields: object) -> SimpleNamespace:
    """A tokenizer that has little."""
    return SimpleNamespace(
        **{"is_fast": True, "eos_token_id": None, "bos_token_id": None, "chat_template": None} | fields
    )


def audit(student: Path, **options: object) -> object:
    return run_audit({"student": student}, people(12, 1), people(12, 2), None, Settings(**options))


#: failure -> (what raises it, given the folder; its message, in which {} is the folder).
TABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    # params.yaml and families.yaml
    "params.yaml is a list": (
        lambda f: load_params(f / "in/list.yaml"),
        "{}/in/list.yaml: must hold sections such as 'data:' and 'kd:'; 'git checkout {}/in/list.yaml' brings it back",
    ),
    "an unknown attack": (
        lambda f: check_environment(settings(audit__attacks=["loss", "los"]), Project(f)),
        "{}/params.yaml: audit.attacks: unknown attack 'los'; did you mean 'loss'?",
    ),
    "a headline that the teacher has no score of": (
        lambda f: check_environment(settings(report__headline="teacher_aware"), Project(f)),
        "{}/params.yaml: report.headline: 'teacher_aware' has no score for the teacher; name another",
    ),
    "a section that is a text": (
        lambda f: settings(generation="fast"),
        "params.yaml: generation: input should be a valid dictionary or instance of generation, not 'fast'",
    ),
    "families.yaml is a list": (
        lambda f: load_family(f / "in/list.yaml", "gpt2"),
        "{}/in/list.yaml: must hold families by name; 'git checkout {}/in/list.yaml' brings it back",
    ),
    "a family of a wrong rank": (
        lambda f: load_family(f / "in/family.yaml", "x"),
        "{}/in/family.yaml: x.lora.r: Input should be greater than or equal to 1",
    ),
    "an unknown size": (
        lambda f: load_family(f / "families.yaml", "gpt2").student("larg"),
        "model.student: unknown size 'larg'; did you mean 'large'?",
    ),
    "an unknown kind of model": (
        lambda f: build_from_scratch({"model_type": "gtp2"}, TOKENIZER, 0),
        "families.yaml: cannot build a 'gtp2' (Unrecognized model identifier: gtp2. Should contain one of ",
    ),
    # records
    "a folder for a file": (
        lambda f: check_path(f / "in/sub"),
        "data.path: {}/in/sub is a folder; name the JSONL, Parquet or CSV file in it",
    ),
    "a CSV that is not UTF-8": (
        lambda f: list(read_file(f / "in/latin.csv")),
        "{}/in/latin.csv: not UTF-8 (invalid continuation byte); convert the file to UTF-8",
    ),
    "a JSONL that is not UTF-8": (
        lambda f: list(read_file(f / "in/latin.jsonl")),
        "{}/in/latin.jsonl, line 1: byte 21 is not UTF-8; convert the file to UTF-8",
    ),
    "a CSV with a quote in a text": (
        lambda f: list(read_file(f / "in/quote.csv")),
        "{}/in/quote.csv, line 2: not valid CSV (',' expected after '\"'); quote texts as RFC 4180 says",
    ),
    "a role that is none": (
        lambda f: list(read_file(f / "in/role.jsonl", needs_role=True)),
        "{}/in/role.jsonl, line 1: its role is none; data.roles=column needs one of private, public, heldout, "
        "auxiliary, population",
    ),
    "facts that are none": (
        lambda f: list(read_file(f / "in/facts.jsonl")),
        "{}/in/facts.jsonl, line 1: facts is no list of {kind, value}; write one or leave it out",
    ),
    # canaries
    "a number of repetitions twice": (
        lambda f: canary_table(0, [4, 4], 1, 10),
        "canaries.repetitions must be distinct and at least 1; canaries of 0 are the references",
    ),
    "more canaries than secrets": (
        lambda f: canary_table(0, [1], 1, SPACE),
        f"canaries: 1 of them and {SPACE} references; 1 to {SPACE} secrets can be drawn",
    ),
    # tokenizers and encoding
    "a slow tokenizer": (
        lambda f: Encoder(without(is_fast=False)),
        "tokenizer SimpleNamespace has no character offsets; use a fast tokenizer",
    ),
    "a tokenizer without an end": (
        lambda f: Encoder(without()),
        "the tokenizer defines no eos_token; a response could never be learned to end; name one",
    ),
    "a prompt longer than the model": (
        lambda f: greedy_continuations(tiny_model(layers=1, positions=20), [LONG], 32),
        "record rrrrrrrrrrrr: a prompt of 20 tokens and 32 new ones exceed the model's 20 positions; "
        "lower model.max_prompt_tokens",
    ),
    # models
    "a model folder that is not there": (
        lambda f: model_folder("./absent"),
        "./absent: no such model folder; name one written by save_pretrained, or a hub id",
    ),
    "a folder without weights": (
        lambda f: weight_files(f / "in/sub"),
        "{}/in/sub: no safetensors weights (model.safetensors); pickle files are never read: 'kdleak convert' makes "
        "safetensors of them",
    ),
    "an adapter of nothing": (
        lambda f: base_folder(f / "in/adapter"),
        "{}/in/adapter/adapter_config.json: names no base_model_name_or_path; write there which model it adapts",
    ),
    "a model without a tokenizer": (
        lambda f: load_tokenizer(f / "in/bare"),
        "{}/in/bare: no tokenizer beside the model; save one there with save_pretrained",
    ),
    "a configuration of no model": (
        lambda f: load_model(f / "in/bare"),
        "{}/in/bare: its config.json describes no model (Unrecognized model in {}/in/bare. ",
    ),
    "a tokenizer of another model": (
        lambda f: check_fit({"teacher": f / "in/misfit"}, {"teacher": "gpt2"}, 64),
        f"teacher gpt2 (GPT2LMHeadModel) knows 100 tokens, its tokenizer has {len(TOKENIZER)}; "
        "save the tokenizer that the model was trained with beside it",
    ),
    # audits
    "texts of other records": (
        lambda f: AttackInput(STATISTICS, texts=["a"]),
        "1 texts for 3 scored records",
    ),
    "an attack without what it needs": (
        lambda f: ATTACKS["ref_external"].score(AttackInput(STATISTICS)),
        "attack 'ref_external' needs reference 'external'",
    ),
    "scores of an unknown attack": (
        lambda f: attack_scores(AttackInput(STATISTICS), ["zlip"]),
        "unknown attack 'zlip'; did you mean 'zlib'?",
    ),
    "techniques compared by an attack that one lacks": (
        lambda f: between_techniques({"kd": SCORES, "rkl": SCORES.rename(columns={"loss": "lost"})}, "loss"),
        "'rkl' has no scores of attack 'loss'; did you mean 'lost'?",
    ),
    "models compared on other records": (
        lambda f: paired_differences(SCORES, SCORES.assign(record_id=["a", "c"])),
        "two models are compared on different records; attack both again on the same data",
    ),
    # experiments, locks
    "experiments without git": (
        lambda f: results_of(Project(f), ["exp-1"]),
        "{} is no git repository, so it has no experiment 'exp-1'; name none",
    ),
    "a lock file that is none": (
        lambda f: Provenance(Project(f / "in/lock")),
        "{}/in/lock/dvc.lock: damaged (not a lock file of DVC); bring it back with 'git checkout {}/in/lock/dvc.lock', "
        "or delete it and run 'dvc repro'",
    ),
    # kdleak audit
    "a chat template that is not there": (
        lambda f: choose_template("chat", "prompt", TOKENIZER),
        "--template chat: the student's tokenizer has no chat template; use alpaca or plain",
    ),
    "no room for a response": (
        lambda f: Encoder(TOKENIZER, 4, 4, "plain").encode("r" * 64, "What does Ada owe?", "", "b"),
        "record rrrrrrrrrrrr: its response has no token, or no room after the prompt; give it a text, or raise "
        "max_tokens",
    ),
    "a population of another shape": (
        lambda f: read_population([{"text": "a"}], read_lists(people(12, 1), people(12, 2))),
        "--population is of shape 'text', the lists are of shape 'instruction'; write all the same way",
    ),
    "a list of nothing": (
        lambda f: read_lists(f / "in/blank.jsonl", people(12, 2)),
        "--members: {}/in/blank.jsonl holds no record; it needs one a line",
    ),
    "an empty completion": (
        lambda f: read_lists([{"prompt": "a", "completion": " "}], people(12, 2)),
        "members, row 1: the completion is empty; give it a text or remove the row",
    ),
    "too few records": (
        lambda f: read_lists(people(4, 1), people(12, 2)),
        "4 distinct members: an audit needs 10 at least, and tells more with 500",
    ),
    "no attack that can run": (
        lambda f: audit(f / "models/teacher", attacks=("ref_external",), memorization=False),
        "no attack can run: ref_external ",
    ),
    "no GPU": (
        lambda f: audit(f / "models/teacher", device="cuda"),
        "device 'cuda': no GPU is to be had here; choose cpu or auto",
    ),
}  # fmt: skip


@pytest.mark.parametrize("failure", TABLE)
def test_a_known_failure_has_its_message_with_place_and_remedy(failure, folder):
    cause, message = TABLE[failure]
    with pytest.raises(KdleakError) as caught:
        cause(folder)
    expected = message.replace("{}", str(folder))
    said = str(caught.value)
    assert said == expected or (message.endswith(("(", ". ", " ")) and said.startswith(expected)), said
    assert said.isprintable() and said.endswith((")", "?", *"abcdefghijklmnopqrstuvwxyz'.0123456789"))


#: Raised with the words of something else, whose own test shows them: the gate's report, a validation's first error.
WORDS_OF_OTHERS = {"failure_message(report)"}


def test_every_message_of_the_source_stands_in_a_test():
    tests = " ".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    tests = re.sub(r'"\s*\n\s*f?r?"', "", re.sub(r"\\(.)", r"\1", tests))
    tests = " ".join(words_of(tests))
    untold = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and is_ours(node.exc):
                said = node.exc.args[0]
                parts = [
                    words_of(c.value)
                    for c in ast.walk(said)
                    if isinstance(c, ast.Constant) and isinstance(c.value, str)
                ]
                runs = {" ".join(words[i : i + 3]) for words in parts for i in range(len(words) - 2)}
                variable = not runs or ast.unparse(said) in WORDS_OF_OTHERS
                if not variable and not any(run in tests for run in runs):
                    untold.append(f"{path.name}:{node.lineno}: {ast.unparse(said)}")
    assert not untold


def words_of(text: str) -> list[str]:
    return re.sub(r"[^\w'/{}=-]", " ", text).split()


def is_ours(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "KdleakError"


def test_what_the_system_refuses_is_one_line_with_the_file(folder, monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "secret/file")

    monkeypatch.setattr("kdleak.report.results_table.print_results", refuse)
    code, said = CommandLine(monkeypatch, capsys)(folder, "results")
    assert (code, said) == (1, "kdleak: error: secret/file: permission denied; mend that, then run it again\n")


@pytest.mark.skipif(sys.platform != "linux", reason="a file of /proc that opens and cannot be read")
@pytest.mark.parametrize("read", [lambda p: read_yaml(p, ""), read_fields])
def test_a_file_that_opens_and_fails_as_it_is_read_is_named(tmp_path, read):
    (path := tmp_path / "config.json").symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error") as refused:
        read(path)
    assert refused.value.filename == str(path)
