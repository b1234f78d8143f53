"""DP-SGD as a training: Poisson sampling, a bound on each record's gradient, noise, and the ε of all of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from kdleak.core import distributed
from kdleak.core.seeds import derive
from kdleak.defend.accountant import Budget, account, in_words, require_opacus
from kdleak.defend.registry import Defence, Fitting
from kdleak.training.batch_sources import PoissonBatches
from kdleak.training.gradient_rules import ClipAndNoise

if TYPE_CHECKING:
    from kdleak.config.schema import Params


class PrivateTraining(Defence):
    """sigma: noise multiplier, the noise's standard deviation over `clip`. clip: bound on the L2 norm of a record's
    gradient (0: none), whose loss is the sum over its response tokens divided by the mean number of them in public
    records.

    sigma 0 is clipping alone, without an ε; sigma 0 without a clip is no defence, and the training as it is without.
    """

    knob = "sigma"
    strengths = (0.1, 0.2, 0.4, 0.8, 1.3)
    sigma: Annotated[float, Field(ge=0, le=1000)] = 0.8
    clip: Annotated[float, Field(ge=0, le=1000)] = 1.0

    @model_validator(mode="after")
    def _bounded(self) -> PrivateTraining:
        if self.sigma and not self.clip:
            raise ValueError("clip: noise is a multiple of it; give a bound, or set sigma to 0")
        return self

    def check(self, params: Params) -> None:
        if self.sigma:
            require_opacus()

    def private(self, fitting: Fitting, covers: str, does_not_cover: str) -> Fitting:
        """`fitting` by DP-SGD; its ε is printed and goes into its training.json, with whose records it covers."""
        if not self.sigma and not self.clip:
            return fitting
        batches = PoissonBatches(fitting.records, fitting.training.batch_size, derive(fitting.seed, "poisson"))
        rule = ClipAndNoise(
            self.clip,
            self.sigma,
            expected_batch=batches.rate * len(fitting.records),
            record_tokens=fitting.record_tokens(),
            seed=derive(fitting.seed, "noise"),
        )
        budget = Budget(self.sigma, batches.rate, batches.steps_per_epoch * fitting.training.epochs)
        spent = account(budget, len(fitting.records), fitting.groups)
        spent = {**spent, "covers": covers, "does_not_cover": does_not_cover}
        if distributed.is_main():
            print(f"{self.name}: {in_words(spent)}", file=sys.stderr, flush=True)
        return replace(fitting, batches=batches, rule=rule, spent=spent)
