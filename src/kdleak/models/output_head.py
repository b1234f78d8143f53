"""Logits of hidden states, as the model's own forward makes them: the head's product in fp32, and what follows it.

Granite divides its logits, Cohere and others multiply them, Gemma 2 caps them by a tanh: `head(hidden)` alone is not
what such a model says (Transformers 5: `logits_scaling`, `logit_scale`, `final_logit_softcapping` …; HyperCLOVA X
multiplies by what Granite divides by, so the name of a setting is not enough). What follows the product is found by
comparison with the model's own forward, once a model; one that no known function explains is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F

from kdleak.core.errors import KdleakError, brief
from kdleak.models.architecture import decoder, unwrapped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Logits -> logits, elementwise and differentiable.
Transform = Callable[[torch.Tensor], torch.Tensor]

#: Settings of a configuration that scale logits, and those that cap them.
_SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier", "output_multiplier_scale")
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "softcap")
#: Tokens of the short text, and how large its greatest logit is made: a cap of 30 or 50 must be seen.
_TOKENS, _REACH = 8, 60.0
#: What our logits and the model's may differ by, as a share of `_REACH`: rounding of two sums in fp32.
_TOLERANCE = 1e-5
#: The same for hidden states, as a share of the largest: attention sums in another order over fewer tokens.
_STATE_TOLERANCE = 1e-3

_heads: WeakKeyDictionary[torch.nn.Module, Transform] = WeakKeyDictionary()


@dataclass(frozen=True)
class OutputHead:
    """The output head of a model: logits = transform(hidden @ weight.T + bias).

    weight:    (vocabulary, hidden_size), the parameter itself, so that gradients reach it.
    bias:      (vocabulary,) or None.
    transform: what the model does to the product; `identity` for GPT-2, OPT, LLaMA and most.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    transform: Transform

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """(m, hidden_size) -> (m, vocabulary) logits."""
        return self.transform(head_product(hidden, self.weight, self.bias))


def output_head(model: PreTrainedModel) -> OutputHead:
    """The head of `model`. Raises KdleakError where its own logits are no known function of its hidden states."""
    module = model.get_output_embeddings()
    if not isinstance(module, torch.nn.Linear):
        kind = "no output head" if module is None else f"a {type(module).__name__} as output head"
        raise KdleakError(f"{type(unwrapped(model)).__name__} has {kind}, kdleak needs a plain one; use another model")
    inner = unwrapped(model)
    if inner not in _heads:
        _heads[inner] = _find_transform(inner, module)
    return OutputHead(module.weight, module.bias, _heads[inner])


def output_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """The model's own logits for last hidden states, fp32 at least: (m, hidden_size) -> (m, vocabulary)."""
    return output_head(model)(hidden)


def head_product(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """hidden @ weight.T + bias in fp32 at least, under autocast too: bf16 would round a logit of 100 by up to .25."""
    dtype = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        return F.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def identity(logits: torch.Tensor) -> torch.Tensor:
    return logits


def _multiplied(factor: float, logits: torch.Tensor) -> torch.Tensor:
    return logits * factor


def _divided(divisor: float, logits: torch.Tensor) -> torch.Tensor:
    return logits / divisor


def _capped(cap: float, logits: torch.Tensor) -> torch.Tensor:
    return torch.tanh(logits / cap) * cap


def _candidates(model: PreTrainedModel) -> Iterator[Transform]:
    """What may follow the product in a model of this configuration."""
    yield identity
    config = model.config.get_text_config()
    for function, names in ((_multiplied, _SCALES), (_divided, _SCALES), (_capped, _CAPS)):
        for name in names:
            value = getattr(config, name, None)
            if isinstance(value, int | float) and value > 0:
                yield partial(function, value)


def _find_transform(model: PreTrainedModel, head: torch.nn.Linear) -> Transform:
    """The candidate that turns the head's products on a short text into the model's own logits."""
    name = type(model).__name__
    try:
        states, prefix_states, product, logits = _short_text(model, head)
    except Exception as error:  # whatever an unusual architecture stumbles over
        raise KdleakError(
            f"{name}: its forward pass fails on a short text ({brief(error)}); use another model"
        ) from None
    rounding = torch.finfo(head.weight.dtype).eps  # half precision rounds the model's own logits, and states in between
    difference = (states - prefix_states).abs().max() / states.abs().max().clamp(min=1e-6)
    if difference > max(_STATE_TOLERANCE, 8 * rounding):
        raise KdleakError(
            f"{name}: what its head reads is not what its decoder says of the text so far; use another model"
        )
    gaps = []
    for transform in _candidates(model):
        gaps.append((transform(product) - logits).abs().max().item())
        if gaps[-1] <= max(_TOLERANCE, rounding) * _REACH:
            return transform
    raise KdleakError(
        f"{name}: its own logits differ by {min(gaps):.2g} from those of its output head, in a way that kdleak does "
        "not know; use another model"
    )


@torch.no_grad()
def _short_text(model: PreTrainedModel, head: torch.nn.Linear) -> tuple[torch.Tensor, ...]:
    """(states, prefix_states, product, logits) of a text of `_TOKENS` tokens.

    states, prefix_states: (n - 2, hidden_size), what the head reads at all but the last two tokens, and what the
    decoder gives when it sees no more than these. product, logits: (n, vocabulary), the head's product and the model's
    own logits when the head reads states scaled such that the largest product is `_REACH`: so a cap is seen.
    """
    read: list[torch.Tensor] = []

    def scale(module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        states = args[0]
        largest = head_product(states, head.weight, None).abs().max()
        read.extend((states[0], states[0] * (_REACH / largest.clamp(min=1e-6)).to(states.dtype)))
        return (read[-1][None],)

    ids = torch.arange(1, 1 + _TOKENS, device=head.weight.device)[None] % head.weight.shape[0]
    training = model.training
    hook = head.register_forward_pre_hook(scale)
    try:
        with torch.autocast(ids.device.type, enabled=False):
            logits = model.eval()(input_ids=ids, use_cache=False).logits[0]
            prefix_states = decoder(model)(input_ids=ids[:, :-2], use_cache=False).last_hidden_state[0]
    finally:
        hook.remove()
        model.train(training)
    states, scaled = read
    product = head_product(scaled, head.weight, head.bias)
    return states[:-2], prefix_states, product, logits.to(product.dtype)
