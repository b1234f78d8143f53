"""params.yaml read and checked. What is wrong in it is one line naming the key and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kdleak.config.schema import Params
from kdleak.core.errors import KdleakError, nearest, shown
from kdleak.core.yaml_file import read_yaml


def load_params(path: Path) -> Params:
    """Read and validate params.yaml; KdleakError names the first key that is wrong and the nearest valid name."""
    content = read_yaml(path, f"'git diff {path}' shows what was changed")
    if not isinstance(content, dict):
        raise KdleakError(f"{path}: must hold sections such as 'data:' and 'kd:'; 'git checkout {path}' brings it back")
    return parse_params(content, str(path))


#: Where a parameter of an earlier version went.
RENAMED = {
    "audit.batch_tokens": "compute.batch_tokens",
    "audit.headline": "report.headline",
    "base.reserve": "data.sizes.population, which data.sizes.auxiliary no longer counts",
    "kd.generation": "generation",
    "kd.generation.batch_size": "compute.generation_batch",
    "optimizer.micro_batch_tokens": "compute.micro_batch_tokens",
    "study.learning_rates": "study.lr_multipliers",
}


def parse_params(content: dict[str, Any], origin: str = "params.yaml") -> Params:
    """Validate the content of a params.yaml."""
    for old in sorted(RENAMED, reverse=True):
        if _holds(content, old):
            raise KdleakError(f"{origin}: {old}: is now {RENAMED[old]}; move it there")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise KdleakError(f"{origin}: {explain(error, Params)}") from None


def _holds(content: Any, key: str) -> bool:
    """Whether `content` has something at the dotted `key`."""
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


def explain(error: ValidationError, section: type[BaseModel], above: str = "") -> str:
    """The first error in the words of the file: key, what is wrong, what would be right.

    section: what was validated. above: the dotted key at which it stands in the file.
    """
    # A mistyped key also leaves the right one missing: the typo is what the user wants to hear of.
    problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first: Any = problems[0]  # whether it has `ctx` depends on its type
    key = ".".join(str(part) for part in (above, *first["loc"]) if part != "")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    match first["type"]:
        case "extra_forbidden":
            *parent, name = first["loc"]
            return f"{key}: unknown key; {nearest(name, _fields(section, parent))}"
        case "missing":
            return f"{key}: missing{more}; add it, or bring the file back with 'git checkout'"
        case "literal_error":
            valid = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            return f"{key}: '{shown(first['input'])}' is unknown; {nearest(first['input'], valid)}{more}"
        case "value_error":
            return f"{key + ': ' if key else ''}{first['ctx']['error']}{more}"
        case _:
            return f"{key}: {first['msg'].lower()}, not {shown(first['input'])!r}{more}"


def _fields(section: Any, parent: list[str | int]) -> list[str]:
    """The valid keys of the section that lies `parent` below `section`."""
    for part in parent:
        section = section.model_fields[str(part)].annotation
    return list(section.model_fields)
