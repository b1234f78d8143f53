"""Distillation from k log-probabilities of the teacher at each position, stored once: what an API or a disk gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from kdleak.config.schema import Count
from kdleak.core.seeds import derive
from kdleak.data.batching import collate, scoring_batches
from kdleak.distill.divergences import LOG_ZERO
from kdleak.distill.registry import Method, Run, method
from kdleak.inference.forward import hidden_states
from kdleak.models.device import resolve_device
from kdleak.models.output_head import output_head
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.chunked_loss import CHUNK, chunked_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.data.batching import Batch
    from kdleak.data.encoding import EncodedRecord
    from kdleak.distill.context import Context
    from kdleak.distill.teacher_signal import TeacherSignal
    from kdleak.training.loop import Objective


class Stored(NamedTuple):
    """What is kept of the teacher at m positions, (m, k) each.

    tokens: ids. log_probs: the teacher's, LOG_ZERO at least. shares: what each token counts in the student's target.
    """

    tokens: torch.Tensor
    log_probs: torch.Tensor
    shares: torch.Tensor


#: (student's logits (m, V), what is stored of the teacher) -> nats at each position (m,)
SparseLoss = Callable[[torch.Tensor, Stored], torch.Tensor]
#: (teacher's logits (m, V), random numbers) -> what is stored of them
Keep = Callable[[torch.Tensor, torch.Generator], Stored]


@method("topk", source="stored top-k logits as in TRL and DistillKit; Anshumann et al. 2025, arXiv 2503.16870")
class TopK(Method):
    """Forward KL from the teacher's k tokens at each position of the references; nothing else of it is read.

    k: tokens kept. tail: what becomes of all others.
      bucket:       they are one outcome more, of 1 − Σp (TRL's loss_add_tail): KL over k + 1 outcomes.
      renormalised: they are left out, and both models renormalised over the k (TRL without a tail); k is 2 at least.
      dropped:      the teacher is renormalised over the k, the student over its whole vocabulary: biased towards the k,
                    at k = 1 the cross-entropy of the likeliest token. What the defence top_k makes of `kd`.
      sampled:      the k are drawn, with replacement, from r ∝ p^proposal and weigh p / (k·r): unbiased at every k.
    proposal: 1 draws from the teacher itself, less flattens that. tail is bucket by default because that is an
    objective at every k, without chance, and does not push the k above what the teacher gives them.
    """

    loss = "fkl"
    k: Count = 8
    tail: Literal["bucket", "renormalised", "dropped", "sampled"] = "bucket"
    proposal: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _an_objective(self) -> TopK:
        if self.tail == "renormalised" and self.k == 1:
            raise ValueError("k: one token, renormalised, has a share of 1 under both models; set k to 2 at least")
        return self

    def build(self, context: Context) -> Run:
        records = context.references()
        signal = context.signal(records)
        by_chance = {"proposal": self.proposal} if self.tail == "sampled" else {}
        keep = partial(drawn if by_chance else likeliest, k=self.k, **by_chance)
        stored = store(signal, records, keep, context.seed, context.batch_tokens)
        batches = FixedBatches(records, self.batch_size, context.seed)
        return Run(sparse_objective(stored, LOSSES[self.tail]), batches, records)


def likeliest(logits: torch.Tensor, generator: torch.Generator | None = None, *, k: int) -> Stored:
    """The k likeliest tokens of each position, with their probabilities as shares: (m, V) -> (m, k)."""
    top = _log_probs(logits).topk(min(k, logits.shape[-1]), dim=-1)
    return Stored(top.indices, top.values, top.values.exp())


def drawn(logits: torch.Tensor, generator: torch.Generator, *, k: int, proposal: float) -> Stored:
    """k draws of each position from r ∝ p^proposal, with replacement and shares of p / (k·r): (m, V) -> (m, k).

    A sum over tokens of p times anything is the mean of the same sum over these shares.
    """
    log_p = _log_probs(logits)
    log_r = torch.log_softmax(proposal * log_p, dim=-1)
    tokens = torch.multinomial(log_r.exp().cpu(), k, replacement=True, generator=generator).to(logits.device)
    log_p, log_r = log_p.gather(-1, tokens), log_r.gather(-1, tokens)
    return Stored(tokens, log_p, (log_p - log_r).exp() / k)


@torch.no_grad()
def store(
    signal: TeacherSignal, records: Sequence[EncodedRecord], keep: Keep, seed: int, batch_tokens: int
) -> list[Stored]:
    """What `keep` leaves of the teacher's release at the response positions of each record, on the CPU.

    A record's random numbers are those of (seed, its id): the same in every epoch, and after a stop.
    """
    stored: list[Stored | None] = [None] * len(records)
    for indices in scoring_batches(records, batch_tokens):
        states = signal.states(collate(records, indices).to(resolve_device()))
        for i, own in zip(indices, states.split([len(records[i].response) for i in indices]), strict=True):
            generator = torch.Generator().manual_seed(derive(seed, f"topk/{records[i].record_id}"))
            parts = [keep(signal.logits(chunk), generator) for chunk in own.split(CHUNK)]
            tokens, log_probs, shares = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
            stored[i] = Stored(tokens.int(), log_probs, shares)
    return [each for each in stored if each is not None]


def sparse_objective(stored: Sequence[Stored], loss: SparseLoss) -> Objective:
    """Mean of `loss` over the response positions of a batch of the records that `stored` is of."""

    def objective(student: PreTrainedModel, batch: Batch) -> torch.Tensor:
        columns = zip(*(stored[i] for i in batch.indices), strict=True)
        tokens, log_probs, shares = (torch.cat(column).to(batch.targets.device) for column in columns)

        def position_loss(logits: torch.Tensor, positions: slice) -> torch.Tensor:
            return loss(logits, Stored(tokens[positions].long(), log_probs[positions], shares[positions]))

        return chunked_loss(hidden_states(student, batch), output_head(student), position_loss, batch.weights)

    return objective


def weighted(logits: torch.Tensor, teacher: Stored) -> torch.Tensor:
    """Σ share · (log p − log q) over the stored tokens: of draws, an unbiased estimate of KL(p ‖ q), gradient too."""
    return _weighted(_log_probs(logits), teacher)


def dropped(logits: torch.Tensor, teacher: Stored) -> torch.Tensor:
    """KL of the teacher, renormalised over its k tokens, to the student over its whole vocabulary."""
    log_p = torch.log_softmax(teacher.log_probs, dim=-1)
    return weighted(logits, Stored(teacher.tokens, log_p, log_p.exp()))


def renormalised(logits: torch.Tensor, teacher: Stored) -> torch.Tensor:
    """KL between both models, given that the next token is one of the teacher's k."""
    log_p = torch.log_softmax(teacher.log_probs, dim=-1)
    log_q = torch.log_softmax(logits.to(log_p.dtype).gather(-1, teacher.tokens), dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def bucket(logits: torch.Tensor, teacher: Stored) -> torch.Tensor:
    """KL over k + 1 outcomes, the last of them any other token. The student's is a sum over its other tokens, not
    1 − Σq, which would lose all digits of a small one."""
    log_q = _log_probs(logits)
    named = _weighted(log_q, teacher)
    if teacher.tokens.shape[-1] == logits.shape[-1]:
        return named
    others = log_q.scatter(-1, teacher.tokens, LOG_ZERO).logsumexp(-1)
    rest = (1 - teacher.shares.sum(-1)).clamp(min=0)
    return named + torch.xlogy(rest, rest) - rest * others


LOSSES: dict[str, SparseLoss] = {
    "bucket": bucket,
    "renormalised": renormalised,
    "dropped": dropped,
    "sampled": weighted,
}


def _weighted(log_q: torch.Tensor, teacher: Stored) -> torch.Tensor:
    return (teacher.shares * (teacher.log_probs - log_q.gather(-1, teacher.tokens))).sum(-1)


def _log_probs(logits: torch.Tensor) -> torch.Tensor:
    """(…, V) log-probabilities, finite, at least float32."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return torch.log_softmax(logits, dim=-1, dtype=dtype).clamp(min=LOG_ZERO)
