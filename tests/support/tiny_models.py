"""Random models of each family and random encoded records, small enough for a test."""

from __future__ import annotations

import numpy as np
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from kdleak.data.encoding import EncodedRecord

VOCABULARY = 97
FAMILIES = ("gpt2", "opt", "llama")


def tiny_model(
    family: str = "gpt2",
    *,
    seed: int = 0,
    layers: int = 3,
    width: int = 32,
    vocabulary: int = VOCABULARY,
    positions: int = 128,
) -> PreTrainedModel:
    """An untrained model in eval mode whose weights are wide enough that its predictions are far from uniform."""
    torch.manual_seed(seed)
    common = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if family == "gpt2":
        config = GPT2Config(
            n_layer=layers, n_embd=width, n_head=4, n_positions=positions, initializer_range=0.25, **common
        )
        return GPT2LMHeadModel(config).eval()
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": 4}
    if family == "opt":
        sizes |= {"ffn_dim": 4 * width, "word_embed_proj_dim": width, "max_position_embeddings": positions}
        return OPTForCausalLM(OPTConfig(init_std=0.25, **sizes, **common)).eval()
    sizes |= {"intermediate_size": 2 * width, "num_key_value_heads": 2, "max_position_embeddings": positions}
    return LlamaForCausalLM(LlamaConfig(initializer_range=0.25, **sizes, **common)).eval()


def random_records(n: int, *, seed: int = 0, longest: int = 40) -> list[EncodedRecord]:
    """Records of varied length, responses of one token and truncated ones (no EOS) among them."""
    generator = np.random.default_rng(seed)
    records = []
    for i in range(n):
        prompt = tuple(generator.integers(1, VOCABULARY, generator.integers(1, longest)).tolist())
        scored = 1 if i % 7 == 3 else int(generator.integers(1, longest))
        response = tuple(generator.integers(1, VOCABULARY, scored).tolist())
        records.append(EncodedRecord(f"record-{i:03d}", prompt, response if i % 5 == 4 else (*response, 0), scored))
    return records
