"""What coin canaries cost the teacher that they are planted in: its perplexity beside one of as many ordinary records.

The other teacher has, in place of every planted canary, the record that it was made of: the same prompts, as many
records and steps, and no improbable end. It is trained under the same defence, from the same base and seed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.certify.coins import ordinary_records
from kdleak.core.files import make_private, read_parquet, write_parquet
from kdleak.core.paths import Project
from kdleak.core.variants import BASELINE, TEACHER
from kdleak.models.checkpoints import load_model
from kdleak.pipeline.passes import subject_of
from kdleak.pipeline.teacher import fine_tune_teacher
from kdleak.training.finetune import evaluate

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params


def canary_cost(coins: pd.DataFrame, params: Params, own: Project, place: Path) -> dict[str, float]:
    """Perplexity of the population, which no model was trained on: under the teacher of `own`, which has the canaries,
    and under the one with ordinary records, which is trained in `place`; and the relative rise."""
    other = furnish(place, own, ordinary_records(coins), read_parquet(own.canaries).iloc[: -len(coins)])
    fine_tune_teacher(params, other)
    canaries, ordinary = (_perplexity(each, coins, params) for each in (own, other))
    return {"with_canaries": canaries, "with_ordinary": ordinary, "cost": canaries / ordinary - 1}


def _perplexity(project: Project, records: pd.DataFrame, params: Params) -> float:
    folder = project.model(TEACHER)
    population = subject_of(folder, records, params, project).population
    return math.exp(evaluate(load_model(folder), population, params.compute.batch_tokens))


def furnish(place: Path, origin: Project, coins: pd.DataFrame, canaries: pd.DataFrame | None = None) -> Project:
    """A project in the folder `place` with the records and bases of `origin`, and its canaries (or these) and the
    coins' beside them; a coin that fell on the other side is a canary of no repetition."""
    import pandas as pd

    project = Project(place)
    for folder in (place.parent, place):
        make_private(folder)  # private records and models, until the audit is done
    both = (origin, project)
    links = [(each.records, each.families, each.base_model(""), each.model(BASELINE)) for each in both]
    for target, link in zip(*links, strict=True):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        if target.exists():
            link.symlink_to(target)
    beside = read_parquet(origin.canaries) if canaries is None else canaries
    write_parquet(pd.concat([beside, coins[list(beside.columns)]], ignore_index=True), project.canaries)
    return project
