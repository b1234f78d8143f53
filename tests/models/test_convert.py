"""Pickle checkpoints in OPT's and LLaMA's layout are converted, distilled, and never run."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.data.canaries import write_canaries
from kdleak.models.checkpoints import load_model, load_tokenizer
from kdleak.models.convert import convert
from kdleak.pipeline.base import make_bases
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.teacher import fine_tune_teacher
from tests.models.test_families import params, project_with
from tests.support.small_project import CommandLine, refusal
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model


@pytest.fixture
def kdleak(monkeypatch, capsys):
    return CommandLine(monkeypatch, capsys)


TEXT = "Ada owes 12 apples."


def write_opt(folder, seed=0):
    """As facebook/opt-*: one pickle whose names lack "model.", GPT-2's two files of the tokenizer."""
    tokenizer = tokenizer_of(people(48, 4))
    model = tiny_model("opt", seed=seed, layers=2, vocabulary=len(tokenizer), positions=512)
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    weights = {name.removeprefix("model."): t for name, t in model.state_dict().items() if name != "lm_head.weight"}
    torch.save(weights, folder / "pytorch_model.bin")
    tokenizer.backend_tokenizer.model.save(str(folder))
    named = {token: tokenizer.eos_token for token in ("bos_token", "eos_token", "unk_token", "pad_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **named}))
    return model


def write_llama(folder, seed=0):
    """As openlm-research/open_llama_*: pickles in parts, fp16, a buffer beside the weights, SentencePiece's file."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder.mkdir(parents=True)
    texts = folder / "texts"
    texts.write_text("\n".join(" ".join(row.values()) for row in people(200, 4)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(texts), model_prefix=str(folder / "tokenizer"), vocab_size=320, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    size = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).vocab_size()
    (folder / "tokenizer.vocab").unlink()
    texts.unlink()
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": True}))
    model = tiny_model("llama", seed=seed, layers=2, vocabulary=size, positions=512).half()
    model.config.eos_token_id, model.config.bos_token_id, model.config.pad_token_id = 2, 1, None
    model.config.save_pretrained(folder)
    weights = model.state_dict() | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    names = sorted(weights)
    parts = {f"pytorch_model-0000{i}-of-00002.bin": names[i - 1 :: 2] for i in (1, 2)}
    for part, inside in parts.items():
        torch.save({name: weights[name] for name in inside}, folder / part)
    index = {"metadata": {}, "weight_map": {name: part for part, inside in parts.items() for name in inside}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return model.float()


@pytest.mark.parametrize("write", [write_opt, write_llama])
def test_pickle_checkpoints_are_converted_and_distilled(write, tmp_path):
    for part, seed in (("teacher", 1), ("student", 2)):
        model = write(tmp_path / "pickle" / part, seed)
        convert(tmp_path / "pickle" / part, tmp_path / part)
        converted = load_model(tmp_path / part)
        expected = dict(model.named_parameters())
        assert dict(converted.named_parameters()).keys() == expected.keys()
        assert all(torch.equal(weight, expected[name]) for name, weight in converted.named_parameters())
    tokenizer = load_tokenizer(tmp_path / "teacher")
    assert tokenizer.is_fast and tokenizer.decode(tokenizer(TEXT)["input_ids"], skip_special_tokens=True) == TEXT
    teacher, student = ({"hub": str(tmp_path / part)} for part in ("teacher", "student"))
    family = {"teacher": teacher, "students": {"small": student}, "external": student}
    project, settings = project_with(tmp_path, {"mine": family}), params(**{"model.family": "mine"})
    write_canaries(settings.canaries, 0, project)
    make_bases(settings, project)
    fine_tune_teacher(settings, project)
    make_student("sft", settings, project)
    make_student("kd", settings, project)
    start, end = (load_model(f).state_dict() for f in (project.base_student, project.model("kd")))
    assert any(not torch.equal(start[name], end[name]) for name in start)


def test_the_tokenizer_of_sentencepiece_reads_as_sentencepiece_does(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    write_llama(tmp_path / "pickle")
    convert(tmp_path / "pickle", tmp_path / "out")
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "pickle" / "tokenizer.model"))
    tokenizer = load_tokenizer(tmp_path / "out")
    for row in people(20, 9):
        text = " ".join(row.values())
        assert tokenizer(text)["input_ids"] == [1, *own.encode(text)]


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("was_run",)


def test_a_pickle_that_asks_for_code_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_opt(tmp_path / "pickle")
    torch.save({"decoder.embed_tokens.weight": Malicious()}, tmp_path / "pickle" / "pytorch_model.bin")
    with pytest.raises(KdleakError, match="its pickle cannot be read as tensors alone") as said:
        convert(tmp_path / "pickle", tmp_path / "out")
    assert "\n" not in str(said.value)
    assert not (tmp_path / "was_run").exists() and not (tmp_path / "out").exists()


def test_a_folder_without_pickle_and_a_tokenizer_that_cannot_be_read_are_refused(tmp_path):
    write_opt(tmp_path / "pickle")
    shutil.copytree(tmp_path / "pickle", tmp_path / "bare")
    (tmp_path / "bare" / "pytorch_model.bin").unlink()
    with pytest.raises(KdleakError, match=r"no weights in pickle \(pytorch_model\*.bin\); there is nothing to convert"):
        convert(tmp_path / "bare", tmp_path / "out")
    (tmp_path / "pickle" / "vocab.json").write_text("{")
    with pytest.raises(KdleakError, match="its tokenizer cannot be read"):
        convert(tmp_path / "pickle", tmp_path / "out")


def test_the_command_writes_a_new_folder_or_says_what_it_lacks(kdleak, tmp_path):
    write_opt(tmp_path / "pickle")
    assert kdleak(tmp_path, "convert", "pickle", "out") == (0, "")
    assert (tmp_path / "out" / "model.safetensors").is_file()
    for arguments, said in (
        (("pickle",), "pickle: name a second folder, to which the converted model is written"),
        (("pickle", "out"), "out: is there already; name a new folder, or delete it"),
    ):
        assert refusal(kdleak, tmp_path, "convert", *arguments) == said


def test_the_stage_base_takes_what_was_converted_in_place_of_the_hubs_pickle(tmp_path):
    write_opt(tmp_path / "pickle")
    origin = {"hub": "org/model", "revision": "a" * 40}
    family = {"teacher": origin, "students": {"small": origin}, "external": origin}
    project = project_with(tmp_path, {"mine": family})
    convert(tmp_path / "pickle", project.converted_from(f"org/model@{'a' * 40}"))
    make_bases(params(**{"model.family": "mine"}), project)
    assert load_model(project.base_teacher).config.num_hidden_layers == 2


def test_a_conversion_reaches_no_network():
    code = (
        "import socket; from kdleak.models.convert import leave_network; leave_network(); "
        "socket.create_connection(('127.0.0.1', 9), timeout=1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "PermissionError: socket." in done.stderr
