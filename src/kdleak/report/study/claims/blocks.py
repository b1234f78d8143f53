"""The paper's claim 7: transformer blocks differ by a large margin in how exposed the members are in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE
from kdleak.render.wording import in_words, with_interval
from kdleak.report.study.claims import claim
from kdleak.report.study.claims.membership import mean_of, themselves
from kdleak.report.study.findings import (
    CONTRADICTED,
    INCONCLUSIVE,
    REPRODUCED,
    Compared,
    Finding,
    not_measured,
)
from kdleak.stats.contrasts import ALPHA, Contrast, Leak, leaks

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.report.study.results import Study

#: Smaller differences of AUC are no "large margin".
LARGE = 0.05
MOPE_BY_BLOCK = "mope by block"
#: With fewer blocks "block by block" says nothing: the paper's models have 12 to 48.
FEWEST_BLOCKS = 4
SAYS = "Blocks differ by a large margin."
TEST = (
    f"the most against the least exposed block, AUC averaged over the students, against a margin of {LARGE:g}; DeLong "
    "on the same records, with the Monte-Carlo error of the perturbations, Bonferroni-corrected for having picked the "
    "pair"
)


@claim("7")
def blocks_differ(study: Study) -> Finding:
    """7. The spread of the students' blocks, with the no-KD student's and the teacher's beside it."""
    own, caveat = themselves(study, study.claimed)
    students = study.grouped({n: study.models[n].block_scores for n in study.with_("block_scores", own)})
    blocks = _means(students)
    teacher = _of_teacher(study)
    if len(blocks) < FEWEST_BLOCKS:
        few = f"No verdict on fewer than {in_words(FEWEST_BLOCKS)} blocks: the students' audit has {len(blocks)}."
        return not_measured("7", SAYS, TEST, " ".join(filter(None, [few, teacher, caveat])))
    highest, lowest = (pick(blocks, key=lambda k: blocks[k].value) for pick in (max, min))
    spread = blocks[highest] - blocks[lowest]
    noise = math.hypot(*(_monte_carlo(study, list(students), block) for block in (highest, lowest)))
    error = math.hypot(spread.error, noise)
    over_margin = Contrast("highest over lowest block, less the margin", spread.value - LARGE, error, spread.n)
    tests = math.comb(len(blocks), 2)
    p = min(1.0, over_margin.p_value * tests)
    verdict = INCONCLUSIVE if not p < ALPHA else REPRODUCED if over_margin.value > 0 else CONTRADICTED
    contrast = Contrast(f"block {highest} over block {lowest}", spread.value, error, spread.n)
    apart = with_interval(contrast.value, contrast.interval)
    answer = f"Block {highest} exposes members most, block {lowest} least: {apart} apart."
    table = study.baseline.block_scores
    null = _means(study.grouped({BASELINE: table}) if table is not None else {})
    figures = {"margin": LARGE, "monte_carlo_error": noise, "auc": {str(k): leak.value for k, leak in blocks.items()}}
    if len(null) == len(blocks):
        no_kd = null[highest] - null[lowest]
        no_kd_error = math.hypot(no_kd.error, *(_monte_carlo(study, [BASELINE], k) for k in (highest, lowest)))
        figures |= {"no_kd_difference": no_kd.value, "no_kd_error": no_kd_error}
        shown = with_interval(no_kd.value, Contrast("", no_kd.value, no_kd_error, no_kd.n).interval)
        answer += f" The same blocks of the no-KD student: {shown}."
    smallest = over_margin.detectable(tests) if verdict == INCONCLUSIVE else None
    return Finding(
        "7", SAYS, verdict, TEST, " ".join(filter(None, [answer, teacher])), [Compared(contrast, p, verdict)], figures,
        smallest, caveat, ["block-wise MoPe alone: no other attack looks at a block"], (MOPE_BY_BLOCK,),
    )  # fmt: skip


def _of_teacher(study: Study) -> str:
    """The teacher's most and least exposed block, of any number of them; "" where they were not audited."""
    audited = (study.teacher.blocks or {}).get("blocks", [])
    spread = (study.teacher.blocks or {}).get("spread")
    if not spread:
        return ""
    apart = with_interval(spread["difference"], spread["ci95"])
    return (
        f"The teacher's {len(audited)} blocks: most in block {spread['highest']}, least in block {spread['lowest']}, "
        f"{apart} apart."
    )


def _monte_carlo(study: Study, names: Sequence[str], block: int) -> float:
    """Standard error, from the draws of noise, of a block's AUC averaged over models: the mean of theirs, which is the
    most that it can be however their draws depend on each other."""
    errors = [
        each.get("auc_monte_carlo_error") or 0.0
        for name in names
        for each in (study.models[name].blocks or {}).get("blocks", [])
        if each["index"] == block
    ]
    return sum(errors) / max(1, len(errors))


def _means(tables: Mapping[str, pd.DataFrame]) -> dict[int, Leak]:
    """Block -> its AUC, the mean over the models."""
    columns: Sequence[str] = [c for table in list(tables.values())[:1] for c in table if c.startswith("block_")]
    complete = {name: table.dropna(subset=columns) for name, table in tables.items()}
    return {int(c.removeprefix("block_")): mean_of(list(leaks(complete, c).values())) for c in columns}
