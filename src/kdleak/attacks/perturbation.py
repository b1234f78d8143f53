"""The forward passes of MoPe: log-probs under perturbed weights, of the whole model or one block at a time.

Model perturbation (Li et al. 2023, arXiv 2310.14369): score = log p_theta(x) - mean_k log p_(theta + eps_k)(x), per
token, eps_k Gaussian; in expectation sigma^2 / 2 times the trace of the loss's Hessian, larger where the model has
settled on x. An antithetic pair takes the mean over +eps and -eps: the gradient's part, which carries no membership and
most of the variance, cancels exactly. All records share the same noise, so that what noise does to every record alike
moves no rank.

Perturbing block l leaves the blocks below it as they are: their output is computed once for a shard of the records,
held in bounded memory, and every perturbed pass starts from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from kdleak.core import distributed
from kdleak.core.progress import Advance
from kdleak.data.batching import Batch, collate, scoring_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.block_forward import block_output, hidden_states_from_block, transformer_blocks
from kdleak.inference.scoring import evaluating, read_responses, scored_only, target_log_probs
from kdleak.stats import placements

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Weights = Sequence[tuple[str, torch.nn.Parameter]]


@dataclass(frozen=True)
class Noise:
    """How weights are perturbed.

    sigma:      standard deviation of the Gaussian noise; `relative`: in units of the root mean square of the weight
                matrices of the block at hand (corrected), else absolute (as published).
    draws:      independent draws; an `antithetic` draw costs two passes, another one.
    seed:       draw k of a parameter depends on (seed, k, the parameter's name) alone.
    """

    sigma: float
    draws: int
    relative: bool = True
    antithetic: bool = True
    seed: int = 0

    @classmethod
    def as_published(cls, distilled: bool, seed: int = 0) -> Noise:
        """The noise of the study's code: ten single draws of an absolute sigma, .01 for a distilled student, .005 for
        the teacher and the no-KD student (ziqi-zhang/LLM_Distillation_Privacy, 265e00b)."""
        return cls(0.01 if distilled else 0.005, draws=10, relative=False, antithetic=False, seed=seed)

    @property
    def passes(self) -> int:
        """Forward passes over the records."""
        return self.draws * len(self.signs)

    @property
    def signs(self) -> tuple[int, ...]:
        return (1, -1) if self.antithetic else (1,)


@dataclass(frozen=True)
class PerturbationScores:
    """drops: (draws, n) float64, the fall of the mean log-prob of each record in each draw; NaN without tokens."""

    drops: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """(n,) the mean over draws: higher = member."""
        return self.drops.mean(0)

    @property
    def standard_errors(self) -> np.ndarray:
        """(n,) Monte-Carlo error of `scores`; NaN for a single draw."""
        return self.drops.std(0, ddof=1) / math.sqrt(len(self.drops)) if len(self.drops) > 1 else self.drops[0] * np.nan

    def auc_error(self, is_member: np.ndarray) -> float:
        """Monte-Carlo error of the AUC, by the jackknife over draws; NaN for a single draw."""
        k = len(self.drops)
        if k < 2:
            return float("nan")
        left_out = (self.drops.sum(0) - self.drops) / (k - 1)
        defined = np.isfinite(left_out).all(0)
        areas = [placements(row[defined & is_member], row[defined & ~is_member])[0].mean() for row in left_out]
        return float(np.sqrt((k - 1) * np.var(areas)))


def mope(
    model: PreTrainedModel,
    records: Sequence[EncodedRecord],
    noise: Noise,
    *,
    clean: np.ndarray | None = None,
    max_tokens: int = 4096,
    progress: Advance | None = None,
) -> PerturbationScores:
    """MoPe of every record, all weights perturbed at once.

    clean: (n,) mean log-probs under the model as it is, where they are known: it saves a pass.
    progress: advanced by one at each of `noise.passes`.
    Several processes share the records, and each of them returns the scores of all.
    """
    shard = distributed.shard_by_length([len(r.prompt) + len(r.response) for r in records])
    in_shard = [records[i] for i in shard]

    def likelihoods() -> np.ndarray:
        log_probs = np.zeros(len(records))
        for batch, hidden in read_responses(model, in_shard, max_tokens):
            log_probs[[shard[i] for i in batch.indices]] = record_log_probs(model, batch, hidden)
        distributed.all_reduce_sum_(log_probs)
        return log_probs

    groups = _groups(model)
    drops = np.zeros((noise.draws, len(records)))
    with evaluating(model):
        reference = likelihoods() if clean is None else clean
        for draw, sign in _passes(noise):
            with contextlib.ExitStack() as stack:
                for weights in groups:
                    stack.enter_context(perturbed(weights, shifts(weights, noise, draw), sign))
                drops[draw] += (reference - likelihoods()) / len(noise.signs)
            if progress is not None:
                progress()
    return PerturbationScores(drops)


def block_mope(
    model: PreTrainedModel,
    records: Sequence[EncodedRecord],
    noise: Noise,
    *,
    blocks: Sequence[int] | None = None,
    clean: np.ndarray | None = None,
    max_tokens: int = 4096,
    cache_bytes: int = 256 * 2**20,
    progress: Advance | None = None,
) -> list[PerturbationScores]:
    """MoPe of every record with one block perturbed at a time, bottom block first.

    blocks: the blocks to perturb, by their place from the bottom; None: all. The scores of the others are NaN.
    cache_bytes: bound on the hidden states that are held at once (one block's input for a shard of the records).
    progress: advanced by the records of a shard at each block: len(records) times blocks perturbed in all.
    Several processes share the records, and each of them returns the scores of all.
    """
    shard = distributed.shard_by_length([len(r.prompt) + len(r.response) for r in records])
    known = None if clean is None else clean[shard]
    wanted = range(len(transformer_blocks(model))) if blocks is None else blocks
    own = [records[i] for i in shard]
    drops = _block_drops(model, own, noise, wanted, known, max_tokens, cache_bytes, progress)
    gathered = np.zeros((*drops.shape[:2], len(records)))
    gathered[:, :, shard] = drops
    distributed.all_reduce_sum_(gathered)
    return [PerturbationScores(gathered[block]) for block in range(len(gathered))]


def _block_drops(
    model: PreTrainedModel,
    records: Sequence[EncodedRecord],
    noise: Noise,
    wanted: Collection[int],
    clean: np.ndarray | None,
    max_tokens: int,
    cache_bytes: int,
    progress: Advance | None,
) -> np.ndarray:
    """(blocks, draws, n): the falls of `block_mope`."""
    blocks = [_named(index, block) for index, block in enumerate(transformer_blocks(model))]
    likelihoods = np.zeros((len(blocks), noise.draws, len(records)))
    likelihoods[[index for index in range(len(blocks)) if index not in wanted]] = np.nan
    reference = np.empty(len(records)) if clean is None else clean
    with evaluating(model):
        for shard in _shards(records, max_tokens, cache_bytes // (4 * model.config.hidden_size)):
            batches = [_batch(model, records, indices) for indices in shard]
            inputs: list[torch.Tensor | None] = [None] * len(batches)
            for index, weights in enumerate(blocks):
                if index:
                    inputs = [block_output(model, b, index - 1, s) for b, s in zip(batches, inputs, strict=True)]
                if index not in wanted:
                    continue
                for draw in range(noise.draws):
                    both = list(shifts(weights, noise, draw))
                    for sign in noise.signs:
                        with perturbed(weights, both, sign):
                            for batch, states in zip(batches, inputs, strict=True):
                                states_after = hidden_states_from_block(model, batch, index, states)
                                log_probs = record_log_probs(model, batch, states_after)
                                likelihoods[index, draw, list(batch.indices)] += log_probs / len(noise.signs)
                if progress is not None:
                    progress(sum(len(batch.indices) for batch in batches))
            if clean is None:  # what the topmost block makes of its cached input
                for batch, states in zip(batches, inputs, strict=True):
                    hidden = hidden_states_from_block(model, batch, len(blocks) - 1, states)
                    reference[list(batch.indices)] = record_log_probs(model, batch, hidden)
    return reference - likelihoods


@contextlib.contextmanager
def perturbed(weights: Weights, by: Iterable[torch.Tensor], sign: int) -> Iterator[None]:
    """`weights` plus `sign` times the shifts `by` inside; bit for bit what they were outside.

    The sum is made in fp32 and stored in the weights' own type; the originals are kept for the while.
    """
    originals = [p.detach().clone() for _, p in weights]
    try:
        with torch.no_grad():
            for (_, p), shift in zip(weights, by, strict=True):
                p.copy_(p.float().add_(shift.to(p.device), alpha=sign))
        yield
    finally:
        with torch.no_grad():
            for (_, p), original in zip(weights, originals, strict=True):
                p.copy_(original)


def shifts(weights: Weights, noise: Noise, draw: int) -> Iterator[torch.Tensor]:
    """sigma times the fp32 noise of each of `weights`, one after the other: all of a model's need not be held at once.

    A generator: exhaust it, or have the first shift made, before the weights change.
    """
    sigma = noise.sigma * (_scale(weights) if noise.relative else 1.0)
    for name, p in weights:
        generator = torch.Generator().manual_seed(_seed(noise.seed, draw, name))
        yield torch.randn(p.shape, generator=generator).mul_(sigma)


def record_log_probs(model: PreTrainedModel, batch: Batch, hidden: torch.Tensor) -> np.ndarray:
    """(n,) float64 mean log-prob of each record of `batch`, nats per token; NaN without a scored token."""
    log_probs = target_log_probs(model, batch, hidden).cpu().numpy()
    rows, n = batch.rows.cpu().numpy(), len(batch.indices)
    counts = np.bincount(rows, minlength=n)
    sums = np.bincount(rows, weights=log_probs.astype(np.float64), minlength=n)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _groups(model: PreTrainedModel) -> list[Weights]:
    """Every parameter once: one group for each block, one for the rest (embeddings, final norm, head)."""
    blocks = [_named(index, block) for index, block in enumerate(transformer_blocks(model))]
    inside = {id(p) for group in blocks for _, p in group}
    return [*blocks, [(name, p) for name, p in model.named_parameters() if id(p) not in inside]]


def _named(index: int, block: torch.nn.Module) -> Weights:
    """The weights of block `index`, under names that are theirs in the whole model and in every family."""
    return [(f"block.{index}.{name}", p) for name, p in block.named_parameters()]


def _scale(weights: Weights) -> float:
    """Root mean square over the matrices among `weights`; biases and norms say nothing of a block's scale."""
    matrices = [p for _, p in weights if p.ndim >= 2]
    squares = sum(float(p.detach().float().square().sum(dtype=torch.float64)) for p in matrices)
    return math.sqrt(squares / sum(p.numel() for p in matrices))


def _passes(noise: Noise) -> list[tuple[int, int]]:
    return [(draw, sign) for draw in range(noise.draws) for sign in noise.signs]


def _batch(model: PreTrainedModel, records: Sequence[EncodedRecord], indices: Sequence[int]) -> Batch:
    return scored_only(collate(records, indices)).to(next(model.parameters()).device)


def _shards(records: Sequence[EncodedRecord], max_tokens: int, shard_tokens: int) -> Iterator[list[list[int]]]:
    """Batches in groups of at most `shard_tokens` padded tokens, at least one batch each."""
    shard: list[list[int]] = []
    held = 0
    for indices in scoring_batches(records, min(max_tokens, max(1, shard_tokens))):
        size = len(indices) * max(len(records[i].prompt) + len(records[i].response) for i in indices)
        if shard and held + size > shard_tokens:
            yield shard
            shard, held = [], 0
        shard.append(indices)
        held += size
    if shard:
        yield shard


def _seed(seed: int, draw: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{draw}/{name}".encode()).digest()[:8], "big") >> 1
