"""Where models are computed: what was chosen, a GPU a process, an error where there is none."""

import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.models import checkpoints
from kdleak.models.checkpoints import load_model, save_checkpoint
from kdleak.models.device import CHOSEN_DEVICE, resolve_device
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model


def test_the_pipeline_s_choice_holds_where_none_is_given(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device() == "cpu"
    monkeypatch.setenv(CHOSEN_DEVICE, "auto")
    assert resolve_device() == "cuda:0" and resolve_device("cpu") == "cpu"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device() == "cuda:1"


def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(KdleakError, match="no GPU is to be had here; choose cpu or auto"):
        resolve_device("cuda")


def test_models_are_loaded_where_the_pipeline_computes(tmp_path, monkeypatch):
    save_checkpoint(tiny_model(layers=1), tokenizer_of(people(4, 1)), tmp_path / "model")
    moved = []
    monkeypatch.setattr(checkpoints, "on_device", lambda model, device: moved.append(device) or model)
    monkeypatch.setenv(CHOSEN_DEVICE, "meta")  # the one other device that every machine has
    load_model(tmp_path / "model")
    load_model(tmp_path / "model", "cpu")
    assert moved == ["meta", "cpu"]
