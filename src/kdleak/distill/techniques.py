"""The techniques: whose words the student learns from, and what it minimises. Adding one is one entry here,
with its recipe in params.yaml. (No heavy import: the configuration reads this registry.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Text(Enum):
    """Whose words a student learns from."""

    REFERENCES = "references"  # the public records' own responses
    TEACHER = "teacher"  # the teacher's responses to the public prompts, generated once
    MIXED = "mixed"  # the student's own with probability `student_fraction`, else the references
    ADAPTIVE = "adaptive"  # DistiLLM's scheduler between references, fresh and replayed student text
    POLICY = "policy"  # rounds of rollouts from the mixture of student and teacher


#: The loss of a technique: cross-entropy, MiniLLM's policy gradient, or a key of `divergences.DIVERGENCES`.
CROSS_ENTROPY, POLICY_GRADIENT = "ce", "policy"


@dataclass(frozen=True)
class Technique:
    """One way to make a student.

    text, loss: see above. source: the paper.
    options:    what its recipe may set beside lr, epochs and batch_size, with the paper's values.
    optimizer:  fields of `training.Recipe` that the technique sets itself.
    """

    text: Text
    loss: str
    source: str
    options: Mapping[str, float] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def on_policy(self) -> bool:
        """Whether the student's own words are used; such a student starts from the `sft` checkpoint."""
        return self.text in (Text.MIXED, Text.ADAPTIVE, Text.POLICY)

    @property
    def needs_teacher(self) -> bool:
        """Whether training asks the teacher for its distribution."""
        return self.loss != CROSS_ENTROPY


_MINILLM = {
    "lm_weight": 1.0,
    "teacher_share": 0.2,
    "reward_scale": 0.5,
    "reward_clip": 100.0,
    "discount": 0.95,
    "ppo_clip": 0.2,
    "rollouts": 256,
    "inner_epochs": 4,
}
_DISTILLM = {
    "alpha": 0.1,
    "lm_weight": 1.0,
    "replay_capacity": 1000,
    "threshold_step": 0.1,
    "tolerance": 0.1,
    "validation_share": 0.1,
}

TECHNIQUES: dict[str, Technique] = {
    "sft": Technique(Text.REFERENCES, CROSS_ENTROPY, "No-KD: the student fine-tuned on public alone"),
    "kd": Technique(Text.REFERENCES, "fkl", "Hinton et al. 2015"),
    "seqkd": Technique(Text.TEACHER, CROSS_ENTROPY, "Kim and Rush 2016"),
    "imitkd": Technique(
        Text.MIXED, "fkl", "Lin et al. 2020", {"student_fraction": 1.0, "replay_capacity": 1000, "lm_weight": 1.0}
    ),
    "gkd": Technique(Text.MIXED, "jsd", "Agarwal et al. 2024", {"student_fraction": 0.5, "weight": 0.9}),
    "distillm": Technique(Text.ADAPTIVE, "srkl", "Ko et al. 2024", _DISTILLM),
    "minillm": Technique(
        Text.POLICY,
        POLICY_GRADIENT,
        "Gu et al. 2024",
        _MINILLM,
        {"betas": (0.9, 0.95), "schedule": "constant", "warmup": 0.02},
    ),
    "rkl": Technique(Text.REFERENCES, "rkl", "reverse KL alone"),
    "jsd": Technique(Text.REFERENCES, "jsd", "generalised Jensen-Shannon alone", {"weight": 0.9}),
    "sfkl": Technique(Text.REFERENCES, "sfkl", "skew forward KL alone", {"alpha": 0.1}),
    "srkl": Technique(Text.REFERENCES, "srkl", "skew reverse KL alone", {"alpha": 0.1}),
    "tvd": Technique(Text.REFERENCES, "tvd", "total variation alone (Wen et al. 2023)"),
    "akl": Technique(Text.REFERENCES, "akl", "adaptive KL alone (Wu et al. 2025)"),
}
