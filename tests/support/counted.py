"""Progress for tests that wait for a step."""

from __future__ import annotations

from collections.abc import Callable

from kdleak.core.progress import Advance


def counted(reached: Callable[[int], object]) -> Advance:
    """Calls `reached` with the units done so far."""
    done = 0

    def advance(n: int = 1, **figures: float) -> None:
        nonlocal done
        done += n
        reached(done)

    return advance
