"""Work in processes of its own: forks of this one, so that imports are paid once."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

from kdleak.core.distributed import RENDEZVOUS


def fork(work: Callable[[], object]) -> int:
    """Start `work` in a new process; its id. Call with one thread: a fork cannot use its parent's."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """Wait for the end of a child; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_processes(n: int, folder: Path, work: Callable[[int], object]) -> None:
    """`work(rank)` in `n` processes that know of one another, and meet in `folder`; all must end well."""

    def one(rank: int) -> None:
        there = {RENDEZVOUS: folder / "rendezvous", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n}
        os.environ |= {key: str(value) for key, value in there.items()} | {"LOCAL_WORLD_SIZE": str(n)}
        work(rank)

    children = [fork(lambda rank=rank: one(rank)) for rank in range(n)]
    codes = [ended(child) for child in children]
    (folder / "rendezvous").unlink(missing_ok=True)
    assert codes == [0] * n
