"""Where a training run stands, on disk: weights, optimiser, random state, step and history, without pickle."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from kdleak.artifacts import replacing_folder


@dataclass(frozen=True)
class Progressed:
    """How far a training is: optimiser steps done, history so far, and the state of its batch source."""

    step: int
    history: list[dict]
    source: dict[str, Any]


@dataclass(frozen=True)
class ResumeStore:
    """A folder outside the pipeline's outputs that holds at most one state, of the run named by `key`.

    The key is a digest of everything that determines the run: a state of another run is never taken up.
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
            save_file(tensors, fresh / "state.safetensors")
            (fresh / "state.json").write_text(json.dumps({"key": self.key, **vars(progressed)}))

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Progressed | None:
        """Load the state into model, optimiser and random generator; None where there is none."""
        try:
            meta = json.loads((self.folder / "state.json").read_text())
            if meta.pop("key") != self.key:
                return None
            progressed = Progressed(**meta)
            tensors = load_file(self.folder / "state.safetensors")
        except (OSError, ValueError, KeyError, TypeError, UnicodeDecodeError):
            return None
        except Exception as error:  # safetensors raises its own type for a damaged file
            if type(error).__name__ != "SafetensorError":
                raise
            return None
        with torch.no_grad():
            for name, parameter in _trainable(model):
                parameter.copy_(tensors[f"model.{name}"])
                optimizer.state[parameter] = {
                    field: tensors[f"optim.{field}.{name}"] for field in ("step", "exp_avg", "exp_avg_sq")
                }
        torch.set_rng_state(tensors["rng.torch"])
        return progressed

    def clear(self) -> None:
        """Remove the state: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            os.rmdir(self.folder.parent)


def _trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]
