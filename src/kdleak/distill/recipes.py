"""The recipes of params.yaml: each checked by its method's own options, then put under fraction and protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kdleak.config.load import explain
from kdleak.core.errors import KdleakError, nearest, shown
from kdleak.core.variants import BASELINE, Variant
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
    """The options that a run of `method` goes by: its recipe under protocol, grid and factors of `kd`.

    The controlled grid has one start for all, the baseline: a technique that learns from its own text is defined from a
    fine-tuned student alone, one that does not works from it as well; and no corpus. The published code has starts
    and a corpus of its own. The baseline itself is the same in both grids.
    """
    options = recipe(method, kd)
    if method != BASELINE and kd.student_fraction is not None:
        options = options.with_student_fraction(kd.student_fraction)
    if kd.protocol == "as_published":
        options = options.as_published()
    no_corpus = {"lm_weight": 0.0} if kd.lm_corpus == "none" else {}
    if method == BASELINE:
        return options.model_copy(update=no_corpus)
    factors: dict[str, Any] = {"start": kd.start, "lm_weight": kd.lm_weight}
    if kd.grid == "controlled" and kd.protocol == "corrected":
        factors = {"start": kd.start or "baseline", "lm_weight": kd.lm_weight or 0.0}
    return options.model_copy(update={k: value for k, value in factors.items() if value is not None} | no_corpus)


def varied(params: Params, variant: Variant) -> Params:
    """`params` with what `variant` sets otherwise in a distillation: its learning rate, a factor of kd, the seed."""
    kd = params.kd
    factors = {"grid": variant.grid, "student_fraction": variant.fraction, "lm_weight": variant.lm_weight}
    changes: dict[str, Any] = {name: value for name, value in factors.items() if value is not None}
    if variant.rate is not None:
        content = kd.recipes.get(variant.method, {}) | {"lr": variant.rate * recipe(variant.method, kd).lr}
        changes["recipes"] = kd.recipes | {variant.method: content}
    seed = params.seed if variant.seed is None else variant.seed
    return params.model_copy(update={"kd": kd.model_copy(update=changes), "seed": seed})


def check_methods(params: Params, origin: str = "params.yaml") -> None:
    """Refuse what params.yaml says of a method that no method knows, or that contradicts other sections."""
    try:
        _check(params)
    except KdleakError as error:
        raise KdleakError(f"{origin}: {error}") from None


def _check(params: Params) -> None:
    kd, study, min_lr = params.kd, params.study, params.optimizer.min_lr
    named = {"kd.method": kd.method} | {
        f"study.{key}.{i}": name for key in ("methods", "divergences") for i, name in enumerate(getattr(study, key))
    }
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
    for variant in study.variants:
        if variant.rate and not min_lr <= variant.rate * rates[variant.method] <= 1:
            raise KdleakError(
                f"study.lr_multipliers: {variant.rate:g} times the lr of '{variant.method}' is out of bounds; "
                "it must lie between optimizer.min_lr and 1"
            )
        try:
            run_options(variant.method, varied(params, variant).kd)
        except KdleakError as error:
            raise KdleakError(f"study: run '{variant}': {error}") from None
    if kd.grid == "controlled" and kd.protocol == "corrected":
        _check_equal_budgets(params)
    run_options(kd.method, kd)


def _check_equal_budgets(params: Params) -> None:
    """The controlled grid compares trainings of as many steps on batches as large."""
    budgets = {}
    for name in (*params.study.methods, params.kd.method):
        options = recipe(name, params.kd)
        budgets[name] = (options.epochs, options.batch_size, options.steps)
    first = params.study.methods[0]
    for name, budget in budgets.items():
        if budget != budgets[first]:
            raise KdleakError(
                f"kd.grid controlled: '{name}' and '{first}' differ in epochs, batch_size or steps of kd.recipes; "
                "make them equal, or set kd.grid to paper"
            )
