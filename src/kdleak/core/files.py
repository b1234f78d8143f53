"""Files written whole or not at all: beside first, then renamed into place. By the main process alone: what another
one writes is thrown away."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kdleak.core.distributed import is_main
from kdleak.core.errors import KdleakError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A new file beside `path` that takes its place when the block ends, and vanishes when it fails.

    A disk that is full, read-only or closed to this user is a KdleakError that names `path` and the remedy.
    """
    if not is_main():
        with TemporaryDirectory() as nowhere:
            yield Path(nowhere) / path.name
        return
    with _disk_errors(path):
        fresh = _beside(path)
        try:
            yield fresh
            os.replace(fresh, path)
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its place when the block ends, and vanishes when it fails.

    A disk that is full, read-only or closed to this user is a KdleakError that names `folder` and the remedy.
    """
    if not is_main():
        with TemporaryDirectory() as nowhere:
            yield Path(nowhere)
        return
    with _disk_errors(folder):
        fresh = _beside(folder)
        fresh.mkdir()
        old = fresh.with_name(f"{fresh.name}.old")
        try:
            yield fresh
            if folder.exists():
                os.rename(folder, old)
            os.rename(fresh, folder)
        finally:
            if old.exists() and not folder.exists():
                os.rename(old, folder)
            for left in (fresh, old):
                shutil.rmtree(left, ignore_errors=True)


def make_private(folder: Path) -> None:
    """Make `folder` its owner's alone (0700), and where it is missing, make it so.

    One of another owner stays as private as that one has made it.
    """
    with _disk_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        folder.chmod(folder.stat().st_mode & 0o700)


def _beside(path: Path) -> Path:
    """A name of this process's own beside `path`; what killed processes left under such names is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        owner = left.name.removeprefix(f".{path.name}.").removesuffix(".old")
        if owner.isdigit() and not (int(owner) != os.getpid() and _alive(int(owner))):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}")


def _alive(process: int) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


#: What a disk says, in words, and what to do about it.
_DISK = {
    errno.ENOSPC: "no space is left on the disk; free some",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "larger than this process may write; raise 'ulimit -f'",
    errno.EROFS: "the file system is read-only; make it writable",
    errno.EACCES: "permission denied; change its owner or mode",
    errno.EPERM: "permission denied; change its owner or mode",
    errno.EIO: "the disk fails (input/output error); see to it, or use another",
}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how libraries written in Rust pass a system's error on


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """What the system refuses while `path` is written, as a KdleakError."""
    try:
        yield
    except KdleakError:
        raise
    except Exception as error:
        number = _system_error(error)
        if number is None:
            raise
        named = getattr(error, "filename", None)
        # What is written beside `path` goes by its name; a file elsewhere (one that is copied, say) by its own.
        where = path if named is None or str(named).startswith(str(path.parent)) else named
        raise KdleakError(f"{where}: {_in_words(number)}, then run the same command again") from error


def _in_words(number: int) -> str:
    """What an errno means, and the remedy."""
    return _DISK.get(number, f"{os.strerror(number).lower()}; see to it")


def _system_error(error: Exception) -> int | None:
    """The errno of an exception that is the system's; None of another."""
    if isinstance(error, OSError):
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None


def write_json(content: Any, path: Path, digits: int | None = None, sort_keys: bool = True) -> None:
    """Write `json_text(content, digits, sort_keys)`."""
    with replacing_file(path) as fresh:
        fresh.write_text(json_text(content, digits, sort_keys), encoding="utf-8")


def json_text(content: Any, digits: int | None = None, sort_keys: bool = True) -> str:
    """`content` as JSON, its keys sorted so that equal content is equal text; ValueError for a NaN.

    digits: content may hold NumPy's types, floats are rounded to so many significant digits, and what is not finite
    is null.
    """
    plain = content if digits is None else _plain(content, digits)
    return json.dumps(plain, indent=1, sort_keys=sort_keys, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any, digits: int) -> Any:
    """`value` in JSON's own types."""
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars, without importing NumPy for a stage that has none
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(v, digits) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, digits) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def read_json(path: Path) -> Any:
    """Content of a file that an earlier stage wrote; a key that is not there is a KdleakError that names the file."""

    class Fields(dict):
        def __missing__(self, key: str) -> Any:
            raise KdleakError(f"{path}: holds no '{key}'; delete it and run 'dvc repro'")

    with _reading(path, "JSON"):  # not UTF-8, a number of too many digits, or nested too deep
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=Fields)
    if not isinstance(content, dict):
        raise KdleakError(f"{path}: damaged (no JSON object); delete it and run 'dvc repro'")
    return content


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    with replacing_file(path) as fresh:
        frame.to_parquet(fresh, index=False)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    with replacing_file(path) as fresh:
        frame.to_csv(fresh, index=False, lineterminator="\n")


def read_parquet(path: Path, **options: Any) -> pd.DataFrame:
    """A table that an earlier stage wrote."""
    import pandas as pd

    with _reading(path, "Parquet"):
        return pd.read_parquet(path, **options)


def read_csv(path: Path) -> pd.DataFrame:
    """A table that an earlier stage wrote."""
    import pandas as pd

    with _reading(path, "CSV"):
        return pd.read_csv(path)


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    if path.exists() and not path.is_file():  # a pipe would hold the reader for ever
        raise KdleakError(f"{path}: no regular file; delete it and run 'dvc repro'")
    try:
        yield
    except FileNotFoundError:
        raise KdleakError(f"{path}: no such file; run the stage that writes it ('dvc repro')") from None
    except Exception as error:  # a damaged file makes a reader stumble over anything: types, keys, encodings
        if isinstance(error, OSError) and error.errno:
            raise KdleakError(f"{path}: {_in_words(error.errno)}, then run the same command again") from None
        raise KdleakError(f"{path}: damaged (not readable as {what}); delete it and run 'dvc repro'") from None
