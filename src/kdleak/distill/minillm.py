"""The policy gradient of MiniLLM (Gu et al. 2024, arXiv 2306.08543) for the reverse KL of whole responses.

With q the student, p the teacher and p̃ the mixture that the rollouts are drawn from, the gradient of KL(q ‖ p) splits
into what the next token changes now, computed over the whole vocabulary (the single-step decomposition, eq. 5), and
what it changes later, estimated from the rewards log p/q of the tokens that follow it. Both carry the importance
weight q/p̃ of the token (eq. 7, per step), the second is divided by the remaining length (eq. 8) and clipped as in PPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kdleak.data.batching import Batch
from kdleak.distill.divergences import forward_kl, reverse_kl
from kdleak.distill.matching import matching_objective
from kdleak.distill.teacher_signal import TeacherSignal
from kdleak.inference.forward import hidden_states
from kdleak.models.output_head import output_head
from kdleak.training.batch_sources import DistillationBatch
from kdleak.training.chunked_loss import chunked_loss
from kdleak.training.loop import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PolicyBatch(DistillationBatch):
    """A batch of rollouts with what was known when they were drawn, each (m,) at the response positions.

    log_probs:  log q of the tokens. importance: q/p̃. advantages: the whitened return of what follows.
    """

    log_probs: torch.Tensor | None = None
    importance: torch.Tensor | None = None
    advantages: torch.Tensor | None = None


def future_returns(rewards: torch.Tensor, discount: float) -> torch.Tensor:
    """Length-normalised returns of one response: (t,) rewards -> (t,).

    R_t = Σ_{t' > t} γ^(t' − t − 1) r_t' / (T − t), over the T − t tokens that follow token t; 0 at the last token.
    What token t itself earns belongs to the single-step term.
    """
    returns = torch.zeros_like(rewards)
    total = 0.0
    values = rewards.tolist()
    for t in range(len(values) - 2, -1, -1):
        total = values[t + 1] + discount * total
        returns[t] = total / (len(values) - 1 - t)
    return returns


def published_returns(rewards: torch.Tensor, discount: float) -> torch.Tensor:
    """The same as the published code has it: with token t's own reward, over the T − t + 1 tokens from t on."""
    later = future_returns(torch.cat([torch.zeros(1, dtype=rewards.dtype), rewards]), discount)
    return later[:-1]


def whitened(values: torch.Tensor) -> torch.Tensor:
    """Zero mean, unit variance; zeros stay where there is no spread."""
    return (values - values.mean()) * torch.rsqrt(values.var(correction=0) + 1e-8)


def published_advantages(rewards: Sequence[torch.Tensor], discount: float) -> list[torch.Tensor]:
    """The published code's advantages of a mini-batch: returns whitened over the padded table, its zeros included,
    with the variance that its scripts get under torch.distributed (divided by n)."""
    returns = [published_returns(r, discount) for r in rewards]
    padded = whitened(torch.nn.utils.rnn.pad_sequence(returns, batch_first=True))
    return [row[: len(r)] for row, r in zip(padded, rewards, strict=True)]


def corpus_loss(signal: TeacherSignal) -> Objective:
    """½ cross-entropy + ½ forward KL to the teacher: the corpus term of the published code (kd-ratio .5)."""
    return matching_objective(signal, forward_kl, kd_ratio=0.5)


def policy_gradient_loss(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    importance: torch.Tensor,
    advantages: torch.Tensor,
    clip: float,
) -> torch.Tensor:
    """PPO's clipped surrogate at each position, (m,): −min(ρA, clip(ρ, 1 ± ε)A), ρ = q/p̃ as q moves away from q_old."""
    ratio = (log_probs - old_log_probs).exp() * importance
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def policy_objective(signal: TeacherSignal, clip: float, weighted: bool = True) -> Objective:
    """Policy gradient + single-step reverse KL, token means. `clip` is PPO's ε. `weighted`: the single step carries
    the importance weight too (in the published code it does not)."""

    def objective(student: PreTrainedModel, batch: Batch) -> torch.Tensor:
        assert isinstance(batch, PolicyBatch)
        advantages, old_log_probs = batch.advantages, batch.log_probs
        whole_importance = batch.importance
        assert advantages is not None and old_log_probs is not None and whole_importance is not None
        teacher_states = signal.states(batch)

        def position_loss(logits: torch.Tensor, positions: slice) -> torch.Tensor:
            with torch.no_grad():
                teacher_logits = signal.logits(teacher_states[positions])
            importance = whole_importance[positions]
            single_step = reverse_kl(logits, teacher_logits)
            if weighted:
                single_step = importance * single_step
            log_probs = target_log_probs(logits, batch.targets[positions])
            return single_step + policy_gradient_loss(
                log_probs, old_log_probs[positions], importance, advantages[positions], clip
            )

        hidden, head = hidden_states(student, batch), output_head(student)
        return chunked_loss(hidden, head, position_loss, batch.weights)

    return objective


def target_log_probs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log-probability of `targets` (m,) under `logits` (m, V), in float32."""
    return -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
