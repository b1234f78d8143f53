"""One training of the pipeline: the recipe of params.yaml, resumable, with progress."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kdleak.core import distributed
from kdleak.core.progress import progress
from kdleak.core.seeds import derive
from kdleak.data.encoding import EncodedRecord
from kdleak.models.memory import available_memory, training_memory
from kdleak.training.batch_sources import BatchSource, FixedBatches
from kdleak.training.gradient_rules import GradientRule, PlainSum
from kdleak.training.loop import Objective, Recipe, total_steps, train
from kdleak.training.resume import ResumeStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.config.schema import Params, Training

#: Bytes from which on a training's need of memory is printed before it starts.
LARGE = 2**31


def run_training(
    model: PreTrainedModel,
    records: Sequence[EncodedRecord],
    objective: Objective,
    training: Training,
    params: Params,
    *,
    name: str,
    state: Path,
    identity: tuple[str, ...] = (),
    source: BatchSource | None = None,
    corpus: Sequence[EncodedRecord] = (),
    steps: int | None = None,
    optimizer: Mapping[str, Any] = MappingProxyType({}),
    rule: GradientRule = PlainSum(),  # noqa: B008 - it has no state
    teacher: PreTrainedModel | None = None,
) -> list[dict]:
    """Train `model` in place as `training` says; returns the history. An interrupted run goes on from `state`.

    `source` makes the batches, by default of `records` alone; `corpus`: what else it makes them of; `steps`: at most so
    many; `optimizer` overrides fields of the recipe; `rule` makes a batch's gradient.
    A `teacher` that stands beside the model counts in the estimate of memory that a large run prints first.
    `identity` names what else determines the run (a teacher's content, say), so that a stale state is not taken up.
    """
    settings = {"lr": training.lr, "epochs": training.epochs, "batch_size": training.batch_size, "steps": steps}
    speed = {"micro_batch_tokens": params.compute.micro_batch_tokens}
    recipe = Recipe(**{**settings, **params.optimizer.model_dump(), **optimizer, **speed})
    seed = training_seed(params, name)
    source = source or FixedBatches(records, training.batch_size, seed)
    if distributed.is_main():
        _announce(name, model, chain(records, corpus), recipe, teacher)
    resume = ResumeStore(state, _key(model, chain(records, corpus), recipe, seed, (name, repr(rule), *identity)))
    with progress(name, total_steps(source.steps_per_epoch, recipe.epochs, steps)) as advance:
        history = train(model, source, objective, recipe, seed=seed, rule=rule, resume=resume, progress=advance)
    if distributed.is_main():
        resume.clear()
    return history


def _announce(
    name: str, model: PreTrainedModel, records: Iterable[EncodedRecord], recipe: Recipe, teacher: PreTrainedModel | None
) -> None:
    """Print how much memory a large training needs, and how much is free."""
    longest = max(len(r.prompt) + len(r.response) for r in records)
    options = {"half": recipe.precision == "bf16", "checkpointing": recipe.checkpointing, "teacher": teacher}
    tokens = min(recipe.batch_size * longest, max(recipe.micro_batch_tokens or sys.maxsize, longest))
    needed = training_memory(model, tokens, **options)
    if needed.total < LARGE:
        return
    free = available_memory(next(model.parameters()).device)
    smaller = "; a smaller compute.micro_batch_tokens or optimizer.checkpointing=true takes less"
    remedy = "" if needed.total < free else smaller
    print(f"{name}: {needed}, {free / 2**30:.1f} GiB free{remedy}", file=sys.stderr, flush=True)


def training_seed(params: Params, name: str) -> int:
    """The seed of the training called `name`."""
    return derive(params.seed, f"train/{name}")


def _key(
    model: PreTrainedModel,
    records: Iterable[EncodedRecord],
    recipe: Recipe,
    seed: int,
    identity: tuple[str, ...],
) -> str:
    """Digest of all that determines the run. What changes its speed and memory alone is no part of it."""
    recipe = replace(recipe, micro_batch_tokens=None, checkpointing=False)
    digest = hashlib.sha256(json.dumps([repr(recipe), seed, identity]).encode())
    for record in records:
        digest.update(repr((record.prompt, record.response)).encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
