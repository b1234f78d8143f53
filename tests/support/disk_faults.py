"""Ways to make a disk refuse: a limit on the size of files, folders that nobody may write to, a small disk."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: needs no rights, and fails in the middle as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def not_writable(folder: Path) -> Iterator[None]:
    """Nobody may write into `folder`, root included: its right to ignore modes is put aside meanwhile (Linux)."""
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    libc, header = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, without = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    libc.capget(header, before)
    ctypes.memmove(without, before, ctypes.sizeof(before))
    without[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; effective, so that they can be taken up again
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        libc.capset(header, before)
        folder.chmod(mode)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk (tmpfs) of `size` at `folder`; the test is skipped where mounting is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        said = str(error)
    if said:
        pytest.skip(f"mounting a tmpfs is not allowed here ({said})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(disk: Path, free: int = 0) -> Iterator[None]:
    """`disk` with `free` bytes left on it."""
    filler = disk / "filler"
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(shutil.disk_usage(disk).free - free, 1))
    try:
        yield
    finally:
        filler.unlink()
