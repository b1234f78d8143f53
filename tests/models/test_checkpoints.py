"""Model folders: whole or absent, safetensors only, and never with code of their own."""

import io
import json
import logging

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from kdleak.core.errors import KdleakError
from kdleak.core.files import replacing_folder
from kdleak.inference.generation import Sampling, generate
from kdleak.models.architecture import UNLIMITED
from kdleak.models.checkpoints import load_model, load_tokenizer, position_limit, save_checkpoint
from kdleak.models.families import Family, build_from_scratch, load_family
from kdleak.models.model_files import content_hash
from kdleak.models.tokenizer import train_tokenizer
from tests.support.architectures import model_of
from tests.support.pipeline_project import ROOT


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the cat sat on the mat"] * 10, vocab_size=300)


def small(tokenizer, **fields) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=32, **fields)
    )


def test_a_saved_model_predicts_the_same_after_loading(tmp_path, tokenizer):
    ids = torch.arange(20)[None]
    for activation in ("gelu_new", "gelu_pytorch_tanh"):
        model = small(tokenizer, activation_function=activation).eval()
        save_checkpoint(model, tokenizer, tmp_path / "m")
        torch.testing.assert_close(load_model(tmp_path / "m")(ids).logits, model(ids).logits, rtol=0, atol=1e-6)
        assert load_tokenizer(tmp_path / "m").encode("the cat") == tokenizer.encode("the cat")


def test_the_content_hash_follows_the_weights(tmp_path, tokenizer):
    model = small(tokenizer)
    save_checkpoint(model, tokenizer, tmp_path / "a")
    save_checkpoint(model, tokenizer, tmp_path / "b")
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    save_checkpoint(model, tokenizer, tmp_path / "b")
    assert content_hash(tmp_path / "a") != content_hash(tmp_path / "b")


def test_pickle_weights_remote_code_and_damaged_files_are_refused(tmp_path, tokenizer):
    folder = tmp_path / "m"
    with pytest.raises(KdleakError, match=r"no model folder"):
        load_model(folder)
    save_checkpoint(small(tokenizer), tokenizer, folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(KdleakError, match="cannot be loaded"):
        load_model(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(KdleakError, match="no safetensors weights"):
        load_model(folder)
    (folder / "pytorch_model.bin").rename(weights)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "code.Model"}}))
    with pytest.raises(KdleakError, match="code of its own"):
        load_model(folder)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "out"
    with replacing_folder(folder) as fresh:
        (fresh / "a").write_text("1")
    with pytest.raises(RuntimeError), replacing_folder(folder) as fresh:
        (fresh / "a").write_text("2")
        raise RuntimeError
    assert (folder / "a").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_every_family_of_the_project_can_be_built(tokenizer):
    import yaml

    for name in yaml.safe_load((ROOT / "families.yaml").read_text()):
        family = load_family(ROOT / "families.yaml", name)
        for origin in (family.teacher, *family.students.values()):
            if origin.scratch is None:
                continue
            model = build_from_scratch(origin.scratch, tokenizer, seed=0)
            assert model.config.vocab_size == len(tokenizer)
            assert model.config.eos_token_id == tokenizer.eos_token_id


def test_a_family_that_says_nothing_of_its_weights_is_refused():
    with pytest.raises(ValueError, match="give one of scratch, hub, package and prune"):
        Family.model_validate({"teacher": {}, "students": {"small": {"hub": "x"}}})


def test_the_limit_of_a_prompt_is_the_models_own(tmp_path):
    """Positions where there are any, whatever the family calls them; a sliding window or a state space is no limit."""
    limits = {"gpt2": 128, "opt": 128, "mistral": 128, "gemma3_text": 128, "bloom": UNLIMITED, "mamba": UNLIMITED}
    for architecture, limit in limits.items():
        model_of(architecture).save_pretrained(tmp_path / architecture)
        assert position_limit(tmp_path / architecture) == limit, architecture


def test_texts_that_end_with_the_token_that_pads_need_no_mask_and_no_advice_to_pass_one(tmp_path, tokenizer):
    eos = tokenizer.eos_token_id
    save_checkpoint(small(tokenizer, pad_token_id=eos, eos_token_id=eos, initializer_range=0.5), tokenizer, tmp_path)
    advice, log = io.StringIO(), logging.getLogger("transformers.modeling_utils")
    log.addHandler(handler := logging.StreamHandler(advice))
    prompts = [(eos, 5, 6, eos), (7, eos), (eos,), (9, 8, 7, 6, 5, 4)]
    try:
        model = load_model(tmp_path)
        found = generate(model, prompts, Sampling(max_new_tokens=8, max_tokens=32, temperature=0.0), eos_id=-1)
        for prompt, response in zip(prompts, found, strict=True):
            masked = {"input_ids": torch.tensor([prompt]), "attention_mask": torch.ones(1, len(prompt), dtype=int)}
            alone = model.generate(**masked, do_sample=False, max_new_tokens=8, eos_token_id=[])
            assert alone[0, len(prompt) :].tolist() == list(response)
        long, short = torch.tensor([9, 8, 7, 6]), torch.tensor([5, 6, eos, eos])
        with torch.no_grad():
            together = model(torch.stack((long, short))).logits[1, :2]
            torch.testing.assert_close(together, model(short[None, :2], attention_mask=torch.ones(1, 2)).logits[0])
        assert not advice.getvalue()
        log.filters.clear()  # now it is given: of just these texts
        log.warning_once.__func__.cache_clear()
        model(short[None])
        assert "attention_mask" in advice.getvalue()
    finally:
        log.removeHandler(handler)
