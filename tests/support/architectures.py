"""Tiny random models of many architectures: what follows the head, windows, experts and state spaces among them."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.support.tiny_models import VOCABULARY

WINDOW = 16
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_ODD = {"head_dim": 8, "sliding_window": WINDOW}
_ENDS = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}

#: model_type -> fields of its configuration.
ARCHITECTURES = {
    "llama": _COMMON,
    "gpt2": {**_ENDS, "n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 128, "initializer_range": 0.25},
    "opt": {**_COMMON, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.25},
    "qwen3": {**_COMMON, "head_dim": 8},
    "qwen3_moe": {**_COMMON, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "mixtral": {**_COMMON, "num_local_experts": 4},
    "mistral": {**_COMMON, "sliding_window": WINDOW},
    "gemma2": {**_COMMON, **_ODD, "query_pre_attn_scalar": 8, "final_logit_softcapping": 5.0},
    "gemma3_text": {**_COMMON, **_ODD, "query_pre_attn_scalar": 8},
    "granite": {**_COMMON, "logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    "hyperclovax": {**_COMMON, "logits_scaling": 3.0},
    "cohere": {**_COMMON, "logit_scale": 0.25},
    "gpt_oss": {
        **_COMMON,
        **_ODD,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    },
    "phi": _COMMON,
    "gpt_neox": _COMMON,
    "bloom": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "n_layer": 3,
        "n_head": 4,
        "initializer_range": 0.25,
        **_ENDS,
    },
    "mamba": {**_ENDS, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4},
    "falcon_h1": {
        **_COMMON,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 8,
        "lm_head_multiplier": 0.5,
    },
}


def model_of(architecture: str, seed: int = 0) -> PreTrainedModel:
    """An untrained model of that `model_type` in eval mode."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(architecture, **ARCHITECTURES[architecture])
    return AutoModelForCausalLM.from_config(config).eval()
