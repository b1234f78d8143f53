"""Work on what a model folder brings (chat templates, tokenizers) in a child process with bounds of time and memory.

A template is a program and a tokenizer holds regular expressions: either may run for ever or fill the memory, and no
thread can be stopped within C or Rust. The child is a fork, which costs milliseconds; its result comes back by a pipe.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from kdleak.core.errors import KdleakError, private

Result = TypeVar("Result")
#: Seconds and bytes that any work has, and what each character of a record adds.
SECONDS, BYTES = 20.0, 2 * 2**30
_SECONDS_A_CHARACTER, _BYTES_A_CHARACTER = 1 / 20_000, 400


def within_limits(work: Callable[[], Result], what: str, characters: int = 0) -> Result:
    """`work()`, done in a child of this process; its own KdleakErrors pass.

    what: what is done on whose behalf, in an error that names nothing of a record. characters: length of the texts.
    Raises KdleakError where the child needs more time or memory than such texts do. Where a process cannot fork
    (Windows) the work is done here, without bounds.
    """
    if not hasattr(os, "fork"):
        return work()
    seconds = SECONDS + characters * _SECONDS_A_CHARACTER
    ours, theirs = multiprocessing.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child uses none of the threads that it lacks
        child = os.fork()
    if child == 0:
        ours.close()
        _in_child(work, what, theirs, seconds, BYTES + characters * _BYTES_A_CHARACTER)
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(3 * seconds) else None  # the child's own bound is of computing time
    except EOFError:
        answer = None
    finally:
        ours.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if answer is None:
        raise KdleakError(f"{what} took more time or memory than such a text needs; use another template or model")
    done, value = answer
    if done:
        return value
    said, cause = value
    raise KdleakError(said) from (RuntimeError(cause) if cause else None)


def _in_child(work: Callable[[], Any], what: str, pipe: Any, seconds: float, more_bytes: int) -> None:
    """Do the work, send (True, result) or (False, (message, what a library said)), and end without any clean-up."""
    try:
        _bound(resource.RLIMIT_CPU, int(seconds) + 1)
        if sys.platform == "linux":
            with open("/proc/self/statm") as mapped:
                _bound(resource.RLIMIT_AS, int(mapped.read().split()[0]) * resource.getpagesize() + more_bytes)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what Rust prints as it runs out of memory
        try:
            with private(what):
                pipe.send((True, work()))
        except KdleakError as error:
            cause = error.__cause__
            pipe.send((False, (str(error), f"{type(cause).__name__}: {cause}" if cause else None)))
    finally:
        os._exit(0)


def _bound(kind: int, most: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # a lower bound that this process has already stays
        resource.setrlimit(kind, (most, most))
