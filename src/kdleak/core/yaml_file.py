"""YAML as people and DVC read it alike: no key twice, no word or number that YAML 1.1 and 1.2 read differently.

PyYAML reads 1.1, DVC 1.2, and DVC writes what `-S` sets: `1e-08` is a number there, as it is here.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from kdleak.core.errors import KdleakError, brief, naming

#: Numbers that YAML 1.1 and 1.2 read differently: octal `010` and `0o10`, sexagesimal `1:30`.
_AMBIGUOUS = re.compile(r"[-+]?(0o?[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
#: Values that a file may hold, its aliases written out: some hundred thousand of them stand in no honest one.
_MOST = 200_000
#: Truths of YAML 1.1 that are mere words in 1.2.
_WORDS = re.compile(r"yes|no|on|off", re.IGNORECASE)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
        twice = sorted(name for name, times in names.items() if times > 1)
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"'{twice[0]}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        problem = ""
        if kind in ("int", "float") and _AMBIGUOUS.fullmatch(node.value):
            problem = f"'{node.value}' is two different numbers in YAML 1.1 and 1.2; write it without 0 or :"
        if kind == "bool" and _WORDS.fullmatch(node.value):
            problem = f"'{node.value}' is a truth in YAML 1.1 and a word in 1.2; write true or false, or quote it"
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        value = super().construct_scalar(node)
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise yaml.constructor.ConstructorError(None, None, "half a character (a lone surrogate)", node.start_mark)
        return value

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and _expanded(node, {}) > _MOST:
            raise ComposerError(None, None, "its aliases (*name) repeat too much", node.start_mark)
        return node


def _expanded(node: yaml.Node, known: dict[yaml.Node, float]) -> float:
    """Nodes that `node` stands for with every alias written out; infinite where it holds itself."""
    if node not in known:
        known[node] = math.inf
        parts: Any = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = itertools.chain(*parts) if isinstance(node, yaml.MappingNode) else parts
        known[node] = 1 + sum(_expanded(part, known) for part in parts)
    return known[node]


#: Numbers of YAML 1.2 that 1.1 takes for words; what is ambiguous among them is refused above.
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0[0-9]+|0o[0-7]+)$"), [*"-+0"])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+|\.[0-9]+[eE][-+]?[0-9]+)$"),
    [*"-+.0123456789"],
)


def read_yaml(path: Path, remedy: str) -> Any:
    """Content of a YAML file. KdleakError, ending in `remedy`, for what cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise KdleakError(f"{path}: no regular file; put one there")
        with naming(path):
            return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise KdleakError(f"{path}: no such file; run kdleak in the project's root") from None
    except RecursionError:
        raise KdleakError(f"{path}: not valid YAML (nested too deep); {remedy}") from None
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise KdleakError(f"{path}: not valid YAML ({brief(error)}); {remedy}") from None
