"""What the two caches of the pipeline stand on; what each of them adds is tested with it."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from kdleak.core.tensor_store import TensorStore

TENSORS = {"x": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T, "empty": torch.zeros(0, 4)}


def test_tensors_of_any_type_come_back_as_they_were(tmp_path):
    store = TensorStore(tmp_path, framework="pt")
    store.put("a", TENSORS)
    entry = store.get("a")
    assert entry.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert entry[name].dtype == tensor.dtype and torch.equal(entry[name], tensor)
    assert store.get("b") is None


def test_what_was_written_as_tensors_can_be_read_as_arrays(tmp_path):
    TensorStore(tmp_path).put("a", {"x": torch.ones(2, 3)})
    assert np.array_equal(TensorStore(tmp_path).get("a")["x"], np.ones((2, 3), np.float32))


def test_folder_and_entries_are_their_owners_alone(tmp_path):
    old = os.umask(0o022)
    try:
        folder = tmp_path / "cache"
        folder.mkdir(mode=0o755)
        TensorStore(folder).put("a", {"x": np.zeros(3)})
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "a.safetensors").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["key", "type", "shape"])
def test_an_entry_is_of_its_key_type_and_shape_or_none(tmp_path, change, caplog):
    store = TensorStore(tmp_path)
    store.put("a", {"x": np.zeros(4, np.float32)})
    store.put("b", {"x": np.zeros((2, 2), np.float32) if change == "shape" else np.zeros(4, np.int32)})
    if change == "key":
        (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    else:  # the other's header before these bytes
        (tmp_path / "b.safetensors").write_bytes(
            (tmp_path / "b.safetensors").read_bytes().replace(b"I32", b"F32").replace(b"[2,2]", b"[4,1]")
        )
    assert store.get("b") is None
    assert "b.safetensors is damaged (checksum mismatch)" in caplog.text
    assert not (tmp_path / "b.safetensors").exists()
