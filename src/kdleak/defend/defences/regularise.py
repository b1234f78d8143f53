"""A control: the teacher is regularised by label smoothing, weight decay or a confidence penalty."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from kdleak.data.batching import Batch
from kdleak.defend.registry import Acts, Defence, Fitting, defence
from kdleak.inference.forward import hidden_states
from kdleak.models.output_head import output_head
from kdleak.training.chunked_loss import chunked_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Strength = Annotated[float, Field(ge=0, le=1000)]


@defence("regularise", acts_on=Acts.TEACHER, source="Szegedy et al. 2016; Pereyra et al. 2017 (arXiv 1701.06548)")
class Regularise(Defence):
    """Loss at a position: (1 − s)·CE(y) + s·mean over the vocabulary of CE(v) − c·H(p), nats, H the entropy.

    label_smoothing:    s.
    confidence_penalty: c.
    weight_decay:       of AdamW, in place of optimizer.weight_decay; None leaves that.
    """

    knob = "label_smoothing"
    strengths = (0.05, 0.1, 0.2, 0.4)
    control = True
    protects = "members from overconfident predictions, as any regularised model does"
    does_not_protect = "outliers, canaries and what is repeated; no bound for any record"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    confidence_penalty: Strength = 0.0
    weight_decay: Strength | None = None

    @model_validator(mode="after")
    def _something(self) -> Regularise:
        if not self.label_smoothing and not self.confidence_penalty and self.weight_decay is None:
            raise ValueError("'regularise' with all of its knobs at 0 is no defence; set one or name none")
        return self

    def teacher(self, fitting: Fitting) -> Fitting:
        decay = {} if self.weight_decay is None else {"weight_decay": self.weight_decay}
        return replace(fitting, objective=self.loss, optimizer={**fitting.optimizer, **decay})

    def loss(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Mean over the response positions."""

        def position_loss(logits: torch.Tensor, positions: slice) -> torch.Tensor:
            targets = batch.targets[positions]
            loss = F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=self.label_smoothing)
            if not self.confidence_penalty:
                return loss
            log_p = logits.float().log_softmax(-1)
            return loss + self.confidence_penalty * (log_p.exp() * log_p).sum(-1)

        return chunked_loss(hidden_states(model, batch), output_head(model), position_loss, batch.weights)
