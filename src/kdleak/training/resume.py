"""Where a training run stands, on disk: weights, optimiser, random state, step and history, without pickle.

The learning rate and the order of the data are functions of the step and need no state of their own. What a batch
source carries from step to step (replay buffer, DistiLLM's threshold, MiniLLM's round) it gives as JSON.
"""

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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kdleak.core.errors import brief
from kdleak.core.files import make_private, replacing_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progressed:
    """How far a training is: optimiser steps done, history so far, and the state of its batch source."""

    step: int
    history: list[dict]
    source: dict[str, Any]


@dataclass(frozen=True)
class ResumeStore:
    """A folder outside the pipeline's outputs that holds at most one state, of the run named by `key`.

    The key is a digest of everything that determines the run: a state of another run is never taken up. A state is one
    file that takes the place of the one before in one step: whenever a run is killed, one of the two is there, whole.
    One whose checksum is not that of its content is not taken up either.
    """

    folder: Path
    key: str

    @property
    def file(self) -> Path:
        return self.folder / "state.safetensors"

    def save(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progressed: Progressed) -> None:
        """Write the state, in place of the one before."""
        tensors = {f"model.{n}": p.detach().contiguous() for n, p in _trainable(model)}
        for name, parameter in _trainable(model):
            for field, value in optimizer.state[parameter].items():
                tensors[f"optim.{field}.{name}"] = value.detach().contiguous()
        tensors["rng.torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        # A tensor, because a header of safetensors is bounded and a replay buffer is not.
        meta = json.dumps({"key": self.key, **vars(progressed)}).encode()
        tensors["progressed"] = torch.frombuffer(bytearray(meta), dtype=torch.uint8)
        make_private(self.folder)  # weights and rollouts tell of private records
        with replacing_file(self.file) as fresh:
            save_file(tensors, fresh, metadata={"checksum": _checksum(tensors)})
            fresh.chmod(0o600)

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Progressed | None:
        """Load the state into model, optimiser and random generator; None where there is none."""
        try:
            restored = self._read()
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: damaged (%s); the training begins anew", self.folder, brief(error))
            return None
        if restored is None:
            return None
        progressed, tensors = restored
        with torch.no_grad():
            for name, parameter in _trainable(model):
                parameter.copy_(tensors[f"model.{name}"])
                optimizer.state[parameter] = {
                    field: tensors[f"optim.{field}.{name}"].to(parameter.device)
                    for field in ("step", "exp_avg", "exp_avg_sq")
                }
        torch.set_rng_state(tensors["rng.torch"])
        if "rng.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        return progressed

    def _read(self) -> tuple[Progressed, dict[str, torch.Tensor]] | None:
        """The state, None where there is none of this run; what is damaged raises one of many exceptions."""
        if not self.file.is_file():
            return None
        with safe_open(self.file, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            checksum = (file.metadata() or {})["checksum"]
        if checksum != _checksum(tensors):
            raise ValueError("checksum mismatch")
        progress = json.loads(tensors.pop("progressed").numpy().tobytes())
        if progress.pop("key") != self.key:
            return None
        return Progressed(**progress), tensors

    def clear(self) -> None:
        """Remove the state: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            os.rmdir(self.folder.parent)


def _trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    """sha256 over names, types and content."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:".encode())
        content: Any = tensor.cpu().reshape(-1).view(torch.uint8).numpy()  # a buffer, as its stubs say from 3.12 on
        digest.update(content)
    return digest.hexdigest()
