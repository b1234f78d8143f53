"""Where a training run stands, on disk: weights, optimiser, random state, step and history, without pickle."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kdleak.artifacts import replacing_folder
from kdleak.errors import brief

log = logging.getLogger(__name__)

_TENSORS, _TOLD = "state.safetensors", "state.json"


@dataclass(frozen=True)
class Progressed:
    """How far a training is: optimiser steps done, history so far, and the state of its batch source."""

    step: int
    history: list[dict]
    source: dict[str, Any]


@dataclass(frozen=True)
class ResumeStore:
    """A folder outside the pipeline's outputs that holds at most one state, of the run named by `key`.

    The key is a digest of everything that determines the run: a state of another run is never taken up. Nor is one
    whose checksum is not that of its content.
    """

    folder: Path
    key: str

    def save(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progressed: Progressed) -> None:
        """Write the state, in place of the one before."""
        tensors = {f"model.{n}": p.detach().contiguous() for n, p in _trainable(model)}
        for name, parameter in _trainable(model):
            for field, value in optimizer.state[parameter].items():
                tensors[f"optim.{field}.{name}"] = value.detach().contiguous()
        tensors["rng.torch"] = torch.get_rng_state()
        with replacing_folder(self.folder) as fresh:
            save_file(tensors, fresh / _TENSORS)
            told = json.loads(json.dumps({"key": self.key, **vars(progressed)}))
            (fresh / _TOLD).write_text(json.dumps(told | {"checksum": _checksum(fresh, told)}))

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Progressed | None:
        """Load the state into model, optimiser and random generator; None where there is none."""
        try:
            found = self._read()
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: damaged (%s); the training begins anew", self.folder, brief(error))
            return None
        if found is None:
            return None
        progressed, tensors = found
        with torch.no_grad():
            for name, parameter in _trainable(model):
                parameter.copy_(tensors[f"model.{name}"])
                optimizer.state[parameter] = {
                    field: tensors[f"optim.{field}.{name}"] for field in ("step", "exp_avg", "exp_avg_sq")
                }
        torch.set_rng_state(tensors["rng.torch"])
        return progressed

    def _read(self) -> tuple[Progressed, dict[str, torch.Tensor]] | None:
        """The state, None where there is none of this run; what is damaged raises one of many exceptions."""
        if not (self.folder / _TOLD).is_file():
            return None
        told = json.loads((self.folder / _TOLD).read_text())
        checksum = told.pop("checksum")
        if checksum != _checksum(self.folder, told):
            raise ValueError("checksum mismatch")
        if told.pop("key") != self.key:
            return None
        return Progressed(**told), load_file(self.folder / _TENSORS)

    def clear(self) -> None:
        """Remove the state: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            os.rmdir(self.folder.parent)


def _trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]


def _checksum(folder: Path, told: dict[str, Any]) -> str:
    """sha256 over the tensors' file in `folder` and what is told beside it."""
    with (folder / _TENSORS).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(json.dumps(told, sort_keys=True).encode())
    return digest.hexdigest()
