"""One training of the pipeline: the recipe of params.yaml, resumable, with progress."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.data.encoding import EncodedRecord
from kdleak.distill.resume import ResumeStore
from kdleak.distill.training import Objective, Recipe, train
from kdleak.progress import progress
from kdleak.seeds import derive

if TYPE_CHECKING:
    from torch.nn import Module

    from kdleak.config import Params, Training


def run_training(
    model: Module,
    records: Sequence[EncodedRecord],
    objective: Objective,
    training: Training,
    params: Params,
    *,
    name: str,
    state: Path,
    identity: tuple[str, ...] = (),
) -> list[dict]:
    """Train `model` in place as `training` says; returns the history. An interrupted run goes on from `state`.

    `identity` names what else determines the run (a teacher's content, say), so that a stale state is not taken up.
    """
    recipe = Recipe(**training.model_dump(include={"lr", "epochs", "batch_size"}), **params.optimizer.model_dump())
    seed = derive(params.seed, f"train/{name}")
    resume = ResumeStore(state, _key(model, records, recipe, seed, name, identity))
    with progress(name) as show:
        history = train(model, records, objective, recipe, seed=seed, resume=resume, progress=show)
    resume.clear()
    return history


def _key(
    model: Module, records: Sequence[EncodedRecord], recipe: Recipe, seed: int, name: str, identity: tuple[str, ...]
) -> str:
    digest = hashlib.sha256(json.dumps([repr(recipe), seed, name, identity]).encode())
    for record in records:
        digest.update(repr((record.prompt, record.response)).encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
