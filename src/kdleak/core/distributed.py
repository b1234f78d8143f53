"""One run in several processes: who this one is, and what they do together. Alone, all of it is nothing.

Every process runs the same program on the same files. Forward and backward passes are divided among them, and what
they found is added up, so that all go on with the same figures. The main one alone writes. They are started by
`torchrun`, by `accelerate launch`, or by kdleak itself (`kdleak.core.launch`), and speak through Accelerate: gloo
between
CPUs, NCCL between GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from accelerate import PartialState

#: Where processes of `kdleak.core.launch` meet: a file, so that none has to listen on a port to be found.
RENDEZVOUS = "KDLEAK_RENDEZVOUS"
#: Bytes that are added up in one message.
_BUCKET = 32 * 2**20


def size() -> int:
    """How many processes this run has."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK") or 0) if size() > 1 else 0


def local_rank() -> int:
    """Which of those on this machine: its GPU has this number."""
    return int(os.environ.get("LOCAL_RANK") or 0) if size() > 1 else 0


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def share(lengths: Sequence[int]) -> list[int]:
    """Which items this process does, in their order: each is done by one, and all have about the same to do.

    Items are dealt by falling length, there and back again: 0 1 1 0 0 1 …
    """
    n, own = size(), rank()
    if n == 1:
        return list(range(len(lengths)))
    dealt = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return sorted(i for place, i in enumerate(dealt) if own in (place % (2 * n), 2 * n - 1 - place % (2 * n)))


def add_up(*arrays: torch.Tensor | np.ndarray) -> None:
    """Each array becomes its sum over all processes, in place. Every process calls this with the same shapes."""
    if size() == 1:
        return
    import torch

    tensors = [torch.from_numpy(a) if not isinstance(a, torch.Tensor) else a for a in arrays]
    device = _state().device
    for bucket in _buckets(tensors):
        flat = torch.cat([t.detach().reshape(-1).to(device) for t in bucket])
        torch.distributed.all_reduce(flat)
        with torch.no_grad():
            for tensor, found in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(found.view_as(tensor))


def everyone(holds: bool) -> bool:
    """Whether it holds in every process. What one of them alone can know, all must act on alike."""
    if size() == 1:
        return holds
    import torch

    against = torch.tensor([not holds], dtype=torch.int32)
    add_up(against)
    return not against.item()


def wait_for_everyone() -> None:
    """Go on when all processes have come this far: what the main one has written is there."""
    everyone(True)


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Consecutive tensors of one type, as many as a message holds."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        full = sum(t.nbytes for t in bucket) + tensor.nbytes > _BUCKET
        if bucket and (full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _state() -> PartialState:
    """This process among the others; it meets them when it is first asked for."""
    import atexit

    import torch
    from accelerate import PartialState

    if not torch.distributed.is_initialized():
        there = os.environ.get(RENDEZVOUS)
        meeting = {"init_method": f"file://{there}", "rank": rank(), "world_size": size()} if there else {}
        here = int(os.environ.get("LOCAL_WORLD_SIZE") or size())
        PartialState(cpu=torch.cuda.device_count() < here, **meeting)
        atexit.register(torch.distributed.destroy_process_group)
    return PartialState()
