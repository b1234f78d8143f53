"""Several teachers on disjoint shards of private; what they release is the mean of their distributions."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from kdleak.config.schema import Count
from kdleak.core import distributed
from kdleak.core.errors import KdleakError
from kdleak.defend.accountant import require_opacus
from kdleak.defend.mixing import epsilon_of_tokens
from kdleak.defend.registry import Acts, Defence, Fitting, defence, shard_folder
from kdleak.inference.release import Release

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.config.schema import Params


@dataclass(frozen=True)
class Mean:
    """log of the mean of the teachers' distributions: (…, V) logits of each -> (…, V) log-probabilities.

    With a radius r the last logits are the public base's, b, and each teacher's p is first projected: λ·p + (1 − λ)·b
    with the largest λ in [0, 1] for which |log of it − log b| <= r at every token. beside: the other teachers, and the
    base. digest: of their checkpoints.
    """

    radius: float | None
    digest: str
    beside: tuple[PreTrainedModel, ...] = field(repr=False)

    def __call__(self, *logits: torch.Tensor) -> torch.Tensor:
        log_p = [each.float().log_softmax(-1) for each in logits]
        if self.radius is not None:
            log_p = [projected(each, log_p[-1], self.radius) for each in log_p[:-1]]
        return torch.stack(log_p).logsumexp(0) - math.log(len(log_p))


def projected(log_p: torch.Tensor, log_b: torch.Tensor, radius: float) -> torch.Tensor:
    """log(λ·p + (1 − λ)·b), λ the largest whose max-divergence from b is at most `radius` nats, both ways: (…, V).

    The ratio to b at a token is 1 + λ·(p/b − 1), so the largest and the smallest p/b decide.
    """
    ratio = (log_p - log_b).exp()
    most, least = ratio.amax(-1, keepdim=True), ratio.amin(-1, keepdim=True)
    above = math.expm1(radius) / (most - 1).clamp_min(1e-12)
    below = -math.expm1(-radius) / (1 - least).clamp_min(1e-12)
    share = torch.minimum(above, below).clamp(max=1.0)
    return log_b + torch.log1p(share * (ratio - 1))


@defence(
    "split_teachers",
    acts_on=Acts.ENSEMBLE,
    source="PATE (Papernot et al. 2017, arXiv 1610.05755); PMixED (Flemings et al. 2024, arXiv 2410.02016)",
)
class SplitTeachers(Defence):
    """teachers: each is fine-tuned on a shard, drawn by a hash of what stays together.

    mix:         mean, of their distributions; pmixed, of their projections on a ball around the public base.
    radius:      of the ball, nats, in max-divergence (the paper projects in Renyi divergence of one order; of order
                 infinity the triangle inequality that its proof needs is exact). pmixed alone.
    most_tokens: tokens of a sampled response that are paid for. delta: of the ε. pmixed alone.

    ε holds where the student learns from tokens that were sampled from the mixture at temperature 1 (seqkd): each is a
    query, and is paid for whether it is written or not. Soft labels give the mixture itself away, and have no ε.
    """

    knob = "teachers"
    strengths = (2, 4, 8, 16)
    protects = "what one record alone taught: only one teacher of several has seen it"
    does_not_protect = (
        "a memorized token, of which the mean still tells a share; soft labels have no ε, with pmixed neither"
    )
    teachers: Annotated[int, Field(ge=2, le=1000)] = 4
    mix: Literal["mean", "pmixed"] = "mean"
    radius: Annotated[float, Field(gt=0, le=20)] | None = None
    most_tokens: Count = 128
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5

    @model_validator(mode="after")
    def _ball(self) -> SplitTeachers:
        if (self.radius is not None) != (self.mix == "pmixed"):
            raise ValueError("radius: belongs to mix pmixed and to it alone; set both, or leave radius empty")
        return self

    def check(self, params: Params) -> None:
        if self.mix == "pmixed":
            require_opacus()
            if params.generation.max_new_tokens > self.most_tokens or params.generation.temperature != 1:
                raise KdleakError(
                    "defence.mix: 'pmixed' pays for most_tokens tokens sampled at temperature 1; set "
                    "generation.max_new_tokens to no more than defence.most_tokens, and generation.temperature to 1"
                )

    def shards(self, owners: Sequence[str]) -> Sequence[int]:
        hashes = [hashlib.sha256(f"split/{owner}".encode()).digest()[:8] for owner in owners]
        shards = [int.from_bytes(each, "big") % self.teachers for each in hashes]
        absent = set(range(self.teachers)).difference(shards)
        if absent:
            raise KdleakError(
                f"defence.teachers: {len(absent)} of {self.teachers} teachers would have no record; lower it"
            )
        return shards

    def release(self, public_base: Path, teacher: Path) -> Release:
        from kdleak.models.checkpoints import load_model
        from kdleak.models.model_files import content_hash

        folders = [shard_folder(teacher, number) for number in range(1, self.teachers)]
        folders += [public_base] if self.radius is not None else []
        digest = hashlib.sha256("".join(map(content_hash, folders)).encode()).hexdigest()
        return Mean(self.radius, digest, tuple(load_model(folder).requires_grad_(False) for folder in folders))

    def student(self, fitting: Fitting) -> Fitting:
        if self.radius is None:
            return fitting
        spent: dict[str, Any] = {"epsilon": None, "delta": self.delta, "covers": "private",
                                 "does_not_cover": "facts that many records state", "groups": {}}  # fmt: skip
        if getattr(fitting.training, "decoding", None) == "sample":
            tokens = len(fitting.records) * self.most_tokens
            epsilon = epsilon_of_tokens(self.teachers, self.radius, tokens, self.delta)
            spent |= {"epsilon": epsilon, "tokens": tokens, "accountant": "RDP (conversion: Opacus)"}
            spent["neighbours"] = "all records of one teacher, and so any group of near-duplicates"
            said = f"ε {epsilon:.2f} at δ {self.delta:.2g} for the records of any one teacher, {tokens} tokens paid for"
        else:
            said = "no ε: the student learns from the mixture itself, not from tokens sampled from it"
        if distributed.is_main():
            print(f"{self.name}: {said}", file=sys.stderr, flush=True)
        return replace(fitting, spent=spent)
