"""Files written whole or not at all: beside first, then renamed into place. By the main process alone: what another
one writes is thrown away."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kdleak.errors import KdleakError
from kdleak.processes import is_main

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A new file beside `path` that takes its place when the block ends, and vanishes when it fails."""
    if not is_main():
        with TemporaryDirectory() as nowhere:
            yield Path(nowhere) / path.name
        return
    fresh = _beside(path)
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its place when the block ends, and vanishes when it fails."""
    if not is_main():
        with TemporaryDirectory() as nowhere:
            yield Path(nowhere)
        return
    fresh = _beside(folder)
    fresh.mkdir()
    old = fresh.with_name(f"{fresh.name}.old")
    try:
        yield fresh
        if folder.exists():
            os.rename(folder, old)
        os.rename(fresh, folder)
    finally:
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)


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


def write_json(content: Any, path: Path) -> None:
    """Sorted keys, so that equal content is an equal file. NaN is refused: a figure that is not known is null."""
    with replacing_file(path) as fresh:
        fresh.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Content of a file that an earlier stage wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KdleakError(f"{path}: no such file; run the stage that writes it ('dvc repro')") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise KdleakError(f"{path}: damaged (not valid JSON); delete it and run 'dvc repro'") from None


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    with replacing_file(path) as fresh:
        frame.to_parquet(fresh, index=False)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    with replacing_file(path) as fresh:
        frame.to_csv(fresh, index=False, lineterminator="\n")


def read_parquet(path: Path, **options: Any) -> pd.DataFrame:
    """A table that an earlier stage wrote."""
    import pandas as pd
    import pyarrow

    try:
        return pd.read_parquet(path, **options)
    except FileNotFoundError:
        raise KdleakError(f"{path}: no such file; run the stage that writes it ('dvc repro')") from None
    except (pyarrow.ArrowInvalid, OSError):
        raise KdleakError(f"{path}: damaged (not readable as Parquet); delete it and run 'dvc repro'") from None
