"""The judge stages: every statistic of one model, from the passes of it and of what it is compared with.

Tokenizers are read, models are not: another attack, interval or claim costs no forward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.variants import Variant
from kdleak.pipeline.membership import judge_blocks, judge_membership
from kdleak.pipeline.memorization import judge_memorization
from kdleak.pipeline.passes import audited_records, read_passes, subject_of
from kdleak.pipeline.utility import judge_utility

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def judge_model(name: str, params: Params, project: Project) -> None:
    """Write all result files of `teacher`, or of the student that `name` made.

    A student is compared with the no-KD student and with the teacher, whose result files must be there.
    """
    variant, records = Variant.of(name), audited_records(project)
    subject = subject_of(project.model(variant), records, params, project)
    passes = read_passes(project.passes(variant), subject.records)
    judge_membership(variant, passes, records, params, project)
    judge_blocks(variant, passes, records, params, project)
    judge_memorization(variant, passes, records, subject, params, project)
    judge_utility(variant, passes, subject.encoder.tokenizer, project)
