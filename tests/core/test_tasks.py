"""Independent tasks in processes of their own: all are done, whatever happens to a process."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.tasks import run_tasks


def square(folder: Path, number: int) -> tuple[int, int]:
    """number², and the threads that its process computes with; the first process to come to number 2 is killed."""
    import torch

    marker = folder / "died"
    if number == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2, torch.get_num_threads()


def always_killed(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refused(number: int) -> None:
    raise KdleakError(f"no {number}")


def test_a_task_whose_process_was_killed_runs_again(tmp_path):
    found = dict(run_tasks(partial(square, tmp_path), [(n,) for n in range(5)], workers=2))
    assert found == {(n,): (n**2, 1) for n in range(5)}
    assert (tmp_path / "died").exists()


def test_a_task_that_dies_every_time_ends_the_run_in_one_line():
    with pytest.raises(KdleakError, match=r"the process of task 7 died 3 times; is there memory for 1 at a time\?"):
        list(run_tasks(always_killed, [(7,)], workers=1))


def test_what_a_task_raises_is_raised():
    with pytest.raises(KdleakError, match="no 3"):
        list(run_tasks(refused, [(3,)], workers=1))
