"""Model folders that others wrote: what is hashed is what is loaded, from safetensors files of the folder itself."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from kdleak.core.errors import KdleakError
from kdleak.models.checkpoints import load_model
from kdleak.models.model_files import content_hash, tensors_of, weight_files
from tests.support.tiny_models import tiny_model

INDEX = "model.safetensors.index.json"


def written(folder: Path, seed: int = 0, family: str = "llama") -> Path:
    tiny_model(family, seed=seed, layers=2).save_pretrained(folder)
    return folder


def sharded(folder: Path, shards: dict[str, str] | None = None, seed: int = 0) -> Path:
    """A model in two files, a.safetensors and b.safetensors; `shards` renames what the index calls them."""
    written(folder, seed)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, keys in halves.items():
        save_file({k: weights[k] for k in keys}, folder / file, metadata={"format": "pt"})
    weight_map = {k: (shards or {}).get(file, file) for file, keys in halves.items() for k in keys}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def adapted(folder: Path, base: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(load_model(base), config)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    return folder


def refused(folder: Path, match: str) -> None:
    """Loading says why not, in one line, and so does the hash."""
    for use in (load_model, content_hash):
        with pytest.raises(KdleakError, match=match) as error:
            use(folder)
        assert "\n" not in str(error.value)


def test_the_hash_follows_what_is_loaded_and_nothing_else(tmp_path):
    a, b, c = written(tmp_path / "a", 1), written(tmp_path / "b", 1), written(tmp_path / "c", 2)
    first = content_hash(a)
    (a / "README.md").write_text("notes")
    save_file({"x": torch.zeros(1)}, a / "other.safetensors")
    assert content_hash(a) == first == content_hash(b) != content_hash(c)
    (b / "config.json").write_text((b / "config.json").read_text() + " ")
    assert content_hash(b) != first


def test_every_shard_is_loaded_and_hashed(tmp_path):
    folder = sharded(tmp_path / "s", seed=1)
    assert [path.name for path in weight_files(folder)] == ["a.safetensors", "b.safetensors"]
    expected, before = tiny_model("llama", seed=1, layers=2), content_hash(folder)
    ids = torch.arange(1, 9)[None]
    torch.testing.assert_close(load_model(folder)(ids).logits, expected(ids).logits)
    other = sharded(tmp_path / "t", seed=2)
    (other / "b.safetensors").replace(folder / "b.safetensors")
    assert content_hash(folder) != before


def test_the_hash_of_an_adapter_follows_its_base(tmp_path):
    base = written(tmp_path / "base")
    adapter = adapted(tmp_path / "adapter", base)
    first = content_hash(adapter)
    load_model(adapter)
    written(base, seed=2)
    assert content_hash(adapter) != first
    sharded(base, seed=2)
    assert content_hash(adapter) != first


def test_an_adapter_of_an_adapter_is_refused(tmp_path):
    base = written(tmp_path / "base")
    first = adapted(tmp_path / "first", base)
    second = adapted(tmp_path / "second", base, seed=1)
    fields = json.loads((second / "adapter_config.json").read_text())
    (second / "adapter_config.json").write_text(json.dumps(fields | {"base_model_name_or_path": str(first)}))
    refused(second, r"its base .*first is an adapter itself; merge that into its own base first")


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


@pytest.mark.parametrize("beside", [False, True])
def test_no_pickle_is_opened(tmp_path, monkeypatch, beside):
    """An index that maps tensors to a pickle, alone or beside any safetensors file."""
    monkeypatch.chdir(tmp_path)
    folder = sharded(tmp_path / "m", {"b.safetensors": "pytorch_model.bin"})
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    if beside:
        save_file({"x": torch.zeros(1)}, folder / "x.safetensors")
    monkeypatch.setattr(torch, "load", None)
    refused(folder, r"index\.json: names 'pytorch_model\.bin', which is no \*\.safetensors file of its folder")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_in_the_clothes_of_safetensors_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = written(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(KdleakError, match=r"model\.safetensors: cannot be loaded"):
        load_model(folder)
    torch.save({"x": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(KdleakError, match=r"model\.safetensors: cannot be loaded"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../b.safetensors", "{}/b.safetensors", "sub/b.safetensors"])
def test_a_shard_elsewhere_is_refused(tmp_path, name):
    name = name.format(tmp_path)
    folder = sharded(tmp_path / "m", {"b.safetensors": name})
    (folder / "sub").mkdir()
    for place in (tmp_path, folder / "sub"):
        (place / "b.safetensors").write_bytes((folder / "b.safetensors").read_bytes())
    refused(folder, r"index\.json: names '.*', which is no \*\.safetensors file of its folder; convert the model")


@pytest.mark.parametrize("file", ["b.safetensors", "model.safetensors", "adapter_model.safetensors"])
def test_a_link_out_of_the_folder_is_refused(tmp_path, file):
    if file == "b.safetensors":
        folder = sharded(tmp_path / "m")
    else:
        folder = written(tmp_path / "m") if file == "model.safetensors" else None
        folder = folder or adapted(tmp_path / "m", written(tmp_path / "base"))
    (folder / file).rename(tmp_path / "elsewhere.safetensors")
    (folder / file).symlink_to(tmp_path / "elsewhere.safetensors")
    refused(folder, rf"m/{file}: leads out of its folder, to .*elsewhere\.safetensors; copy the file itself there")
    (folder / file).unlink()
    (tmp_path / "elsewhere.safetensors").rename(folder / "inside.safetensors")
    (folder / file).symlink_to("inside.safetensors")
    load_model(folder)


def test_a_snapshot_of_the_hub_is_links_into_its_cache(tmp_path):
    snapshot = written(tmp_path / "models--org--name/snapshots/abc")
    blobs = tmp_path / "models--org--name/blobs"
    blobs.mkdir()
    (snapshot / "model.safetensors").rename(blobs / "0123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/0123")
    load_model(snapshot)
    first = content_hash(snapshot)
    (written(tmp_path / "other", seed=2) / "model.safetensors").replace(blobs / "0123")
    assert content_hash(snapshot) != first


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"x": 3}}', "no json", "[" * 99_999],
)
def test_an_index_that_is_none_is_refused(tmp_path, index):
    folder = sharded(tmp_path / "m")
    (folder / INDEX).write_text(index)
    refused(folder, r"index\.json: (names no weight files \(weight_map\)|names '3'|damaged \(no JSON object\))")


def test_a_pipe_in_place_of_weights_is_refused_without_waiting_for_a_writer(tmp_path):
    folder = written(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    refused(folder, r"model\.safetensors: no regular file; ")
    shards = sharded(tmp_path / "s")
    (shards / "b.safetensors").unlink()
    refused(shards, r"b\.safetensors: missing; ")
    os.mkfifo(shards / "b.safetensors")
    refused(shards, r"b\.safetensors: no regular file; ")


def test_weights_named_by_the_configuration_are_refused(tmp_path):
    folder = written(tmp_path / "m")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"transformers_weights": "x.safetensors"}))
    with pytest.raises(KdleakError, match="transformers_weights names weights of another kind; name them model"):
        load_model(folder)


@pytest.mark.parametrize("nested", [False, True])
def test_a_kernel_of_the_hub_is_never_fetched(tmp_path, nested):
    kernel = {"attn_implementation": "org/kernel"}
    folder = with_config(written(tmp_path / "m"), **({"text_config": kernel} if nested else kernel))
    with pytest.raises(KdleakError, match=r"names a kernel of the hub .* code that kdleak never runs; remove it"):
        load_model(folder)
    load_model(with_config(written(folder), attn_implementation="eager"))


def with_config(folder: Path, **fields: object) -> Path:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    return folder


@pytest.mark.parametrize("layers", [0, -1, 100_000, 10**12])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_number_of_layers_that_the_weights_have_not_is_refused(tmp_path, family, layers):
    field = "n_layer" if family == "gpt2" else "num_hidden_layers"
    folder = with_config(written(tmp_path / "m", family=family), **{field: layers})
    with pytest.raises(
        KdleakError, match=rf"config\.json: describes a model of {layers} layers, the weights beside it"
    ):
        load_model(folder)


def test_fewer_layers_than_the_weights_have_are_refused(tmp_path):
    folder = with_config(written(tmp_path / "m"), num_hidden_layers=1)
    with pytest.raises(
        KdleakError, match=r"its weights have 'model\.layers\.1\..*' and \d+ more, config.* only 1 layers"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (
            {"vocab_size": 10**12},
            r"describes '.*' of shape \[1000000000000, 32\], the weights beside it have it of \[97",
        ),
        ({"hidden_size": 2**20}, "describes"),
        ({"intermediate_size": 2**40}, r"describes 'model\.layers\.0\.mlp"),
        (
            {"intermediate_size": 65},
            r"describes 'model\.layers\.0\.mlp\..*' of shape \[.*65.*\], the weights beside it",
        ),
        ({"hidden_size": 10**30}, "describes no model|describes"),
        (
            {"num_local_experts": 10**9, "model_type": "mixtral"},
            "num_local_experts is 1000000000, more than any model has",
        ),
        (
            {"num_local_experts": 4000, "model_type": "mixtral"},
            r"describes [\d,]+ parameters, the weights beside it hold",
        ),
    ],
)
def test_a_configuration_that_asks_for_memory_is_refused_before_it_is_taken(tmp_path, monkeypatch, fields, match):
    folder = with_config(written(tmp_path / "m"), **fields)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(KdleakError, match=match):
        load_model(folder)


def test_a_model_larger_than_the_machine_is_refused(tmp_path, monkeypatch):
    folder = written(tmp_path / "m")
    monkeypatch.setattr("kdleak.models.size_check.machine_memory", lambda: 1000)
    with pytest.raises(KdleakError, match=r"m: a model of 0 GiB, this machine has 0; use a smaller one"):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    folder = written(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(KdleakError, match=r"not finite \('model\.norm\.weight' holds NaN or infinity\)"):
        load_model(folder)


def test_headers_say_how_much_there_is_without_reading_it(tmp_path):
    model = tiny_model("llama", layers=2)
    tensors = tensors_of(written(tmp_path / "m"))
    assert tensors.parameters == sum(p.numel() for p in model.parameters())
    assert tensors.shapes["lm_head.weight"] == (97, 32)
