"""The one training loop: pretraining, fine-tuning and distillation differ in their batches and their objective only."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kdleak.core import distributed
from kdleak.core.progress import Advance
from kdleak.core.seeds import derive
from kdleak.data.batching import Batch
from kdleak.training.batch_sources import BatchSource
from kdleak.training.gradient_rules import GradientRule, PlainSum
from kdleak.training.resume import Progressed, ResumeStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Loss of a batch, a scalar: the mean over its response tokens (of a part of a batch, its share in that mean).
Objective = Callable[["PreTrainedModel", Batch], torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to train. AdamW, gradients clipped to `max_grad_norm`; the rate warms up linearly over a share of the steps,
    then falls to `min_lr` along a cosine, or stays (`schedule` cosine or constant). `steps`: at most so many in all.
    `weight_decay` is not on biases and norms, in the published code neither. `dropout` False: as the model scores.
    `precision` bf16: forward passes run under autocast. `checkpointing`: activations are computed again in the backward
    pass (not without dropout, which Transformers ties it to). `micro_batch_tokens`: padded tokens that a forward and
    backward pass takes at most; the gradients of a batch accumulate over them."""

    lr: float
    epochs: int
    batch_size: int
    steps: int | None = None
    weight_decay: float = 0.01
    warmup: float = 0.05
    min_lr: float = 1e-7
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: str = "cosine"
    dropout: bool = True
    precision: str = "fp32"
    checkpointing: bool = False
    micro_batch_tokens: int | None = None


def total_steps(steps_per_epoch: int, epochs: int, most: int | None) -> int:
    """Optimizer steps of a training of `epochs`, `most` at most."""
    return min(steps_per_epoch * epochs, most or sys.maxsize)


def learning_rate(step: int, total: int, recipe: Recipe) -> float:
    """Rate of the optimiser step `step` (from 0) of `total`."""
    warmup = math.ceil(recipe.warmup * total)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    if recipe.schedule == "constant":
        return recipe.lr
    progress = (step - warmup) / max(1, total - warmup)
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: PreTrainedModel,
    source: BatchSource,
    objective: Objective,
    recipe: Recipe,
    *,
    seed: int,
    rule: GradientRule = PlainSum(),  # noqa: B008 - it has no state
    resume: ResumeStore | None = None,
    save_every_s: float = 60.0,
    progress: Advance | None = None,
) -> list[dict]:
    """Train `model` in place for `recipe.epochs` epochs of `source`; returns the history, one entry an epoch:
    {step, epoch, loss (token mean, nats), lr, grad_norm (mean before clipping), tokens} and what the source adds.

    `rule` makes the gradient of a batch from its parts'. `progress` is advanced by one at each optimizer step, and by
    those that a resumed run has behind it. A run that was stopped goes on from `resume` with the batches that it would
    have met. Several processes make the same batches, each trains on its part of them, and their gradients are added
    up: the models stay the same.
    """
    torch.manual_seed(seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = _decayed(parameters, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
    total = total_steps(source.steps_per_epoch, recipe.epochs, recipe.steps)
    done, history = 0, []
    if resume and (progressed := resume.restore(model, optimizer)):
        done, history = progressed.step, progressed.history
        source.restore(progressed.source)
        if progress:
            progress(done)
    sums = _Sums(**history.pop()["partial"]) if done % source.steps_per_epoch else _Sums()
    saved_at = time.monotonic()
    model.train(recipe.dropout)
    if recipe.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for step in range(done, total):
        batch = source.batch(model, step)
        lr = learning_rate(step, total, recipe)
        for group in optimizer.param_groups:
            group["lr"] = lr
        if distributed.size() > 1:  # dropout of its own for each part, and no random state that one alone would save
            torch.manual_seed(derive(seed, f"step/{step}/{distributed.rank()}"))
        loss = _all_reduced(_backward(model, batch, objective, recipe, rule, parameters), parameters)
        rule.finish(parameters, step)
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        sums = sums.add(loss * rule.whole(batch), len(batch.targets), norm.item())
        epoch, position = divmod(step + 1, source.steps_per_epoch)
        if position == 0 or step + 1 == total:
            history.append(sums.entry(step + 1, epoch + (position > 0), lr) | source.end_epoch(model))
            sums = _Sums()
        if progress:
            progress(loss=loss, lr=lr)
        if resume and distributed.is_main() and time.monotonic() - saved_at > save_every_s:
            partial = [{"partial": vars(sums)}] if position else []
            resume.save(model, optimizer, Progressed(step + 1, history + partial, source.state()))
            saved_at = time.monotonic()
    if recipe.checkpointing:
        model.gradient_checkpointing_disable()
    model.eval()
    return history


def _decayed(parameters: list[torch.nn.Parameter], decay: float) -> list[dict]:
    """The optimizer's groups: weight decay on matrices, none on biases and norms."""
    matrices, vectors = ([p for p in parameters if (p.ndim > 1) is wanted] for wanted in (True, False))
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _backward(
    model: PreTrainedModel,
    batch: Batch,
    objective: Objective,
    recipe: Recipe,
    rule: GradientRule,
    parameters: list[torch.nn.Parameter],
) -> float:
    """The loss of this process's parts of the batch; `rule` adds up their gradients in `parameters`."""
    device, loss = next(model.parameters()).device, 0.0
    for part in rule.parts(batch, recipe.micro_batch_tokens):
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            part_loss = objective(model, part.to(device))
        rule.backward(part_loss, parameters)
        loss += part_loss.item()
    return loss


def _all_reduced(loss: float, parameters: list[torch.nn.Parameter]) -> float:
    """The loss of a whole batch, and in place its gradients, from those of its parts in all processes."""
    if distributed.size() == 1:
        return loss
    losses = torch.tensor([loss], dtype=torch.float64)
    distributed.all_reduce_sum_(losses, *(p.grad for p in parameters if p.grad is not None))
    return losses.item()


@dataclass(frozen=True)
class _Sums:
    """What an epoch adds up to. loss: negative log-likelihoods of all tokens, not their mean."""

    loss: float = 0.0
    tokens: int = 0
    norm: float = 0.0
    steps: int = 0

    def add(self, loss: float, tokens: int, norm: float) -> _Sums:
        return _Sums(self.loss + loss, self.tokens + tokens, self.norm + norm, self.steps + 1)

    def entry(self, step: int, epoch: int, lr: float) -> dict:
        return {
            "step": step,
            "epoch": epoch,
            "loss": self.loss / max(self.tokens, 1),
            "lr": lr,
            "grad_norm": self.norm / self.steps,
            "tokens": self.tokens,
        }
