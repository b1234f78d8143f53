"""What a training takes of memory, estimated before it starts: a run that cannot fit should say so in its first second.

Activations are those of Korthikanti et al. 2022 (arXiv 2205.05198, sec. 4.1): 34 bytes a token, layer and unit of width
in half precision, attention maps aside, which neither SDPA nor its backward pass keeps; 2 bytes of them with
checkpointing, and one whole layer's. Twice that in fp32. The logits of a chunk of positions are left out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel

_GIB = 2**30
_KEPT, _CHECKPOINTED = 34, 2


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of: the model's weights; gradients and AdamW's two moments of what is trained; activations of a batch;
    the teacher, which is held as well."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    teacher: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.teacher

    def __str__(self) -> str:
        parts = {k: v for k, v in vars(self).items() if v}
        listed = ", ".join(f"{k} {v / _GIB:.1f}" for k, v in parts.items())
        return f"about {self.total / _GIB:.1f} GiB ({listed})"


def training_memory(
    model: PreTrainedModel,
    tokens: int,
    *,
    half: bool = False,
    checkpointing: bool = False,
    teacher: Module | None = None,
) -> TrainingMemory:
    """The estimate for batches of `tokens` padded tokens. half: activations in bf16 (autocast)."""
    trained = sum(_bytes(p) for p in model.parameters() if p.requires_grad)
    config: Any = model.config  # every family adds fields of its own
    layers = config.num_hidden_layers
    kept = _CHECKPOINTED * layers + _KEPT if checkpointing else _KEPT * layers
    return TrainingMemory(
        weights=sum(map(_bytes, model.parameters())),
        gradients=trained,
        optimizer=2 * trained,
        activations=tokens * config.hidden_size * kept * (1 if half else 2),
        teacher=0 if teacher is None else sum(map(_bytes, teacher.parameters())),
    )


def available_memory(device: torch.device) -> int:
    """Bytes that are free on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _bytes(parameter: torch.nn.Parameter) -> int:
    return parameter.numel() * parameter.element_size()
