"""Multi-process runs: rank, sharding, all-reduce. No-ops with one process.

Every process runs the same program on the same files. Forward and backward passes are sharded, and their results
all-reduced, so that all processes go on with the same figures. The main process (rank 0) alone writes files.
Processes are started by `torchrun`, by `accelerate launch`, or by `kdleak.core.launch`, and communicate through
Accelerate: gloo between CPUs, NCCL between GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from accelerate import PartialState

#: Rendezvous file of `kdleak.core.launch`: with it no process listens on a port to be found.
RENDEZVOUS = "KDLEAK_RENDEZVOUS"
#: Bytes of one all-reduce message.
_BUCKET = 32 * 2**20


def size() -> int:
    """World size."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Rank of this process, from 0."""
    return int(os.environ.get("RANK") or 0) if size() > 1 else 0


def local_rank() -> int:
    """Rank among the processes of this machine; the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK") or 0) if size() > 1 else 0


def is_main() -> bool:
    """Whether this process is rank 0, the one that writes."""
    return rank() == 0


def shard_by_length(lengths: Sequence[int]) -> list[int]:
    """Indices of this process's shard, ascending: every item is in one shard, and shards are about equally long.

    Items are dealt to the ranks by falling length, back and forth: 0 1 1 0 0 1 …
    """
    n, this = size(), rank()
    if n == 1:
        return list(range(len(lengths)))
    dealt = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return sorted(i for place, i in enumerate(dealt) if this in (place % (2 * n), 2 * n - 1 - place % (2 * n)))


def all_reduce_sum_(*arrays: torch.Tensor | np.ndarray) -> None:
    """Sum each array over all processes, in place. A collective: every process calls it with the same shapes."""
    if size() == 1:
        return
    import torch

    tensors = [torch.from_numpy(a) if not isinstance(a, torch.Tensor) else a for a in arrays]
    device = _state().device
    for bucket in _buckets(tensors):
        flat = torch.cat([t.detach().reshape(-1).to(device) for t in bucket])
        try:
            torch.distributed.all_reduce(flat)
        except RuntimeError:  # the backend's words for a peer that is gone are many lines
            raise KdleakError("another process of this run has ended; the same command goes on where it was") from None
        with torch.no_grad():
            for tensor, total in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(total.view_as(tensor))


def all_agree(holds: bool) -> bool:
    """Whether `holds` is true in every process: what one alone can know, all must act on alike."""
    if size() == 1:
        return holds
    import torch

    against = torch.tensor([not holds], dtype=torch.int32)
    all_reduce_sum_(against)
    return not against.item()


def barrier() -> None:
    """Wait until all processes are here: what the main one has written is then there."""
    all_agree(True)


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Consecutive tensors of one dtype, at most `_BUCKET` bytes together (a larger tensor alone)."""
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
    """The process group, initialised at the first call."""
    import atexit

    import torch
    from accelerate import PartialState

    if not torch.distributed.is_initialized():
        file = os.environ.get(RENDEZVOUS)
        group = {"init_method": f"file://{file}", "rank": rank(), "world_size": size()} if file else {}
        local = int(os.environ.get("LOCAL_WORLD_SIZE") or size())
        PartialState(cpu=torch.cuda.device_count() < local, **group)
        atexit.register(torch.distributed.destroy_process_group)
    return PartialState()
