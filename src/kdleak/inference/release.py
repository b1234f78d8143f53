"""What a model's owner gives out of its next-token distribution.

A release stands between a teacher's logits and whoever asks for them: divergences, rewards, sampling, teacher-written
text. It is a pure function of the logits alone, (…, V) -> (…, V), whose softmax is what is released: a token that is
left out has logit −inf, and the softmax renormalises over those that remain. One with settings is a frozen dataclass
with a `__call__`, so that its repr names them.

A release may ask other models about the same text (`beside`): it is then called with the teacher's logits and theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Release = Callable[..., torch.Tensor]


def identity(logits: torch.Tensor) -> torch.Tensor:
    """Everything: the logits as they are."""
    return logits


def beside(release: Release) -> tuple[PreTrainedModel, ...]:
    """The models, over the teacher's vocabulary, whose logits the release is given after the teacher's."""
    return getattr(release, "beside", ())


def release_name(release: Release) -> str:
    """What identifies a release from run to run: a function's name, else the repr with its settings."""
    return getattr(release, "__qualname__", repr(release))
