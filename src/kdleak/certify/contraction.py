"""What a release takes from δ by its mechanism alone, whatever teacher and questions; proofs are in docs/theory.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DETERMINISTIC = "a function of the teacher's distribution that tells some two teachers apart with certainty"
_INVERTIBLE = "invertible: the teacher's distribution can be computed from what is released"
#: Releases without a coin of their own, by the name of their defence.
_RELEASES = {"top_k": _DETERMINISTIC, "label_only": _DETERMINISTIC, "temperature": _INVERTIBLE, "blend": _INVERTIBLE}


def contraction(defence: str, knobs: Mapping[str, Any], sampled_tokens: int | None) -> dict[str, Any]:
    """{factor, why}: the student of an (ε, δ)-DP teacher is (ε, factor · δ)-DP.

    sampled_tokens: of the teacher's that a student saw, where it saw samples and no distribution; else None. A factor
    of 1 says that the mechanism proves nothing, not that nothing is lost.
    """
    if defence == "blend" and knobs["kept_shifts"] is None:
        share = knobs["base_share"]
        if share == 1:
            return {"factor": 0.0, "why": "the release is the public base alone"}
        if sampled_tokens is not None:
            why = f"{sampled_tokens} tokens, each the public base's with probability {share:g}, whoever the teacher was"
            return {"factor": sampled_blend(share, sampled_tokens), "why": why}
    if defence == "blend" and knobs["kept_shifts"] is not None:
        return {"factor": 1.0, "why": _DETERMINISTIC}
    return {"factor": 1.0, "why": _RELEASES.get(defence, "no release that changes the teacher's answers")}


def sampled_blend(base_share: float, tokens: int) -> float:
    """The coefficient of `tokens` tokens drawn from base_share · base + (1 − base_share) · teacher: all are the base's
    with probability base_share^tokens, and then they say nothing of the teacher."""
    return 1.0 - base_share**tokens
