"""Claims on how a model is loaded for an audit: in half precision, over GPUs, quantised; what cannot be is one line."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

import kdleak
from kdleak.core.errors import KdleakError
from kdleak.inference.scoring import token_statistics
from kdleak.models import loading
from kdleak.models.checkpoints import save_checkpoint
from kdleak.models.loading import Loading, load_as
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import random_records, tiny_model

RECORDS = random_records(4)
TOKENIZER = tokenizer_of(people(20, 3))
BF16 = Loading("bf16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("loading") / "model"
    save_checkpoint(tiny_model("llama", vocabulary=len(TOKENIZER), layers=2), TOKENIZER, made)
    return made


def log_probs(model):
    return token_statistics(model, RECORDS).log_prob


def test_half_precision_is_near_and_the_stored_one_is_exact(folder, tmp_path):
    plain = log_probs(load_as(folder, "cpu", Loading()))
    half = load_as(folder, "cpu", BF16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    difference = np.abs(log_probs(half) - plain)
    assert difference.max() > 0 and np.median(difference) < 0.05
    np.testing.assert_array_equal(log_probs(load_as(folder, "cpu", Loading("auto"))), plain)  # stored in fp32


def test_an_adapter_is_merged_in_the_precision_asked_for(folder, tmp_path):
    model = get_peft_model(load_as(folder, "cpu", Loading()), LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    config = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert str(folder) in config
    adapted = load_as(tmp_path / "adapter", "cpu", BF16)
    assert adapted.dtype == torch.bfloat16 and not any("lora" in name for name, _ in adapted.named_parameters())
    (tmp_path / "adapter" / "adapter_config.json").write_text(config.replace('"r": 2', '"r": 3'))
    with pytest.raises(KdleakError, match="this adapter does not fit its base"):
        load_as(tmp_path / "adapter", "cpu", BF16)


def test_a_model_spread_over_devices_answers_on_its_first(folder):
    """As far as it shows on one device: hooks on every block, the head without one, the same log-probs."""
    from accelerate import dispatch_model

    model = load_as(folder, "cpu", Loading())
    plain = log_probs(model)
    spread = dispatch_model(model, {"": "cpu"}, force_hooks=True)
    spread.hf_device_map = {"model": 0, "lm_head": 1}
    np.testing.assert_array_equal(log_probs(loading._gathered(spread, folder)), plain)
    assert not hasattr(spread.get_output_embeddings(), "_hf_hook") and hasattr(spread.model, "_hf_hook")
    spread.hf_device_map = {"model": 0, "lm_head": "disk"}
    with pytest.raises(KdleakError, match="the GPUs here do not hold it; use --dtype bf16 or --bits 8, or more"):
        loading._gathered(spread, folder)


def test_weights_that_are_not_finite_are_refused_in_any_precision(folder, tmp_path):
    model = tiny_model("llama", vocabulary=len(TOKENIZER), layers=2)
    model.model.norm.weight.data[0] = torch.inf
    save_checkpoint(model, TOKENIZER, tmp_path / "model")
    with pytest.raises(KdleakError, match="its weights are not finite"):
        load_as(tmp_path / "model", "cpu", BF16)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(KdleakError, match="cannot be loaded"):
        load_as(tmp_path / "model", "cpu", BF16)


def test_what_cannot_be_is_one_line(folder, tmp_path, monkeypatch):
    def refused(*given, **fields):
        with pytest.raises(KdleakError) as caught:
            given[0](*given[1:], **fields)
        return str(caught.value)

    assert refused(Loading, "bf61") == "--dtype bf61: unknown; did you mean 'bf16'?"
    assert refused(Loading, device_map="balanced") == "--device-map balanced: unknown; write auto, or leave it out"
    assert refused(Loading, bits=3) == "--bits 3: a model is quantised to 8 or 4 bits; write one of them"
    if not torch.cuda.is_available():
        said = refused(load_as, folder, "cpu", Loading(device_map="auto"))
        assert said == "--device-map auto: no GPU is to be had here; leave it out"
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    assert refused(Loading, bits=8) == "--bits 8: bitsandbytes is not installed; pip install bitsandbytes"
    monkeypatch.setattr(loading, "find_spec", lambda name: SimpleNamespace())
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "x"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    said = refused(load_as, tmp_path, "cpu", Loading(bits=8))
    assert said == f"{tmp_path}: an adapter is not merged into 8 bits; merge it first"


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_model_is_near(folder, bits):
    difference = np.abs(log_probs(load_as(folder, "cpu", Loading(bits=bits))) - log_probs(load_as(folder, "cpu", BF16)))
    assert 0 < np.median(difference) < (0.1, 1.0)[bits == 4]


def test_figures_in_half_precision_go_by_another_digest(folder):
    how = {"template": "{instruction}\n", "attacks": ["loss"], "memorization": False}
    results = [kdleak.audit(folder, people(12, 1), people(12, 2), dtype=dtype, **how) for dtype in ("fp32", "bf16")]
    plain, half = (result.figures["inputs"]["models"]["student"]["sha256"] for result in results)
    assert half == f"{plain}, bf16"
    assert np.abs(results[0].table["loss"] - results[1].table["loss"]).between(1e-9, 0.2).all()
