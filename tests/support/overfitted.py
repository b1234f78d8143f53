"""Models that know their records by heart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from kdleak.data.batching import collate
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.forward import response_logits


def overfit(model: PreTrainedModel, records: Sequence[EncodedRecord], steps: int = 300) -> PreTrainedModel:
    """Train `model` on the responses of `records` until it gives no token less than .95."""
    batch = collate(records, range(len(records)))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        losses = torch.nn.functional.cross_entropy(response_logits(model, batch), batch.targets, reduction="none")
        if losses.max() < 0.05:
            return model.eval()
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    raise AssertionError(f"not overfitted after {steps} steps: {losses.max():.3f}")


def uniform(model: PreTrainedModel) -> PreTrainedModel:
    """`model` with every weight zero: all words are equally likely, whatever comes before."""
    for parameter in model.parameters():
        parameter.data.zero_()
    return model.eval()
