"""The section `defence` of params.yaml: its defence, checked by that defence's own options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from kdleak.config.load import explain
from kdleak.core.errors import KdleakError, nearest, shown
from kdleak.defend.defences import DEFENCES
from kdleak.defend.registry import Acts, Defence

if TYPE_CHECKING:
    from kdleak.config.schema import Defence as Section
    from kdleak.config.schema import Params


def chosen(section: Section) -> Defence:
    """The defence that params.yaml names, with its knobs. KdleakError names what is wrong."""
    if section.name not in DEFENCES:
        raise KdleakError(f"defence.name: '{shown(section.name)}' is unknown; {nearest(section.name, DEFENCES)}")
    options = DEFENCES[section.name]
    known = {knob for each in DEFENCES.values() for knob in each.model_fields}
    for knob in section.model_extra or {}:
        if knob not in known:
            raise KdleakError(f"defence.{shown(knob)}: no defence has this knob; {nearest(knob, sorted(known))}")
    for knob in section.knobs.keys() - options.model_fields.keys():
        owners = ", ".join(name for name, each in DEFENCES.items() if knob in each.model_fields)
        raise KdleakError(f"defence.{knob}: '{section.name}' does not read it; leave it empty, or name one of {owners}")
    try:
        return options.model_validate(section.knobs)
    except ValidationError as error:
        raise KdleakError(explain(error, options, "defence")) from None


def acting(params: Params, *places: Acts) -> Defence:
    """The defence that params.yaml names if it acts on one of `places`, else `none`."""
    found = chosen(params.defence)
    return found if found.acts_on in places else DEFENCES["none"]()


def check_defence(params: Params, origin: str = "params.yaml") -> None:
    """Refuse what params.yaml says of a defence that none knows, or that contradicts other sections."""
    try:
        chosen(params.defence).check(params)
    except KdleakError as error:
        raise KdleakError(f"{origin}: {error}") from None
