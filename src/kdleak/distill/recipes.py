"""The recipes of params.yaml: each checked by its method's own options, then put under fraction and protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from kdleak.config.load import explain
from kdleak.core.errors import KdleakError, nearest, shown
from kdleak.core.variants import BASELINE
from kdleak.distill.methods import METHODS
from kdleak.distill.registry import Method

if TYPE_CHECKING:
    from kdleak.config.schema import Distillation, Params


def recipe(method: str, kd: Distillation) -> Method:
    """The options of `method`: its defaults, and what kd.recipes sets otherwise. KdleakError names what is wrong."""
    if method not in METHODS:
        raise KdleakError(f"unknown method '{shown(method)}'; {nearest(method, METHODS)}")
    options, content = METHODS[method], kd.recipes.get(method, {})
    for old in options.renamed.keys() & content.keys():
        raise KdleakError(f"kd.recipes.{method}.{old}: has become {options.renamed[old]}; change its name and value")
    try:
        return options.model_validate(content)
    except ValidationError as error:
        raise KdleakError(explain(error, options, f"kd.recipes.{method}")) from None


def run_options(method: str, kd: Distillation) -> Method:
    """The options that a run of `method` goes by: its recipe under kd.student_fraction and kd.protocol."""
    options = recipe(method, kd)
    if kd.student_fraction is not None:
        options = options.with_student_fraction(kd.student_fraction)
    return options.as_published() if kd.protocol == "as_published" else options


def check_methods(params: Params, origin: str = "params.yaml") -> None:
    """Refuse what params.yaml says of a method that no method knows, or that contradicts other sections."""
    try:
        _check(params)
    except KdleakError as error:
        raise KdleakError(f"{origin}: {error}") from None


def _check(params: Params) -> None:
    kd, study, min_lr = params.kd, params.study, params.optimizer.min_lr
    named = {"kd.method": kd.method} | {f"study.methods.{i}": name for i, name in enumerate(study.methods)}
    for key, name in named.items():
        if name not in METHODS:
            raise KdleakError(f"{key}: '{shown(name)}' is unknown; {nearest(name, METHODS)}")
    if kd.method != BASELINE and kd.method not in study.methods:
        grid = ",".join([*study.methods, kd.method])
        raise KdleakError(f"kd.method '{kd.method}' is not in study.methods; add -S 'study.methods=[{grid}]'")
    for name in kd.recipes:
        if name not in METHODS:
            raise KdleakError(f"kd.recipes: unknown method '{shown(name)}'; {nearest(name, METHODS)}")
    rates = {name: recipe(name, kd).lr for name in METHODS}
    for name, lr in rates.items():
        if lr < min_lr:
            raise KdleakError(f"kd.recipes.{name}.lr is below optimizer.min_lr; the schedule would rise")
    for multiple in study.lr_multipliers:
        for name in study.methods:
            if not min_lr <= multiple * rates[name] <= 1:
                raise KdleakError(
                    f"study.lr_multipliers: {multiple:g} times the lr of '{name}' is out of bounds; "
                    "it must lie between optimizer.min_lr and 1"
                )
    run_options(kd.method, kd)
