"""The sections of params.yaml that ask for more trainings than the default ones: runs beside them, shadows, coins."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kdleak.config.types import MOST, Method, Section, Seed
from kdleak.core.variants import Variant


class Study(Section):
    """The grid, and the runs beside it. A list of numbers keeps each as it is written: it becomes part of a path."""

    methods: Annotated[list[Method], Field(min_length=1)]
    divergences: list[Method]
    lr_multipliers: list[Annotated[int | float, Field(gt=0)]]
    seeds: list[Seed]
    grids: list[Literal["paper"]]
    fractions: list[Annotated[int | float, Field(ge=0, le=1)]]
    lm_weights: list[Annotated[int | float, Field(gt=0)]]

    @property
    def variants(self) -> list[Variant]:
        """The runs beside each method's default one. Each differs from that in one thing."""
        of_all: dict[str, list[Any]] = {"rate": self.lr_multipliers, "seed": self.seeds, "grid": self.grids}
        of_some: dict[str, list[Any]] = {"fraction": self.fractions, "lm_weight": self.lm_weights}
        return [
            Variant(method, **{factor: value})
            for methods, factors in ((self.methods, of_all), (self.divergences, of_some))
            for factor, values in factors.items()
            for method in methods
            for value in values
        ]

    @model_validator(mode="after")
    def _lists(self) -> Study:
        for name in type(self).model_fields:
            entries = getattr(self, name)
            if len(set(entries)) < len(entries):
                kind = "a method" if name in ("methods", "divergences") else "a value"
                raise ValueError(f"{name}: {kind} stands twice in the list")
        if 1 in self.lr_multipliers:
            raise ValueError("lr_multipliers: 1 is the recipe itself, which always runs; leave it out")
        if "sft" in self.methods:
            raise ValueError("methods: 'sft' is the baseline of every study and always runs; leave it out")
        absent = [name for name in self.divergences if name not in self.methods]
        if absent and (self.fractions or self.lm_weights):
            raise ValueError(f"divergences: '{absent[0]}' is not in study.methods; add it there or leave it out here")
        return self


class Shadow(Section):
    """Teachers on halves of the records, and their students.

    models: how many teachers, an even number; 0: none. methods: what each is distilled by; `sft`: the no-KD control.
    arms: further teachers on the same halves, each under a defence of its own, `name=strength`.
    """

    models: Annotated[int, Field(ge=0, le=MOST)]
    methods: Annotated[list[Method], Field(min_length=1)]
    arms: list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*=[0-9]{1,12}(\.[0-9]{1,12})?$")]]

    @model_validator(mode="after")
    def _pairs(self) -> Shadow:
        if self.models % 2 or 0 < self.models < 8:
            raise ValueError("models: pairs of teachers, four at least: 0, or an even number from 8 on")
        return self


class Epsilon(Section):
    """The audit of ε by canaries that are planted by a coin each.

    canaries: how many coins, an even number, of which half choose the attack; 0: none. methods: what the audited
    teacher is distilled by. delta: δ of the bounds, where the teacher's own training states none.
    """

    canaries: Annotated[int, Field(ge=0, le=MOST)]
    methods: list[Method]
    delta: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _coins(self) -> Epsilon:
        if self.canaries % 2 or 0 < self.canaries < 40:
            raise ValueError("canaries: two halves of coins, twenty at least: 0, or an even number from 40 on")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods: a method stands twice in the list")
        if "sft" in self.methods:
            raise ValueError("methods: 'sft' hears no teacher and is audited as the control anyway; leave it out")
        return self
