"""What an adapter's configuration asks for is refused before peft makes it."""

from __future__ import annotations

import json

import pytest

from kdleak.core import limits
from kdleak.core.errors import KdleakError
from kdleak.models.adapter_check import check_adapter
from kdleak.models.model_files import Tensors

ADAPTER = Tensors({"h.0.attn.lora_A.weight": (8, 64), "h.0.attn.lora_B.weight": (192, 8)})
BASE = Tensors({"wte.weight": (9000, 64)})
MODULES = ["transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_fc", "lm_head"]
HONEST = {
    "r": 8, "lora_alpha": 16, "target_modules": ["c_attn", "c_fc"], "rank_pattern": {"c_fc": 4},
    "exclude_modules": r".*\.mlp\..*", "layers_pattern": None, "modules_to_save": ["lm_head"],
    "layer_replication": None, "megatron_config": None,
}  # fmt: skip
SIZES = [
    ({"r": 10**8}, "r is 100,000,000, its weights and its base's have 9,000"),
    ({"rank_pattern": {"c_fc": 10**8}}, "rank_pattern is 100,000,000"),
    ({"layer_replication": [[0, 10**6]]}, "layer_replication is 1,000,000"),
    ({"num_virtual_tokens": 1e12}, "num_virtual_tokens is 1,000,000,000,000"),
]
BOMB = "(.|.)*(.|.)*(.|.)*(.|.)*(.|.)*X"


def check(tmp_path, **settings: object) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(HONEST | settings))
    check_adapter(tmp_path, ADAPTER, BASE, MODULES)


def test_an_honest_adapter_passes(tmp_path):
    check(tmp_path)
    check(tmp_path, target_modules="all-linear", r=4096, layers_pattern=["h", "layers"], rank_pattern={"(": 3})


@pytest.mark.parametrize(("settings", "said"), SIZES)
def test_no_more_is_made_than_its_weights_need(tmp_path, settings, said):
    with pytest.raises(KdleakError, match=said):
        check(tmp_path, **settings)


def test_no_package_of_its_choice_is_imported(tmp_path):
    with pytest.raises(KdleakError, match="megatron_config names a package to import, which kdleak never does"):
        check(tmp_path, megatron_config={"a": 1}, megatron_core="antigravity")


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": BOMB},
        {"exclude_modules": BOMB},
        {"rank_pattern": {BOMB: 3}},
        {"layers_pattern": [BOMB]},
        {"modules_to_save": [BOMB]},
    ],
)
def test_a_pattern_that_does_not_end_is_one_line(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(limits, "SECONDS", 0.1)
    with pytest.raises(KdleakError, match="finding the modules that its patterns name took more time or memory"):
        check(tmp_path, **settings)
