"""MoPe as an attack: its settings, its passes, its score. The passes themselves: `kdleak.attacks.perturbation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks.likelihood import mean_log_prob
from kdleak.attacks.registry import AttackInput, ModelPass, PassInput, attack
from kdleak.core.progress import progress
from kdleak.core.seeds import derive

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.attacks.perturbation import Noise

#: Standard deviation and draws of the noise where `options` do not say: of all weights, and of one block's; how many
#: blocks are perturbed at most.
DEFAULTS: dict[str, dict[str, Any]] = {
    "mope": {"sigma": 0.5, "draws": 2},
    "blocks": {"sigma": 1.0, "draws": 2, "most": 12},
}
#: Records whose blocks are perturbed one by one, which on all would be half of a teacher's audit. On a thousand records
#: of the default study the teacher's blocks differ by .27 ± .02 in AUC: half of them tell the same.
BLOCK_RECORDS = 500


def noise_of(options: Mapping[str, Any], purpose: str, seed: int) -> Noise:
    """The noise of `purpose` (mope or blocks). options: `{mope: {sigma, draws}, blocks: ..., noise: corrected}`; with
    `noise: as_published` that of the study's code, which is another for models that are not `distilled`."""
    from kdleak.attacks.perturbation import Noise

    seed = derive(seed, f"noise/{purpose}")
    if options.get("noise") == "as_published":
        return Noise.as_published(distilled=purpose == "blocks" or options.get("distilled", True), seed=seed)
    fields = options.get(purpose, DEFAULTS[purpose])
    return Noise(fields["sigma"], fields["draws"], seed=seed)


def spread(blocks: int, most: int) -> list[int]:
    """The blocks that are perturbed: all, or `most` evenly spread ones, the bottom and the topmost among them."""
    return sorted({round(place) for place in np.linspace(0, blocks - 1, min(blocks, most))})


def _drops(model: PreTrainedModel, inputs: PassInput, noise: Noise, max_tokens: int, label: str) -> np.ndarray:
    from kdleak.attacks.perturbation import mope as perturbed

    with progress(label, noise.passes) as advance:
        options = {"clean": mean_log_prob(inputs.statistics), "max_tokens": max_tokens, "progress": advance}
        return perturbed(model, inputs.records, noise, **options).drops


def sampled(record_ids: Sequence[str]) -> np.ndarray:
    """Indices, ascending, of the `BLOCK_RECORDS` that come first by record id: ids are hashes, so that the sample is
    random, and the same for every model."""
    order = sorted(range(len(record_ids)), key=lambda i: record_ids[i])
    return np.sort(np.array(order[:BLOCK_RECORDS], dtype=np.int64))


def _block_settings(inputs: PassInput) -> tuple[Noise, int, int]:
    fields = inputs.options.get("blocks", DEFAULTS["blocks"])
    return noise_of(inputs.options, "blocks", inputs.seed), BLOCK_RECORDS, fields["most"]


def _block_drops(
    model: PreTrainedModel, inputs: PassInput, settings: tuple[Noise, int, int], max_tokens: int, label: str
) -> np.ndarray:
    from kdleak.attacks.block_perturbation import block_mope
    from kdleak.inference.block_forward import transformer_blocks

    chosen = sampled([r.record_id for r in inputs.records])
    records = [inputs.records[i] for i in chosen]
    noise, _, most = settings
    blocks = spread(len(transformer_blocks(model)), most)
    with progress(label, len(records) * len(blocks)) as advance:
        options = {"clean": mean_log_prob(inputs.statistics)[chosen], "max_tokens": max_tokens, "progress": advance}
        measured = np.stack([block.drops for block in block_mope(model, records, noise, blocks=blocks, **options)])
    drops = np.full((*measured.shape[:2], len(inputs.records)), np.nan)
    drops[:, :, chosen] = measured
    return drops


#: (draws, n) and (blocks, draws, n) falls of the mean log-prob when all weights, or those of one block, are perturbed;
#: of blocks NaN where the record is not `sampled`, or the block not in the `spread`.
PERTURBED = ModelPass("perturbed weights", lambda inputs: noise_of(inputs.options, "mope", inputs.seed), _drops)
PERTURBED_BLOCKS = ModelPass("perturbed blocks", _block_settings, _block_drops)


@attack("mope", passes=(PERTURBED,), draws=lambda inputs: inputs.computed[PERTURBED.name])
def mope(inputs: AttackInput) -> np.ndarray:
    """log p_theta(x) - mean_k log p_(theta + eps_k)(x), per token: how much noise in the weights takes away
    (Li et al. 2023, arXiv 2310.14369); computed by kdleak.attacks.perturbation."""
    return inputs.computed[PERTURBED.name].mean(0)
