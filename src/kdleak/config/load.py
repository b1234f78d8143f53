"""params.yaml read and checked. What is wrong in it is one line naming the key and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from kdleak.config.schema import METHODS, Params
from kdleak.core.errors import KdleakError, brief, nearest, shown

if TYPE_CHECKING:
    from kdleak.core.paths import Project


def load_params(path: Path) -> Params:
    """Read and validate params.yaml; KdleakError names the first key that is wrong and the nearest valid name."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KdleakError(f"{path}: no such file; run kdleak in the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise KdleakError(
            f"{path}: not valid YAML ({brief(error)}); 'git diff {path}' shows what was changed"
        ) from None
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
        raise KdleakError(f"{origin}: {_explain(error)}") from None


def _holds(content: Any, key: str) -> bool:
    """Whether `content` has something at the dotted `key`."""
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


def _explain(error: ValidationError) -> str:
    """The first error in the words of the file: key, what is wrong, what would be right."""
    # A mistyped key also leaves the right one missing: the typo is what the user wants to hear of.
    problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    match first["type"]:
        case "extra_forbidden":
            *parent, name = first["loc"]
            return f"{key}: unknown key; {nearest(name, _fields(parent))}"
        case "missing":
            return f"{key}: missing{more}"
        case "literal_error":
            valid = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            return f"{key}: '{shown(first['input'])}' is unknown; {nearest(first['input'], valid)}{more}"
        case "value_error":
            return f"{key + ': ' if key else ''}{first['ctx']['error']}{more}"
        case _:
            return f"{key}: {first['msg'].lower()}, not {shown(first['input'])!r}{more}"


def _fields(parent: list[str | int]) -> list[str]:
    """The valid keys of a section."""
    section: Any = Params
    for part in parent:
        if isinstance(section, type) and issubclass(section, BaseModel):
            annotation = section.model_fields[str(part)].annotation
            section = annotation
        else:  # dict[str, Section]: any name leads to the same section
            section = get_args(section)[1]
    if isinstance(section, type) and issubclass(section, BaseModel):
        return list(section.model_fields)
    return list(METHODS)


def check_environment(params: Params, project: Project) -> None:
    """Refuse what params.yaml names and there is not: a family, a size, a file, an attack."""
    from kdleak.attacks import ATTACKS
    from kdleak.data.sources import find_source
    from kdleak.models.families import load_family

    for name in params.audit.attacks:
        if name not in ATTACKS:
            raise KdleakError(f"{project.params}: audit.attacks: unknown attack '{name}'; {nearest(name, ATTACKS)}")
    if {"teacher", "no_kd"} & set(ATTACKS[params.report.headline].needs.references):
        headline = params.report.headline
        raise KdleakError(f"{project.params}: report.headline: '{headline}' has no score for the teacher; name another")
    load_family(project.families, params.model.family).student(params.model.student)
    try:
        find_source(params.data).check()
    except KdleakError as error:
        raise KdleakError(f"{project.params}: {error}") from None
