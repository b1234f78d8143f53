"""A smaller model made of some blocks of a larger one, the usual way to make a student (Gromov et al. 2024, arXiv
2403.17887): embeddings, final norm and head stay, the blocks that are left stand on each other."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: The number of a block in a parameter's name: GPT-2's `transformer.h.3.`, OPT's `model.decoder.layers.3.`.
_BLOCK = re.compile(r"\.(\d+)\.")


def pruned(model: PreTrainedModel, keep: Sequence[int]) -> PreTrainedModel:
    """A new model of the blocks `keep` of `model`, in that order, counted from 0 at the bottom.

    Raises KdleakError for a block that the model has not.
    """
    config: Any = copy.deepcopy(model.config)
    layers = config.num_hidden_layers
    if max(keep) >= layers:
        raise KdleakError(
            f"families.yaml: prune.keep: no block {max(keep)}; a {type(model).__name__} of {layers} has 0 to "
            f"{layers - 1}"
        )
    config.num_hidden_layers = len(keep)
    if getattr(config, "layer_types", None) is not None:  # a kind of attention a layer (Qwen, Gemma)
        config.layer_types = [config.layer_types[block] for block in keep]
    smaller = type(model)(config)
    places = {block: place for place, block in enumerate(keep)}
    smaller.load_state_dict(
        {_renamed(name, places): tensor for name, tensor in model.state_dict().items() if _is_kept(name, places)}
    )
    return smaller.eval()


def _is_kept(name: str, places: dict[int, int]) -> bool:
    found = _BLOCK.search(name)
    return found is None or int(found[1]) in places


def _renamed(name: str, places: dict[int, int]) -> str:
    return _BLOCK.sub(lambda found: f".{places[int(found[1])]}.", name, count=1)
