"""Batched generation with a key-value cache: prompts of unequal length, padded on the left, rows leaving as they end.

A row draws its random numbers from a stream of its own, so that what it says depends on its prompt, the weights and
its stream, and not on the rows beside it (but for rounding, which the shape of a batch changes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kdleak.core import distributed
from kdleak.core.errors import KdleakError
from kdleak.inference.forward import decoder, head

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

#: Rows that have ended are dropped once they are more than this share of the batch: dropping copies the cache.
_ENDED_SHARE = 0.2


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt.

    max_new_tokens: tokens of a response at most, EOS included.
    max_tokens:     prompt and response together at most (512 in the study).
    temperature:    of the softmax; 0 is greedy decoding.
    batch_size:     prompts that are continued side by side (results do not depend on it).
    """

    max_new_tokens: int
    max_tokens: int = 512
    temperature: float = 1.0
    batch_size: int = 64


@dataclass(frozen=True)
class TeacherMixture:
    """MiniLLM's sampler (Gu et al. 2024, section 2.2): tokens from (1 − share)·q + share·p, p the teacher's."""

    teacher: PreTrainedModel
    share: float


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    eos_id: int,
    streams: Sequence[int] | None = None,
    mixture: TeacherMixture | None = None,
) -> list[tuple[int, ...]]:
    """The responses to `prompts`, in their order: token ids, the closing EOS included where the model said it.

    `streams` seeds one random stream a prompt and is needed unless the temperature is 0. A response is cut at
    `max_new_tokens` and where prompt and response reach `max_tokens`; a prompt that leaves no room gets an empty one.
    """
    if sampling.temperature > 0 and streams is None:
        raise ValueError("sampling needs a random stream for each prompt")
    responses: list[tuple[int, ...]] = [()] * len(prompts)
    room = [min(sampling.max_new_tokens, sampling.max_tokens - len(p)) for p in prompts]
    order = sorted((i for i in range(len(prompts)) if room[i] > 0), key=lambda i: (-len(prompts[i]), i))
    models = [(model, 1.0)]
    if mixture is not None:
        models = [(model, 1 - mixture.share), (mixture.teacher, mixture.share)]
    _check_positions(models, max((len(prompts[i]) + room[i] for i in order), default=0))
    own = set(distributed.shard_by_length([len(p) for p in prompts]))
    order = [i for i in order if i in own]
    with _evaluating(models):
        for start in range(0, len(order), sampling.batch_size):
            chosen = order[start : start + sampling.batch_size]
            limits = [room[i] for i in chosen]
            uniforms = None if streams is None else _uniforms([streams[i] for i in chosen], max(limits))
            batch = [prompts[i] for i in chosen]
            for i, response in zip(
                chosen, _continue(models, batch, limits, uniforms, sampling.temperature, eos_id), strict=True
            ):
                responses[i] = response
    return _of_everyone(responses, sampling.max_new_tokens)


def _of_everyone(responses: list[tuple[int, ...]], longest: int) -> list[tuple[int, ...]]:
    """The responses that any process has written, in each of them; those of the others are empty here."""
    if distributed.size() == 1:
        return responses
    tokens, lengths = torch.zeros(len(responses), longest, dtype=torch.long), torch.zeros(len(responses)).long()
    for i, response in enumerate(responses):
        tokens[i, : len(response)], lengths[i] = torch.tensor(response, dtype=torch.long), len(response)
    distributed.all_reduce_sum_(tokens, lengths)
    return [tuple(row[:n]) for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True)]


def _continue(
    models: Sequence[tuple[PreTrainedModel, float]],
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    uniforms: torch.Tensor | None,
    temperature: float,
    eos_id: int,
) -> list[tuple[int, ...]]:
    """Continue one batch; `limits` bounds each response, `uniforms` is (n, max(limits)) in [0, 1)."""
    device = next(models[0][0].parameters()).device
    steps = max(limits)
    tokens, real = _left_padded(prompts, device)
    states = [_Decoding(m, real, steps) for m, _ in models]
    shares = [share for _, share in models]
    said: list[list[int]] = [[] for _ in prompts]
    # The rows of the batch: whose each is, or None where it has ended and not yet left.
    rows: list[int | None] = list(range(len(prompts)))
    uniforms = None if uniforms is None else uniforms.to(device)
    for step in range(steps):
        logits = [state.advance(tokens) for state in states]
        chosen = _choose(logits, shares, temperature, None if uniforms is None else uniforms[:, step])
        for i, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            if row is not None:
                said[row].append(token)
                if token == eos_id or len(said[row]) == limits[row]:
                    rows[i] = None
        running = [i for i, row in enumerate(rows) if row is not None]
        if not running:
            break
        if len(running) < (1 - _ENDED_SHARE) * len(rows):
            kept = torch.tensor(running, device=device)
            rows, chosen = [rows[i] for i in running], chosen[kept]
            uniforms = None if uniforms is None else uniforms[kept]
            for state in states:
                state.keep(kept)
        tokens = chosen[:, None]
    return [tuple(words) for words in said]


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
    probs = parts[0] if len(parts) == 1 else sum(share * x for x, share in zip(parts, shares, strict=True))
    if temperature == 0:
        return probs.argmax(-1)
    cumulative = probs.cumsum(-1)
    passed = torch.searchsorted(cumulative, u[:, None] * cumulative[:, -1:], right=True)
    return passed[:, 0].clamp_(max=cumulative.shape[-1] - 1)


class _Decoding:
    """One model's side of a batch: its cache, its mask and where each row stands."""

    def __init__(self, model: PreTrainedModel, real: torch.Tensor, steps: int):
        """`real` (n, t) says which prompt tokens are no padding; at most `steps` tokens follow them."""
        self.model, self.decoder = model, decoder(model)
        self.columns = real.shape[1]
        self.cache = _preallocated_cache(model, self.columns + steps)
        #: Position ids of the next tokens, (n, t) for the prompts, then (n, 1).
        self.positions = (real.cumsum(-1) - 1).clamp_(min=0)
        padding = torch.zeros(real.shape[0], self.columns + steps, dtype=model.dtype, device=real.device)
        padding[:, : self.columns].masked_fill_(~real, _never(model.dtype))
        #: Added to attention scores, (n, 1, 1, capacity).
        self.padding = padding[:, None, None]
        self.last_position = model.config.max_position_embeddings - 1

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed `tokens` (n, t) and return the logits that follow the last: (n, vocabulary)."""
        width = tokens.shape[1]
        mask = self.padding[..., : self.columns]
        if width > 1:
            mask = mask + _causal(width, mask.dtype, mask.device)
        states = self.decoder(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        # Only a row that has ended and not yet left can come to the end of the model's positions.
        self.positions = (self.positions[:, -1:] + 1).clamp_(max=self.last_position)
        self.columns += 1
        return head(self.model, states[:, -1])

    def keep(self, rows: torch.Tensor) -> None:
        """Keep the rows of the batch of these indices alone."""
        self.positions, self.padding = self.positions[rows], self.padding[rows]
        self.cache.batch_select_indices(rows)


def _causal(width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(width, width), added to attention scores."""
    future = torch.ones(width, width, dtype=torch.bool, device=device).triu_(1)
    return torch.zeros(width, width, dtype=dtype, device=device).masked_fill_(future, _never(dtype))


def _never(dtype: torch.dtype) -> float:
    """The score of what must not be attended to: half the least number, so that two of them still add up."""
    return torch.finfo(dtype).min / 2


def _check_positions(models: Sequence[tuple[PreTrainedModel, float]], longest: int) -> None:
    for model, _ in models:
        if longest > model.config.max_position_embeddings:
            raise KdleakError(
                f"a prompt and its response may take {longest} tokens, the model has "
                f"{model.config.max_position_embeddings} positions; lower model.max_tokens"
            )


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (n, t), and which of them are real; what stands in the padding is never attended to."""
    width = max(len(p) for p in prompts)
    tokens = torch.zeros(len(prompts), width, dtype=torch.long)
    real = torch.zeros_like(tokens, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        real[row, width - len(prompt) :] = True
    return tokens.to(device), real.to(device)


def _uniforms(streams: Sequence[int], steps: int) -> torch.Tensor:
    """(n, steps) numbers in [0, 1), each row from its own stream; a row's head does not depend on `steps`."""
    generator = torch.Generator()
    return torch.stack([torch.rand(steps, generator=generator.manual_seed(stream)) for stream in streams])


def _preallocated_cache(model: PreTrainedModel, capacity: int) -> Cache:
    """A key-value cache that is written in place; the stock one is copied whole at every token."""
    from transformers.cache_utils import Cache, DynamicLayer

    class PreallocatedLayer(DynamicLayer):
        def update(self, keys: torch.Tensor, values: torch.Tensor, *args, **kwargs):
            start = self.get_seq_length()
            if not self.is_initialized:
                self.lazy_initialization(keys, values)
                self._room = [x.new_empty((*x.shape[:2], capacity, x.shape[3])) for x in (keys, values)]
            stop = start + keys.shape[-2]
            for room, new in zip(self._room, (keys, values), strict=True):
                room[:, :, start:stop] = new
            self.keys, self.values = (room[:, :, :stop] for room in self._room)
            return self.keys, self.values

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            stop = self.get_seq_length()
            self._room = [room[indices] for room in self._room]
            self.keys, self.values = (room[:, :, :stop] for room in self._room)

    layers = model.config.get_text_config().num_hidden_layers
    return Cache(layers=[PreallocatedLayer() for _ in range(layers)])


@contextmanager
def _evaluating(models: Sequence[tuple[PreTrainedModel, float]]) -> Iterator[None]:
    """Dropout and gradients off inside; each model's mode is restored."""
    with ExitStack() as stack, torch.inference_mode():
        for model, _ in models:
            stack.callback(model.train, model.training)
            model.eval()
        yield
