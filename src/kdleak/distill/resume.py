"""Where a training run stands, on disk: weights, optimiser, random state, step and history, without pickle."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from kdleak.artifacts import replacing_folder


@dataclass(frozen=True)
class ResumeStore:
    """A folder outside the pipeline's outputs that holds at most one state, of the run named by `key`.

    The key is a digest of everything that determines the run: a state of another run is never taken up.
    """

    folder: Path
    key: str

    def save(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, history: list[dict]) -> None:
        """Write the state after `step` optimiser steps, in place of the one before."""
        tensors = {f"model.{n}": p.detach().contiguous() for n, p in _trainable(model)}
        for name, parameter in _trainable(model):
            for field, value in optimizer.state[parameter].items():
                tensors[f"optim.{field}.{name}"] = value.detach().contiguous()
        tensors["rng.torch"] = torch.get_rng_state()
        with replacing_folder(self.folder) as fresh:
            save_file(tensors, fresh / "state.safetensors")
            (fresh / "state.json").write_text(json.dumps({"key": self.key, "step": step, "history": history}))

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[dict]]:
        """Load the state into model, optimiser and random generator: (step, history), (0, []) where there is none."""
        try:
            meta = json.loads((self.folder / "state.json").read_text())
            if meta["key"] != self.key:
                return 0, []
            tensors = load_file(self.folder / "state.safetensors")
        except (OSError, ValueError, KeyError, UnicodeDecodeError):
            return 0, []
        except Exception as error:  # safetensors raises its own type for a damaged file
            if type(error).__name__ != "SafetensorError":
                raise
            return 0, []
        with torch.no_grad():
            for name, parameter in _trainable(model):
                parameter.copy_(tensors[f"model.{name}"])
                optimizer.state[parameter] = {
                    field: tensors[f"optim.{field}.{name}"] for field in ("step", "exp_avg", "exp_avg_sq")
                }
        torch.set_rng_state(tensors["rng.torch"])
        return meta["step"], meta["history"]

    def clear(self) -> None:
        """Remove the state: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            os.rmdir(self.folder.parent)


def _trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]
