"""The same command in several processes of this machine, so that `kdleak distill kd` needs no launcher before it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from kdleak.core.distributed import RENDEZVOUS, is_main

#: Seconds that the others have to end by themselves when one has failed.
_GRACE = 5.0


def launch(processes: int) -> int:
    """Run this process's own command in `processes` processes, to its end; the exit code.

    One that fails ends the others, and what it said of it is said once: of one that was killed, that it was, though
    the others have found it gone meanwhile.
    """
    with TemporaryDirectory(prefix="kdleak-") as folder, contextlib.ExitStack() as stack:
        workers = [_start(rank, processes, Path(folder)) for rank in range(processes)]
        for worker in workers:
            stack.callback(_end, worker)
        while not any(worker.poll() for worker in workers):
            if all(worker.poll() == 0 for worker in workers):
                return 0
            time.sleep(0.02)
        failed = next(rank for rank, worker in enumerate(workers) if worker.returncode)
        _wait(workers, _GRACE)
        failed = next((rank for rank, worker in enumerate(workers) if (worker.returncode or 0) < 0), failed)
        code = workers[failed].returncode
        said = Path(folder) / f"error.{failed}"
        text = said.read_text(encoding="utf-8") if said.is_file() else ""
        ended = f"kdleak: error: process {failed} of {processes} was ended by signal {-code}; the same command goes on"
        print(text or (ended if code < 0 else f"kdleak: error: process {failed} failed"), file=sys.stderr)
        return code if code > 0 else 1


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def say_error(text: str) -> None:
    """On standard error; a process of `launch` leaves it to that, so that it is said once."""
    there = os.environ.get(RENDEZVOUS)
    if there:
        (Path(there).parent / f"error.{os.environ['RANK']}").write_text(text, encoding="utf-8")
    elif is_main():
        print(text, file=sys.stderr)


def _start(rank: int, processes: int, folder: Path) -> subprocess.Popen:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    environment = {
        "OMP_NUM_THREADS": str(max(1, cores() // processes)),
        # They find one another through a file; what they then tell each other stays in this machine.
        **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
        **os.environ,
        **{name: str(value) for name, value in names.items()},
        RENDEZVOUS: str(folder / "rendezvous"),
    }
    quiet = None if rank == 0 or os.environ.get("KDLEAK_DEBUG") else subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", "kdleak", *sys.argv[1:]], env=environment, stderr=quiet)


def _wait(workers: list[subprocess.Popen], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)


def _end(worker: subprocess.Popen) -> None:
    if worker.poll() is None:
        worker.kill()
    worker.wait()
