"""Independent random streams from the one seed of a run."""

from __future__ import annotations

import hashlib


def derive(seed: int, purpose: str) -> int:
    """A 31-bit seed for `purpose`; different purposes do not share random numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "big") >> 1
