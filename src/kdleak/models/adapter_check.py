"""What an adapter's configuration asks peft for, said before peft reads it.

Ranks are sizes of tensors that are made before the weights are read, patterns are regular expressions over the names
of modules: either may take all memory, or run for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kdleak.core.errors import KdleakError
from kdleak.core.limits import within_limits
from kdleak.models.model_files import ADAPTER, REMEDY, Tensors, read_fields

#: Settings that are sizes: numbers, or hold them (ranges of layers, ranks by pattern).
_SIZES = ("r", "rank_pattern", "layer_replication", "num_virtual_tokens", "encoder_hidden_size", "n_frequency")
#: Settings that hold patterns: themselves, in lists, or as keys.
_PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save", "rank_pattern", "alpha_pattern")
#: How peft puts a pattern into one of its own (0.21: `utils.other.get_pattern_key`, `tuners.tuners_utils`).
_FORMS = ("%s", r"(.*\.)?(%s)$", r"(^|.*\.)%s($|\..*)", r"(?:^|.*?\.)%s\.(?P<idx>\d+)\.")
#: A size that no adapter needs more of, however small its tensors.
_MOST = 4096


def check_adapter(folder: Path, adapter: Tensors, base: Tensors, modules: Iterable[str]) -> None:
    """Refuse the adapter in `folder` where its configuration imports a package, asks for more than its own weights and
    its base's have, or holds a pattern that does not end. modules: names of the base's modules."""
    path = folder / ADAPTER
    fields = read_fields(path)
    if fields.get("megatron_config"):
        raise KdleakError(f"{path}: megatron_config names a package to import, which kdleak never does; remove it")
    most = max((n for shape in [*adapter.shapes.values(), *base.shapes.values()] for n in shape), default=0)
    for name in _SIZES:
        for size in _numbers(fields.get(name)):
            if size > max(_MOST, most):
                raise KdleakError(f"{path}: {name} is {size:,}, its weights and its base's have {most:,}; {REMEDY}")
    patterns = [pattern for name in _PATTERNS for pattern in _texts(fields.get(name))]
    if patterns:
        names = list(modules)
        within_limits(lambda: _match(patterns, names), f"{path}: finding the modules that its patterns name")


def _match(patterns: Iterable[str], names: Iterable[str]) -> None:
    """Everything that peft will look for; what is no pattern at all it says itself."""
    for form in _FORMS:
        for pattern in patterns:
            try:
                compiled = re.compile(form % pattern)
            except (re.error, RecursionError, OverflowError):
                continue
            for name in names:
                compiled.match(name)
                compiled.fullmatch(name)


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        yield from (part for part in value if isinstance(part, str))
