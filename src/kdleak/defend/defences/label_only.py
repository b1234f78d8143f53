"""The teacher releases the likeliest token at each position, and no probability."""

from __future__ import annotations

from pathlib import Path

from kdleak.defend.defences.top_k import TopK
from kdleak.defend.registry import Acts, Defence, defence
from kdleak.inference.release import Release


@defence("label_only", acts_on=Acts.SIGNAL, source="hard labels; harms compared in arXiv 2601.15394, 2506.14457")
class LabelOnly(Defence):
    """All probability on the teacher's first choice: the target of every method is that token."""

    protects = "all that probabilities tell beside the first choice"
    does_not_protect = "memorized tokens, which are first choices: hard labels may pass on more of them than soft ones"

    def release(self, public_base: Path, teacher: Path) -> Release:
        return TopK(1)
