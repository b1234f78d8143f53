"""Fine-tuning through low-rank adapters: put in before training, merged into the weights after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdleak.core.distributed import is_main
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json, write_json
from kdleak.models.families import Lora

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

#: In a base's folder: how its fine-tunings go. So they follow the base, and run again when it changes.
_FILE = "lora.json"


def write_lora(lora: Lora | None, folder: Path) -> None:
    """Put down beside the base in `folder` how it is to be fine-tuned: through these adapters, or (None) whole."""
    if is_main():
        (folder / _FILE).unlink(missing_ok=True)
    if lora is not None:
        write_json(lora.model_dump(), folder / _FILE)


def read_lora(folder: Path) -> Lora | None:
    """What `write_lora` put down beside the base in `folder`."""
    path = folder / _FILE
    return Lora.model_validate(read_json(path)) if path.is_file() else None


def with_lora(model: PreTrainedModel, lora: Lora | None, seed: int) -> PreTrainedModel:
    """`model` with adapters in which alone it can be trained; itself where the family has none.

    Raises KdleakError where the architecture has no module of a name in `lora.targets`.
    """
    if lora is None:
        return model
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    absent = [name for name in lora.targets if not any(n.split(".")[-1] == name for n, _ in model.named_modules())]
    if absent:
        raise KdleakError(
            f"families.yaml: lora.targets: a {type(model).__name__} has no '{absent[0]}'; name its projections"
        )
    torch.manual_seed(seed)
    options = {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "target_modules": lora.targets}
    transposed = all(isinstance(m, Conv1D) for n, m in model.named_modules() if n.split(".")[-1] in lora.targets)
    wrapped: Any = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=transposed, **options))
    return wrapped  # stands for the model that it wraps


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """`model` with its adapters merged into its weights; itself where it has none."""
    merge = getattr(model, "merge_and_unload", None)
    return model if merge is None else merge()
