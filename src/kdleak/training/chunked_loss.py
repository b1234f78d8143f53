"""Mean losses over response positions, from hidden states, a chunk of positions at a time.

The logits of a whole batch over the vocabulary are the largest tensor of training by far, and both models have one.
Here a chunk's logits are made, turned into their gradient and spent on the gradients of hidden states and head before
the next chunk's are made, so that memory does not grow with the number of positions and a chunk stays in cache.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

#: (logits of a chunk (c, V), which positions these are) -> loss at each of them (c,)
PositionLoss = Callable[[torch.Tensor, slice], torch.Tensor]

#: Positions a chunk: enough rows for an efficient matrix product, few enough for their logits to stay in cache.
CHUNK = 256


def language_model_loss(
    hidden: torch.Tensor,
    head: torch.nn.Linear,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """Mean cross-entropy of `targets` (m,) over positions, in nats: (m, d) hidden states -> scalar.

    With `weights` (m,) the result is their weighted sum.
    """

    def position_loss(logits: torch.Tensor, positions: slice) -> torch.Tensor:
        return F.cross_entropy(logits.float(), targets[positions], reduction="none")

    return chunked_loss(hidden, head, position_loss, weights, chunk)


def chunked_loss(
    hidden: torch.Tensor,
    head: torch.nn.Linear,
    position_loss: PositionLoss,
    weights: torch.Tensor | None = None,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """Σ weights · position_loss(head(hidden)), with weights of 1 / m by default: (m, d) -> scalar.

    Equals the unchunked loss, in value and in gradient, but for rounding. `position_loss` must treat positions
    independently and be differentiable in the logits alone: what else it closes over receives no gradient.
    """
    if weights is None:
        weights = hidden.new_full((len(hidden),), 1 / max(len(hidden), 1), dtype=torch.float32)
    return _ChunkedLoss.apply(hidden, head.weight, head.bias, weights.detach(), position_loss, chunk)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, weights, position_loss: PositionLoss, chunk: int):
        wanted = ctx.needs_input_grad[:3]
        grads = [_accumulator(x) if want else None for x, want in zip((hidden, weight, bias), wanted, strict=True)]
        grad_hidden, grad_weight, grad_bias = grads
        loss = weights.new_zeros(())
        for start in range(0, len(hidden), chunk):
            positions = slice(start, start + chunk)
            states = hidden[positions]
            logits = F.linear(states, weight, bias).requires_grad_(any(wanted))
            with torch.set_grad_enabled(any(wanted)):
                values = position_loss(logits, positions)
            loss += torch.dot(values.detach().to(weights.dtype), weights[positions])
            if not any(wanted):
                continue
            (slope,) = torch.autograd.grad(values, logits, values.new_ones(()).expand_as(values))
            # The weights scale rows of hidden size, not of vocabulary size.
            scale = weights[positions, None].to(slope.dtype)
            if grad_hidden is not None:
                grad_hidden[positions] = (slope @ weight) * scale
            if grad_weight is not None:
                _add_product(grad_weight, slope.T, states * scale)
            if grad_bias is not None:
                grad_bias += slope.T @ scale[:, 0]
        ctx.save_for_backward(*grads)
        ctx.dtypes = hidden.dtype, weight.dtype
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor):
        hidden_dtype, dtype = ctx.dtypes
        grads = zip(ctx.saved_tensors, (hidden_dtype, dtype, dtype), strict=True)
        return (*((g * grad).to(d) if g is not None else None for g, d in grads), None, None, None)


def _accumulator(tensor: torch.Tensor) -> torch.Tensor:
    """Zeros for a sum of many terms: float32 for half precision."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return torch.zeros_like(tensor, dtype=torch.float32 if half else tensor.dtype)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
