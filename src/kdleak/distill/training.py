"""The one training loop: pretraining, fine-tuning and distillation differ in their records and their objective only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kdleak.data.batching import Batch, collate, epoch_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.distill.resume import ResumeStore

#: Loss of a batch, a scalar: the mean over its response tokens.
Objective = Callable[[torch.nn.Module, Batch], torch.Tensor]
Progress = Callable[[int, int, dict], None]


@dataclass(frozen=True)
class Recipe:
    """How to train. AdamW with linear warm-up and cosine decay to `min_lr`, gradients clipped to `max_grad_norm`."""

    lr: float
    epochs: int
    batch_size: int
    weight_decay: float = 0.01
    warmup: float = 0.05
    min_lr: float = 1e-7
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)


def learning_rate(step: int, total: int, recipe: Recipe) -> float:
    """Rate of the optimiser step `step` (from 0) of `total`."""
    warmup = math.ceil(recipe.warmup * total)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: torch.nn.Module,
    records: Sequence[EncodedRecord],
    objective: Objective,
    recipe: Recipe,
    *,
    seed: int,
    resume: ResumeStore | None = None,
    save_every_s: float = 60.0,
    progress: Progress | None = None,
) -> list[dict]:
    """Train `model` in place for `recipe.epochs` epochs over `records`; returns the history, one entry an epoch:
    {step, epoch, loss (token mean, nats), lr, grad_norm (mean before clipping), tokens}.

    The order of the records depends on (seed, epoch) alone, so a run that was stopped goes on from `resume` with
    the batches that it would have met.
    """
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    per_epoch = math.ceil(len(records) / recipe.batch_size)
    total = per_epoch * recipe.epochs
    done, history = resume.restore(model, optimizer) if resume else (0, [])
    saved_at = time.monotonic()
    model.train()
    for epoch in range(done // per_epoch, recipe.epochs):
        batches = epoch_batches(records, recipe.batch_size, seed, epoch)
        sums = _Sums.empty() if done == epoch * per_epoch else _Sums(**history.pop()["partial"])
        for position in range(done - epoch * per_epoch, per_epoch):
            batch = collate(records, batches[position]).to(device)
            lr = learning_rate(done, total, recipe)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss = objective(model, batch)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
            sums = sums.add(loss.item(), len(batch.targets), norm.item())
            if progress:
                progress(done, total, {"loss": loss.item(), "lr": lr})
            if resume and time.monotonic() - saved_at > save_every_s:
                partial = [{"partial": sums.__dict__}] if position + 1 < per_epoch else [sums.entry(done, epoch, lr)]
                resume.save(model, optimizer, done, history + partial)
                saved_at = time.monotonic()
        history.append(sums.entry(done, epoch, lr))
    model.eval()
    return history


@dataclass(frozen=True)
class _Sums:
    """What an epoch adds up to."""

    loss: float
    tokens: int
    norm: float
    steps: int

    @classmethod
    def empty(cls) -> _Sums:
        return cls(0.0, 0, 0.0, 0)

    def add(self, loss: float, tokens: int, norm: float) -> _Sums:
        return _Sums(self.loss + loss * tokens, self.tokens + tokens, self.norm + norm, self.steps + 1)

    def entry(self, step: int, epoch: int, lr: float) -> dict:
        return {
            "step": step,
            "epoch": epoch + 1,
            "loss": self.loss / self.tokens,
            "lr": lr,
            "grad_norm": self.norm / self.steps,
            "tokens": self.tokens,
        }
