"""What the teacher says about fixed data: its last hidden states at the response positions, computed once.

Hidden states times the output head are the teacher's logits exactly, for every divergence and epoch, at a fraction of
their size (hidden size instead of vocabulary).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kdleak.data.batching import Batch, collate, scoring_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.models.forward import hidden_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TeacherSignal:
    """What the teacher says of the records it was computed for."""

    teacher: PreTrainedModel
    hidden: tuple[torch.Tensor, ...]

    @classmethod
    def precompute(cls, teacher: PreTrainedModel, records: Sequence[EncodedRecord], batch_tokens: int) -> TeacherSignal:
        """One forward pass of the teacher over `records`; entry i is (response length, hidden size)."""
        states: list[torch.Tensor] = [torch.empty(0)] * len(records)
        with torch.inference_mode():
            for indices in scoring_batches(records, batch_tokens):
                flat = hidden_states(teacher, collate(records, indices))
                lengths = [len(records[i].response) for i in indices]
                for i, part in zip(indices, flat.split(lengths), strict=True):
                    states[i] = part.clone()
        return cls(teacher, tuple(states))

    @property
    def head(self) -> torch.nn.Linear:
        """The teacher's output head: hidden states -> logits."""
        return self.teacher.get_output_embeddings()

    def states(self, batch: Batch) -> torch.Tensor:
        """Teacher's last hidden states at the response positions of `batch`: (m, hidden size)."""
        return torch.cat([self.hidden[i] for i in batch.indices]).to(batch.input_ids.device)
