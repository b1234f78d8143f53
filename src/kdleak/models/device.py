"""Where models are computed: `compute.device` of params.yaml for the pipeline, `--device` for `kdleak audit`."""

from __future__ import annotations

import os
import re

from kdleak.core.distributed import local_rank
from kdleak.core.errors import KdleakError, shown

#: The pipeline's choice, for this process and those that it starts; the CPU where nothing was chosen.
CHOSEN_DEVICE = "KDLEAK_DEVICE"


def resolve_device(name: str | None = None) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` as this process takes it: each process has a GPU of its own.

    None is what CHOSEN_DEVICE says. Raises KdleakError where a GPU is asked for and none is to be had.
    """
    import torch

    known = name is None  # the pipeline's: params.yaml has been checked
    name = name if name is not None else os.environ.get(CHOSEN_DEVICE) or "cpu"
    if not known and not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise KdleakError(f"device '{shown(name)}': unknown; choose cpu, cuda or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise KdleakError(f"device '{name}': no GPU is to be had here; choose cpu or auto")
    if name.startswith("cuda:") and int(name.partition(":")[2]) >= torch.cuda.device_count():
        raise KdleakError(f"device '{name}': this machine has {torch.cuda.device_count()} GPUs; choose cpu or auto")
    return f"cuda:{local_rank()}" if name == "cuda" else name
