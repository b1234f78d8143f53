"""Batched generation with a key-value cache: prompts of unequal length, padded on the left, rows leaving as they end.

A row draws its random numbers from a stream of its own, so that its response depends on its prompt, the weights and
its stream, and not on the rows of its batch (but for rounding, which the shape of a batch changes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch

from kdleak.core import distributed
from kdleak.core.errors import KdleakError
from kdleak.inference.beam import beam_batch
from kdleak.inference.decode_state import DecodeState, decode_state
from kdleak.inference.decoding import Ban
from kdleak.inference.release import Release, beside, identity
from kdleak.models.architecture import positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Rows that have ended are dropped once they are more than this share of the batch: dropping copies the cache.
_ENDED_SHARE = 0.2


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt.

    max_new_tokens: tokens of a response at most, EOS included.
    max_tokens:     prompt and response together at most (512 in the study).
    temperature:    of the softmax; 0 is greedy decoding.
    batch_size:     prompts that are continued side by side (results do not depend on it).
    beams:          beginnings that a beam search keeps; 1: no search. It takes temperature 0.
    """

    max_new_tokens: int
    max_tokens: int = 512
    temperature: float = 1.0
    batch_size: int = 64
    beams: int = 1


@dataclass(frozen=True)
class TeacherMixture:
    """MiniLLM's sampler (Gu et al. 2024, section 2.2): tokens from (1 − share)·q + share·p, p what the teacher
    releases."""

    teacher: PreTrainedModel
    share: float
    release: Release = identity


@dataclass(frozen=True)
class Component:
    """A model of the mixture that tokens are drawn from, its share in it, and what it releases of its logits."""

    model: PreTrainedModel
    share: float = 1.0
    release: Release = identity

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """All that are asked: `model`, and those whose logits the release takes beside its own."""
        return self.model, *beside(self.release)


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    eos_id: int,
    streams: Sequence[int] | None = None,
    mixture: TeacherMixture | None = None,
    release: Release = identity,
) -> list[tuple[int, ...]]:
    """The responses to `prompts`, in their order: token ids, the closing EOS included where the model said it.

    `streams` seeds one random stream a prompt and is needed unless the temperature is 0. A response is cut at
    `max_new_tokens` and where prompt and response reach `max_tokens`; a prompt that leaves no room gets an empty one.
    `release` stands between the logits of `model` and the softmax.
    """
    if sampling.temperature > 0 and streams is None:
        raise ValueError("sampling needs a random stream for each prompt")
    if sampling.beams > 1 and (sampling.temperature > 0 or mixture is not None):
        raise ValueError("a beam search is of one model, at temperature 0")
    responses: list[tuple[int, ...]] = [()] * len(prompts)
    room = [min(sampling.max_new_tokens, sampling.max_tokens - len(p)) for p in prompts]
    order = sorted((i for i in range(len(prompts)) if room[i] > 0), key=lambda i: (-len(prompts[i]), i))
    components = [Component(model, 1.0, release)]
    if mixture is not None:
        teacher = Component(mixture.teacher, mixture.share, mixture.release)
        components = [Component(model, 1 - mixture.share, release), teacher]
    _check_positions(components, max((len(prompts[i]) + room[i] for i in order), default=0))
    shard = set(distributed.shard_by_length([len(p) for p in prompts]))
    order = [i for i in order if i in shard]
    with _evaluating(components):
        side_by_side = max(1, sampling.batch_size // sampling.beams)
        for start in range(0, len(order), side_by_side):
            chosen = order[start : start + side_by_side]
            limits = [room[i] for i in chosen]
            batch = [prompts[i] for i in chosen]
            if sampling.beams > 1:
                texts = beam_batch(model, release, batch, limits, eos_id, sampling.beams)
            else:
                uniforms = None if streams is None else _uniforms([streams[i] for i in chosen], max(limits))
                texts = continue_batch(components, batch, limits, eos_id, sampling.temperature, uniforms)
            for i, response in zip(chosen, texts, strict=True):
                responses[i] = response
    return _gathered(responses, sampling.max_new_tokens)


def _gathered(responses: list[tuple[int, ...]], longest: int) -> list[tuple[int, ...]]:
    """The responses that any process has written, in each of them; those of the others are empty here."""
    if distributed.size() == 1:
        return responses
    tokens, lengths = torch.zeros(len(responses), longest, dtype=torch.long), torch.zeros(len(responses)).long()
    for i, response in enumerate(responses):
        tokens[i, : len(response)], lengths[i] = torch.tensor(response, dtype=torch.long), len(response)
    distributed.all_reduce_sum_(tokens, lengths)
    return [tuple(row[:n]) for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True)]


def continue_batch(
    components: Sequence[Component],
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    eos_id: int,
    temperature: float = 0.0,
    uniforms: torch.Tensor | None = None,
    bans: Sequence[Ban] | None = None,
) -> list[tuple[int, ...]]:
    """The responses of one batch, each of `limits` tokens at most, the closing EOS included. Call it where dropout and
    gradients are off.

    components: what the tokens come from, one model or a mixture. uniforms: (n, max(limits)) in [0, 1), needed unless
    the temperature is 0. bans: what each row may not say under one model; they grow with what it says.
    """
    device = next(components[0].model.parameters()).device
    steps = max(limits)
    states = [_Released(c.release, [decode_state(m, prompts, steps) for m in c.models]) for c in components]
    shares = [c.share for c in components]
    responses: list[list[int]] = [[] for _ in prompts]
    # The rows of the batch: whose each is, or None where it has ended and not yet left.
    rows: list[int | None] = list(range(len(prompts)))
    uniforms = None if uniforms is None else uniforms.to(device)
    logits = [state.start() for state in states]
    for step in range(steps):
        if bans is not None:
            for row, i in enumerate(rows):
                logits[0][row, [] if i is None else bans[i].tokens()] = -torch.inf
        chosen = _choose(logits, shares, temperature, None if uniforms is None else uniforms[:, step])
        for place, (i, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            if i is not None:
                responses[i].append(token)
                if bans is not None:
                    bans[i].extend([token])
                if token == eos_id or len(responses[i]) == limits[i]:
                    rows[place] = None
        running = [place for place, i in enumerate(rows) if i is not None]
        if not running:
            break
        if len(running) < (1 - _ENDED_SHARE) * len(rows):
            kept = torch.tensor(running, device=device)
            rows, chosen = [rows[place] for place in running], chosen[kept]
            uniforms = None if uniforms is None else uniforms[kept]
            for state in states:
                state.keep(kept)
        logits = [state.advance(chosen) for state in states]
    return [tuple(tokens) for tokens in responses]


@dataclass(frozen=True)
class _Released:
    """What a component releases of a batch that is being continued, from the states of all models that it asks."""

    release: Release
    states: Sequence[DecodeState]

    def start(self) -> torch.Tensor:
        return self.release(*(state.start() for state in self.states))

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.release(*(state.advance(tokens) for state in self.states))

    def keep(self, rows: torch.Tensor) -> None:
        for state in self.states:
            state.keep(rows)


def _choose(
    logits: Sequence[torch.Tensor], shares: Sequence[float], temperature: float, u: torch.Tensor | None
) -> torch.Tensor:
    """One token a row from the mixture of softmaxes: the likeliest at temperature 0, else where its cumulative
    probability passes `u` (n,)."""
    if len(logits) == 1 and temperature == 0:
        return logits[0].float().argmax(-1)
    heat = temperature or 1.0
    scaled = [x.float() if heat == 1 else x.float() / heat for x in logits]
    parts = [x.softmax(-1) for x in scaled]
    probs = parts[0] if len(parts) == 1 else reduce(torch.add, (s * x for x, s in zip(parts, shares, strict=True)))
    if temperature == 0:
        return probs.argmax(-1)
    assert u is not None  # drawn wherever the temperature is above zero
    cumulative = probs.cumsum(-1)
    passed = torch.searchsorted(cumulative, u[:, None] * cumulative[:, -1:], right=True)
    return passed[:, 0].clamp_(max=cumulative.shape[-1] - 1)


def _check_positions(components: Sequence[Component], longest: int) -> None:
    limit = min(positions(model.config) for c in components for model in c.models)
    if longest > limit:
        raise KdleakError(
            f"a prompt and its response may take {longest} tokens, the model has {limit} positions; "
            "lower model.max_tokens"
        )


def _uniforms(streams: Sequence[int], steps: int) -> torch.Tensor:
    """(n, steps) numbers in [0, 1), each row from its own stream; a row's head does not depend on `steps`."""
    generator = torch.Generator()
    return torch.stack([torch.rand(steps, generator=generator.manual_seed(stream)) for stream in streams])


@contextmanager
def _evaluating(components: Sequence[Component]) -> Iterator[None]:
    """Dropout and gradients off inside; each model's mode is restored."""
    with ExitStack() as stack, torch.inference_mode():
        for model in (model for component in components for model in component.models):
            stack.callback(model.train, model.training)
            model.eval()
        yield
