"""Which parameters made a result file: dvc.lock knows, params.yaml only knows what the next run will use.

After `dvc exp run -S teacher.lr=…` a student of the earlier teacher may still lie in the folder. DVC's lock files hold
for every stage the parameters it ran with and the content of what it read and wrote; a result counts as current only
if everything it was made from is still what the pipeline would hand it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.config.load import parse_params
from kdleak.core.errors import KdleakError, place_of

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


@dataclass(frozen=True)
class LockedStage:
    """A stage as it last ran. params: dotted key -> value; deps, outs: path -> content hash."""

    params: Mapping[str, Any]
    deps: Mapping[str, str]
    outs: Mapping[str, str]


class Provenance:
    """The lock files of a project."""

    def __init__(self, project: Project):
        self._root = project.root
        self._stages = {name: stage for lock in project.locks for name, stage in _read_lock(lock).items()}
        self._maker = {out: name for name, stage in self._stages.items() for out in stage.outs}

    def settings(self, result: Path, params: Params) -> Params | None:
        """`params` with the values that the file `result` was made with in their places; None if it is outdated.

        A file that no locked stage wrote (a stage run by hand, without DVC) counts as made with `params`.
        """
        path = result.relative_to(self._root).as_posix()
        if path not in self._maker:
            return params
        lineage: dict[str, LockedStage] = {}
        self._collect(self._maker[path], lineage)
        if self._content(path) != _md5(result) or any(self._outdated(stage) for stage in lineage.values()):
            return None
        content = params.model_dump()
        try:
            for stage in lineage.values():
                for key, value in stage.params.items():
                    _set(content, key, value)
            return parse_params(content)
        except (KdleakError, AttributeError, TypeError):
            return None  # of a version with other parameters

    def digest(self, result: Path) -> str:
        """md5 of a file as its stage last wrote it; "" of one that no locked stage writes."""
        path = result.relative_to(self._root).as_posix()
        return self._content(path) if path in self._maker else ""

    def outdated(self, result: Path, params: Params) -> str | None:
        """What has changed since the file `result` was made: a parameter's name, or other words; None if nothing."""
        made_with = self.settings(result, params)
        if made_with is None:
            return "what it was made from"
        before, now = made_with.model_dump(), params.model_dump()
        return next((name for name, value in _leaves(now) if dict(_leaves(before)).get(name) != value), None)

    def damaged(self) -> list[str]:
        """The result files that are there and are not what a locked stage wrote."""
        files = {out: self._root / out for out in self._maker if out.startswith("results/")}
        return [out for out, path in files.items() if path.is_file() and _md5(path) != self._content(out)]

    def _collect(self, name: str, found: dict[str, LockedStage], below: tuple[str, ...] = ()) -> None:
        """Add the stage and all that it was made from, the earliest first. below: the stages that lead to it."""
        for dep in self._stages[name].deps:
            maker = self._maker.get(dep)
            if maker is not None and maker not in found and maker not in below:
                self._collect(maker, found, (*below, name))
        found[name] = self._stages[name]

    def _outdated(self, stage: LockedStage) -> bool:
        """Whether something that the stage read has been made anew, and differently, since."""
        return any(dep in self._maker and self._content(dep) != digest for dep, digest in stage.deps.items())

    def _content(self, out: str) -> str:
        return self._stages[self._maker[out]].outs[out]


@contextmanager
def reading_results(project: Project, only: Path | None = None) -> Iterator[None]:
    """Figures are made of result files in the block: where one holds what no stage writes, KdleakError names it.

    only: the one file that is read, where it is one.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        named = str(only) if only else ", ".join(Provenance(project).damaged()[:3]) or "a file below results/"
        raise KdleakError(
            f"{named}: damaged (not what its stage wrote: {type(error).__name__} at {place_of(error)}); bring it back "
            "with 'git checkout results' or 'dvc checkout', or delete it and run 'dvc repro'"
        ) from error


def _read_lock(path: Path) -> dict[str, LockedStage]:
    """The stages of a dvc.lock; their paths count from the project's root, as every stage's working folder does."""
    from ruamel.yaml import YAML

    if not path.exists():
        return {}
    try:
        if not path.is_file():
            raise ValueError(f"{path} is no file")
        stages = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")).get("stages") or {}
        return {f"{path}:{name}": _locked(entry) for name, entry in stages.items()}
    except Exception:  # of YAML, of what stands in it, or of a file that is no file
        remedy = f"bring it back with 'git checkout {path}', or delete it and run 'dvc repro'"
        raise KdleakError(f"{path}: damaged (not a lock file of DVC); {remedy}") from None


def _locked(entry: Mapping[str, Any]) -> LockedStage:
    deps, outs = ({e["path"]: e.get("md5", "") for e in entry.get(kind) or []} for kind in ("deps", "outs"))
    params = {key: value for file in (entry.get("params") or {}).values() for key, value in file.items()}
    return LockedStage(params, deps, outs)


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
    content[last] = value


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
