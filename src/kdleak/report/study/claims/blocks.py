"""The paper's claim 7: transformer blocks differ by a large margin in how exposed the members are in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE
from kdleak.render.wording import with_interval
from kdleak.report.study.claims import claim
from kdleak.report.study.claims.membership import mean_of
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
SAYS = "Blocks differ by a large margin."
TEST = (
    f"the most against the least exposed block, AUC averaged over the students, against a margin of {LARGE:g}; "
    "DeLong on the same records, Bonferroni-corrected for having picked the pair"
)


@claim("7")
def blocks_differ(study: Study) -> Finding:
    """7. The spread of the students' blocks, with the No-KD student's beside it."""
    students = {n: study.models[n].block_scores for n in study.with_("block_scores", study.claimed)}
    blocks = _means(students)
    if len(blocks) < 2:
        return not_measured("7", SAYS, TEST, "Needs the blocks audit of students with two blocks or more.")
    highest, lowest = (pick(blocks, key=lambda k: blocks[k].value) for pick in (max, min))
    spread = blocks[highest] - blocks[lowest]
    over_margin = Contrast("highest over lowest block, less the margin", spread.value - LARGE, spread.error, spread.n)
    tests = len(list(combinations(blocks, 2)))
    p = min(1.0, over_margin.p_value * tests)
    verdict = INCONCLUSIVE if not p < ALPHA else REPRODUCED if over_margin.value > 0 else CONTRADICTED
    contrast = Contrast(f"block {highest} over block {lowest}", spread.value, spread.error, spread.n)
    apart = with_interval(contrast.value, contrast.interval)
    answer = f"Block {highest} exposes members most, block {lowest} least: {apart} apart."
    null = _means({BASELINE: table} if (table := study.baseline.block_scores) is not None else {})
    figures = {"margin": LARGE, "auc": {str(k): leak.value for k, leak in blocks.items()}}
    if len(null) == len(blocks):
        no_kd = null[highest] - null[lowest]
        figures |= {"no_kd_difference": no_kd.value, "no_kd_error": no_kd.error}
        answer += f" The same blocks of the student without KD: {with_interval(no_kd.value, _interval(no_kd))}."
    smallest = over_margin.detectable(tests) if verdict == INCONCLUSIVE else None
    return Finding("7", SAYS, verdict, TEST, answer, [Compared(contrast, p, verdict)], figures, smallest)


def _means(tables: Mapping[str, pd.DataFrame]) -> dict[int, Leak]:
    """Block -> its AUC, the mean over the models."""
    columns: Sequence[str] = [c for table in list(tables.values())[:1] for c in table if c.startswith("block_")]
    complete = {name: table.dropna(subset=columns) for name, table in tables.items()}
    return {int(c.removeprefix("block_")): mean_of(list(leaks(complete, c).values())) for c in columns}


def _interval(leak: Leak) -> tuple[float, float]:
    return Contrast.of("", leak).interval
