"""Material shared beside the repository (reference figures, data), for tests that can do without it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shared(name: str) -> Path:
    """`shared/<name>` of the nearest folder above the repository that has it; skips the test, saying so, else."""
    for parent in ROOT.parents:
        if (path := parent / "shared" / name).exists():
            return path
    pytest.skip(f"needs shared/{name} beside the repository")
