"""Whether a configuration describes the weights that lie beside it, said before any memory is taken for them.

The model is built on torch's meta device, where a tensor has a shape and no content: a `config.json` that asks for a
billion positions, or for the layers of another model, is refused by its numbers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError, brief
from kdleak.models.model_files import REMEDY

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PretrainedConfig

    from kdleak.models.model_files import Tensors

#: More of anything that a module is made for each of (experts) than any model has.
_MOST = 4096
#: fp32, in which models are computed.
_BYTES = 4


def check_sizes(folder: Path, config: PretrainedConfig, tensors: Tensors) -> None:
    """Raises KdleakError, with both figures, where `config` describes another model than `tensors` (of `folder`), or
    one that this machine cannot hold."""
    path = folder / "config.json"
    text = config.get_text_config()
    layers = getattr(text, "num_hidden_layers", None)
    # Every layer has a tensor of its own. Without this bound building the layers of a bomb would take all memory.
    if not isinstance(layers, int) or not 1 <= layers <= len(tensors.shapes):
        raise KdleakError(
            f"{path}: describes a model of {layers} layers, the weights beside it have {len(tensors.shapes)} tensors; "
            f"{REMEDY}"
        )
    for name, value in vars(text).items():
        if "expert" in name and isinstance(value, int) and value > max(_MOST, len(tensors.shapes)):
            raise KdleakError(f"{path}: {name} is {value}, more than any model has; {REMEDY}")
    shapes, parameters, buffer_bytes = _described(path, config)
    for name in sorted(shapes.keys() & tensors.shapes.keys()):
        if shapes[name] != tensors.shapes[name]:
            raise KdleakError(
                f"{path}: describes '{name}' of shape {list(shapes[name])}, the weights beside it have it of "
                f"{list(tensors.shapes[name])}; {REMEDY}"
            )
    # Tensors may be missing, which is said by name when they are read; not most of them.
    if parameters > 2 * tensors.parameters:
        raise KdleakError(
            f"{path}: describes {parameters:,} parameters, the weights beside it hold {tensors.parameters:,}; {REMEDY}"
        )
    wanted, held = _BYTES * parameters + buffer_bytes, machine_memory()
    if wanted > held:
        raise KdleakError(
            f"{folder}: a model of {wanted / 2**30:,.0f} GiB, this machine has {held / 2**30:,.0f}; use a smaller one"
        )


def machine_memory() -> int:
    """Bytes of this machine's memory, free or not."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _described(path: Path, config: PretrainedConfig) -> tuple[dict[str, tuple[int, ...]], int, int]:
    """(name -> shape, parameters with tied ones counted once, bytes of buffers) of the model of `config`."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # sizes that do not fit each other make Transformers stumble over anything
        raise KdleakError(f"{path}: describes no model ({brief(error)}); {REMEDY}") from None
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    return shapes, sum(p.numel() for p in model.parameters()), buffers
