"""What happens to the gradients of a batch between its backward passes and the optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from kdleak.core import distributed
from kdleak.core.seeds import derive
from kdleak.data.batching import Batch, packed, row_lengths, select_rows
from kdleak.training.batch_sources import DistillationBatch
from kdleak.training.micro_batches import micro_batches, own_part

Parameters = Sequence[torch.nn.Parameter]


class GradientRule(Protocol):
    """Called by the training loop for each batch: `parts` once, `backward` for each part, then `finish` once."""

    def whole(self, batch: Batch) -> float:
        """What the losses of all parts of `batch` together are a mean over: a number of targets."""
        ...

    def parts(self, batch: Batch, max_tokens: int | None) -> list[Batch]:
        """What this process does of `batch`, as the parts that have a forward and a backward pass each, of at most
        `max_tokens` padded tokens where the rule leaves a choice."""
        ...

    def backward(self, loss: torch.Tensor, parameters: Parameters) -> None:
        """Add what the rule lets through of a part's gradient to the `grad` of `parameters`."""

    def finish(self, parameters: Parameters, step: int) -> None:
        """Make of the sums in `grad`, by now over all processes, the gradient of optimiser step `step`, in place and
        in every process alike."""


@dataclass(frozen=True)
class PlainSum:
    """The gradient of the batch: those of its micro-batches, added up."""

    def whole(self, batch: Batch) -> float:
        return len(batch.targets)

    def parts(self, batch: Batch, max_tokens: int | None) -> list[Batch]:
        return micro_batches(own_part(batch), max_tokens)

    def backward(self, loss: torch.Tensor, parameters: Parameters) -> None:
        loss.backward()

    def finish(self, parameters: Parameters, step: int) -> None:
        pass


@dataclass(frozen=True)
class ClipAndNoise:
    """DP-SGD's release of a gradient (Abadi et al. 2016): clip each record's, add them up, add Gaussian noise, divide
    by the expected batch. One backward pass a record, so that it is exact for every model and every objective.

    clip:           bound C on the L2 norm of a record's gradient over all trained parameters.
    noise:          σ: the sum gets N(0, (σC)²) in every coordinate.
    expected_batch: records of a batch in expectation, a constant.
    record_tokens:  a record's loss is the sum over its response tokens divided by this constant, so that it does not
                    depend on the records beside it.
    seed:           of the noise, which (seed, step) alone decides: a resumed run adds the same.

    It is private only with batches drawn by Poisson sampling (`batch_sources.PoissonBatches`), and with objectives and
    batch sources that let one record touch no other's loss; neither is seen to here. A corpus beside the batch is
    refused. The noise comes from torch's generator, which is not cryptographic. Records are taken longest first, as
    micro-batches of one record are: without bound and noise the two rules agree to the last bit.
    """

    clip: float
    noise: float
    expected_batch: float
    record_tokens: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.clip > 0 and self.noise >= 0 and self.expected_batch >= 1 and self.record_tokens >= 1):
            raise ValueError("clip must be positive, noise not negative, expected_batch and record_tokens at least 1")
        if math.isinf(self.clip) and self.noise > 0:
            raise ValueError("noise is a multiple of clip: give a finite clip")

    def whole(self, batch: Batch) -> float:
        return self.expected_batch * self.record_tokens

    def parts(self, batch: Batch, max_tokens: int | None) -> list[Batch]:
        """A part for each record, with the constant normaliser: losses and gradients are a record's over
        `expected_batch`, and so is the bound in `backward`. A process that no record is left for takes the first one
        with weight 0, so that all processes have gradients to add up."""
        if isinstance(batch, DistillationBatch) and batch.corpus is not None:
            raise ValueError("a corpus beside the batch belongs to no record: its gradient cannot be clipped")
        if not len(batch.input_ids):
            return []
        own = set(distributed.shard_by_length(row_lengths(batch)))
        rows = [row for (row,) in packed(row_lengths(batch), 1) if row in own]
        parts = [replace(select_rows(batch, [row]), whole=self.whole(batch)) for row in rows]
        return parts or [replace(select_rows(batch, [0]), whole=math.inf)]

    def backward(self, loss: torch.Tensor, parameters: Parameters) -> None:
        sums = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        loss.backward()
        norm = torch.linalg.vector_norm(torch.stack([_norm(p.grad) for p in parameters if p.grad is not None]))
        scale = (self.clip / self.expected_batch / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1.0)
        for p, total in zip(parameters, sums, strict=True):
            if p.grad is not None:
                p.grad.mul_(scale.to(p.grad.dtype))
            if total is not None:
                p.grad = total if p.grad is None else total.add_(p.grad)

    def finish(self, parameters: Parameters, step: int) -> None:
        if not self.noise:
            return
        generator = torch.Generator().manual_seed(derive(self.seed, f"noise/{step}"))
        for p in parameters:
            drawn = torch.randn(p.shape, generator=generator, dtype=torch.float32)
            drawn = drawn.mul_(self.noise * self.clip / self.expected_batch).to(p.device, p.dtype)
            p.grad = drawn if p.grad is None else p.grad.add_(drawn)


def _norm(gradient: torch.Tensor) -> torch.Tensor:
    """L2 norm, summed in float64."""
    return torch.linalg.vector_norm(gradient, dtype=torch.float64)
