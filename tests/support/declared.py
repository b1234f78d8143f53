"""What dvc.yaml and study/dvc.yaml declare of each stage, for a project's parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Declared:
    """Paths and dotted keys that a stage names. code: its fingerprint."""

    deps: tuple[str, ...]
    outs: tuple[str, ...]
    params: tuple[str, ...]

    @property
    def code(self) -> str:
        return next(dep for dep in self.deps if dep.startswith(".code/"))

    def reads(self, path: str) -> bool:
        return any(path == known or path.startswith(f"{known}/") for known in (*self.deps, *self.outs))

    def takes(self, key: str) -> bool:
        return any(key == known or key.startswith(f"{known}.") for known in self.params)


def declared(folder: Path, stage: str, settings: str) -> Declared:
    """stage: as DVC names it, `distill@kd`, `study/dvc.yaml:rates@kd-0.5`. settings: the text of params.yaml."""
    name, _, item = stage.rpartition(":")[2].partition("@")
    method, _, value = item.partition("-")
    values = yaml.safe_load(settings)
    values["item"] = {"method": method, "value": value}
    stages: dict = {}
    for file in ("dvc.yaml", "study/dvc.yaml"):
        stages |= yaml.safe_load((folder / file).read_text())["stages"]
    entry = stages[name]

    def filled(text: str) -> str:
        return re.sub(r"\$\{([^}]*)\}", lambda m: str(reduce(getitem, m[1].split("."), values)), text)

    def names(kind: str) -> tuple[str, ...]:
        return tuple(filled(e if isinstance(e, str) else next(iter(e))) for e in entry.get(kind, []))

    return Declared(names("deps"), names("outs") + names("metrics"), names("params"))
