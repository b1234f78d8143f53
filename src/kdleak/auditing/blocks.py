"""`blocks.json`: how exposed the members are in each transformer block, and whether blocks differ at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak import stats
from kdleak.attacks.perturbation import Noise, PerturbationScores
from kdleak.auditing.comparisons import paired_differences
from kdleak.auditing.membership import LEVEL, groups_of
from kdleak.data.sides import MEMBER

if TYPE_CHECKING:
    import pandas as pd


def block_report(
    keys: pd.DataFrame,
    scored: Sequence[PerturbationScores],
    noise: Noise,
    baseline: pd.DataFrame | None = None,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The content of `blocks.json`.

    keys:     record_id, role, task of the scored records, in the order of the scores.
    scored:   block-wise MoPe, bottom block first; NaN for records and blocks that were not measured: left out.
    baseline: the no-KD student's block scores (columns block_0, ...): the null that a block's exposure must exceed.
    groups:   record id -> group; records of a group count as one draw.
    """
    is_member = (keys["role"] == MEMBER).to_numpy()
    perturbed = {i: block for i, block in enumerate(scored) if np.isfinite(block.scores).any()}
    columns = {f"block_{i}": block.scores for i, block in perturbed.items()}
    measured = np.isfinite([*columns.values()]).any(0)
    owners = groups_of(keys, groups)
    areas = []
    for scores in columns.values():
        kept = np.isfinite(scores)
        pair = None if owners is None else _sides(owners, kept, is_member)
        areas.append(stats.auc(*_sides(scores, kept, is_member), LEVEL, pair))
    adjusted = stats.holm([area.p_value for area in areas])
    blocks = [
        {
            "index": index,
            "auc": area.value,
            "auc_ci95": [area.low, area.high],
            "auc_monte_carlo_error": block.auc_error(is_member),
            "p_value": area.p_value,
            "p_holm": float(p),
        }
        for (index, block), area, p in zip(perturbed.items(), areas, adjusted, strict=True)
    ]
    if baseline is not None:
        differences = paired_differences(keys.assign(**columns), baseline, groups)
        for block in blocks:
            block["excess_over_no_kd"] = differences.get(f"block_{block['index']}")
    return {
        "sigma": noise.sigma,
        "relative": noise.relative,
        "antithetic": noise.antithetic,
        "n_perturbations": noise.draws * len(noise.signs),
        "n_members": int((is_member & measured).sum()),
        "n_nonmembers": int((~is_member & measured).sum()),
        "blocks": blocks,
        "spread": _spread(list(perturbed), list(columns.values()), [area.value for area in areas], is_member, owners),
    }


def _spread(
    indices: list[int],
    scores: list[np.ndarray],
    areas: list[float],
    is_member: np.ndarray,
    owners: np.ndarray | None,
) -> dict[str, Any] | None:
    """The most against the least exposed block, on the same records. The pair was picked by its difference: the
    p-value is Bonferroni-corrected for all pairs."""
    if len(scores) < 2 or not np.isfinite(areas).all():
        return None
    highest, lowest = int(np.argmax(areas)), int(np.argmin(areas))
    defined = np.isfinite(scores[highest]) & np.isfinite(scores[lowest])
    pair = [_sides(s, defined, is_member) for s in (scores[highest], scores[lowest])]
    groups = None if owners is None else _sides(owners, defined, is_member)
    difference = stats.auc_difference(pair[0], pair[1], LEVEL, groups)
    pairs = len(scores) * (len(scores) - 1) / 2
    return {
        "highest": indices[highest],
        "lowest": indices[lowest],
        "difference": difference.value,
        "ci95": [difference.low, difference.high],
        "p_corrected": min(1.0, difference.p_value * pairs),
    }


def _sides(values: np.ndarray, kept: np.ndarray, is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values[kept & is_member], values[kept & ~is_member]
