"""One training of the pipeline: the recipe of params.yaml, resumable, with progress."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kdleak.core import distributed
from kdleak.core.progress import progress
from kdleak.core.seeds import derive
from kdleak.data.encoding import EncodedRecord
from kdleak.models.memory import available_memory, training_memory
from kdleak.training.batch_sources import BatchSource, FixedBatches
from kdleak.training.loop import Objective, Recipe, train
from kdleak.training.resume import ResumeStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.config.schema import Params, Training
    from kdleak.distill.plan import Plan


#: Bytes from which on a training's need of memory is printed before it starts.
LARGE = 2**31


def run_training(
    model: PreTrainedModel,
    records: Sequence[EncodedRecord],
    objective: Objective,
    training: Training | Plan,
    params: Params,
    *,
    name: str,
    state: Path,
    identity: tuple[str, ...] = (),
    source: BatchSource | None = None,
    optimizer: Mapping[str, Any] = MappingProxyType({}),
    teacher: PreTrainedModel | None = None,
) -> list[dict]:
    """Train `model` in place as `training` says; returns the history. An interrupted run goes on from `state`.

    `source` makes the batches, by default of `records` alone; `optimizer` overrides fields of the recipe.
    A `teacher` that stands beside the model counts in the estimate of memory that a large run prints first.
    `identity` names what else determines the run (a teacher's content, say), so that a stale state is not taken up.
    """
    settings = {"lr": training.lr, "epochs": training.epochs, "batch_size": training.batch_size}
    speed = {"micro_batch_tokens": params.compute.micro_batch_tokens}
    recipe = Recipe(**{**settings, **params.optimizer.model_dump(), **optimizer, **speed})
    seed = training_seed(params, name)
    source = source or FixedBatches(records, training.batch_size, seed)
    if distributed.is_main():
        _announce(name, model, records, recipe, teacher)
    resume = ResumeStore(state, _key(model, records, recipe, seed, name, identity))
    with progress(name, source.steps_per_epoch * recipe.epochs) as advance:
        history = train(model, source, objective, recipe, seed=seed, resume=resume, progress=advance)
    if distributed.is_main():
        resume.clear()
    return history


def _announce(
    name: str, model: PreTrainedModel, records: Sequence[EncodedRecord], recipe: Recipe, teacher: PreTrainedModel | None
) -> None:
    """Print what a large training will take of memory, and what there is."""
    longest = max(len(r.prompt) + len(r.response) for r in records)
    options = {"half": recipe.precision == "bf16", "checkpointing": recipe.checkpointing, "beside": teacher}
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
    records: Sequence[EncodedRecord],
    recipe: Recipe,
    seed: int,
    name: str,
    identity: tuple[str, ...],
) -> str:
    recipe = replace(recipe, micro_batch_tokens=None)  # a matter of speed: a run goes on with another
    digest = hashlib.sha256(json.dumps([repr(recipe), seed, name, identity]).encode())
    for record in records:
        digest.update(repr((record.prompt, record.response)).encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
