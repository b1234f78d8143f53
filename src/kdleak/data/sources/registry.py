"""The registry of data sources. A module of this package that registers a class is a value of `data.source`."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError, nearest, shown
from kdleak.data.sources.rows import SourceRow

if TYPE_CHECKING:
    from kdleak.config.schema import Data


class Source(ABC):
    """Where records come from, under the settings of params.yaml's section `data`."""

    def __init__(self, data: Data):
        self.data = data

    def check(self) -> None:  # noqa: B027 - a source that can always be read has nothing to refuse
        """Raise KdleakError, naming the key, where the settings cannot be met. Cheap: it runs before any stage."""

    @abstractmethod
    def rows(self, seed: int) -> Iterator[SourceRow]:
        """The source's rows, before any filter; the same for the same settings and seed."""

    @property
    @abstractmethod
    def origin(self) -> str:
        """What the rows are, precisely enough to find them again: a path, a pinned revision."""


_SOURCES: dict[str, type[Source]] = {}


def source(name: str) -> Callable[[type[Source]], type[Source]]:
    """Register a class under the name that `data.source` takes."""

    def register(cls: type[Source]) -> type[Source]:
        _SOURCES[name] = cls
        return cls

    return register


def sources() -> Mapping[str, type[Source]]:
    """Every registered source by name."""
    assert __package__ is not None
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__, f"{__package__}."):
        importlib.import_module(module.name)
    return dict(sorted(_SOURCES.items()))


def find_source(data: Data) -> Source:
    """The source that `data.source` names; KdleakError with the nearest name where there is none."""
    known = sources()
    if data.source not in known:
        raise KdleakError(f"data.source: '{shown(data.source)}' is unknown; {nearest(data.source, known)}")
    return known[data.source](data)
