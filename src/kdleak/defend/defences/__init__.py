"""The defences, one file each: every module of this folder is imported, and registers what it holds."""

import importlib
import pkgutil

from kdleak.defend.registry import REGISTERED as DEFENCES

__all__ = ["DEFENCES", "discover"]


def discover() -> None:
    """Import every module of this package's folders."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


discover()
