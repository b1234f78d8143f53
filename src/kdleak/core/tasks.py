"""Independent tasks on this machine: one process and one thread each; a task whose process died is run again."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from kdleak.core.errors import KdleakError

#: How often a task is tried whose process dies.
TRIES = 3


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(function: Callable[..., Any], tasks: Sequence[tuple], workers: int = 0) -> Iterator[tuple[tuple, Any]]:
    """(task, function(*task)) as each is done, in no order. workers: processes at a time; 0: one a core.

    A task of a process that was killed is run again, up to TRIES times, as are those that stood beside it. What a task
    raises is raised here, and the others are ended. Raises KdleakError where a task's process dies every time.
    """
    waiting, tried = list(tasks), dict.fromkeys(tasks, 0)
    while waiting:
        pool = ProcessPoolExecutor(workers or cores(), multiprocessing.get_context("spawn"), _one_thread)
        try:
            for task, result in _run(pool, function, waiting):
                waiting.remove(task)
                yield task, result
        except BrokenProcessPool:
            for task in waiting[: workers or cores()]:
                tried[task] += 1
            if worst := next((task for task in waiting if tried[task] >= TRIES), None):
                raise KdleakError(
                    f"the process of task {worst[0]} died {TRIES} times; is there memory for {workers or cores()} "
                    "at a time? (compute.workers)"
                ) from None
        finally:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)


def _run(
    pool: ProcessPoolExecutor, function: Callable[..., Any], tasks: Sequence[tuple]
) -> Iterator[tuple[tuple, Any]]:
    running: dict[Future, tuple] = {pool.submit(function, *task): task for task in tasks}
    while running:
        for done in wait(running, return_when=FIRST_COMPLETED).done:
            yield running[done], done.result()
            del running[done]


def _one_thread() -> None:
    """A worker computes with one thread, and ends when its parent does; its progress would be in the way of others'."""
    import torch

    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()

    torch.set_num_threads(1)
    if not os.environ.get("KDLEAK_DEBUG"):
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the worker ends
