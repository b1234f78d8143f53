"""Claims on GGUF files: the model that llama.cpp reads is the one that is audited."""

import importlib.util

import numpy as np
import pytest

from kdleak.core.errors import KdleakError
from kdleak.inference.scoring import token_statistics
from kdleak.models import gguf_file
from kdleak.models.checkpoints import load_model, load_tokenizer
from kdleak.models.gguf_file import gguf_of, unpacked
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import random_records, tiny_model

TOKENIZER = tokenizer_of(people(20, 3))
needs_gguf = pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="the package gguf is not installed")
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def rotated(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix in llama.cpp's order: the halves of each head's rotary pairs side by side."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def write_gguf(model, path) -> None:
    """A LLaMA model as llama.cpp's converter writes it, unquantised."""
    from gguf import GGUFWriter

    config, writer = model.config, GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(TOKENIZER.get_vocab(), key=TOKENIZER.get_vocab().get)
    merges = [
        " ".join(pair) for pair in __import__("json").loads(TOKENIZER.backend_tokenizer.to_str())["model"]["merges"]
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token == TOKENIZER.eos_token else 1 for token in vocabulary])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(TOKENIZER.bos_token_id)
    writer.add_eos_token_id(TOKENIZER.eos_token_id)
    for name, weight in model.state_dict().items():
        values = weight.float().numpy()
        if "layers." in name:
            _, _, layer, rest = name.split(".", 3)
            kind = rest.removesuffix(".weight")
            heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
            values = rotated(values, heads[kind]) if kind in heads else values
            name = f"blk.{layer}.{_NAMES[kind]}.weight"
        else:
            name = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                    "lm_head.weight": "output.weight"}[name]  # fmt: skip
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@needs_gguf
def test_a_gguf_file_is_the_model_that_it_was_made_of(tmp_path):
    model = tiny_model("llama", vocabulary=len(TOKENIZER), layers=2)
    (tmp_path / "models").mkdir()
    write_gguf(model, tmp_path / "models" / "tiny.gguf")
    path = gguf_of(str(tmp_path / "models"))
    folder = unpacked(path, tmp_path / "store")
    records = random_records(4)
    found, expected = (token_statistics(each, records).log_prob for each in (load_model(folder, "cpu"), model))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    text = people(1, 9)[0]["response"]
    assert load_tokenizer(folder)(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert unpacked(path, tmp_path / "store") == folder


@needs_gguf
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(KdleakError, match=r"cannot be read as GGUF .*; fetch it again, or convert it to safetensors"):
        unpacked(tmp_path / "broken.gguf", tmp_path / "store")


def test_a_folder_of_several_and_a_missing_package_are_named(tmp_path, monkeypatch):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(KdleakError, match="holds 2 GGUF files; name one of them"):
        gguf_of(str(tmp_path))
    assert gguf_of(str(tmp_path / "absent")) is None and gguf_of("org/name") is None
    monkeypatch.setattr(gguf_file, "_is_installed", lambda: False)
    with pytest.raises(KdleakError, match=r"a.gguf: to read GGUF the package gguf is needed; pip install gguf"):
        unpacked(gguf_of(str(tmp_path / "a.gguf")), tmp_path / "store")
