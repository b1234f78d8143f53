"""Public records near private ones are left out of the transfer set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from kdleak.defend.registry import Acts, Defence, defence

if TYPE_CHECKING:
    import pandas as pd


@defence("filter_public", acts_on=Acts.TRANSFER_SET, source="as DMP chooses its set (Shejwalkar and Houmansadr 2021)")
class FilterPublic(Defence):
    """dropped: share of the public records that is left out, those of greatest similarity to a private one.

    Similarity: Jaccard, of the words and word pairs of prompt and response, to the nearest private record. The filter
    reads private records: its owner runs it, and what it leaves out tells a little of them. A student has fewer records
    and so fewer steps.
    """

    knob = "dropped"
    strengths = (0.1, 0.3, 0.5, 0.7)
    protects = "what the teacher is asked nearest to its members"
    does_not_protect = "what distant prompts draw out; no bound for any record"
    dropped: Annotated[float, Field(gt=0, lt=1)] = 0.3

    def transfer_set(self, public: pd.DataFrame, private: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Rows in the order of `public`; of equal similarity, later ones stay."""
        count = min(len(public) - 1, round(self.dropped * len(public)))
        near = np.argsort(-nearness(public, private()), kind="stable")[:count]
        return public.drop(index=public.index[near]).reset_index(drop=True)


def nearness(public: pd.DataFrame, private: pd.DataFrame) -> np.ndarray:
    """(n,) in [0, 1]: of each public row, its Jaccard similarity to the nearest private one."""
    from sklearn.feature_extraction.text import CountVectorizer

    texts = [[f"{r.instruction} {r.context} {r.response}" for r in rows.itertuples()] for rows in (public, private)]
    count = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"\w+", dtype=np.int32)
    both = count.fit_transform(texts[0] + texts[1])
    left, right = both[: len(public)], both[len(public) :]
    sizes = [np.asarray(part.sum(axis=1)).ravel() for part in (left, right)]
    nearest = np.zeros(len(public))
    for start in range(0, len(public), 256):
        rows = slice(start, start + 256)
        shared = np.asarray((left[rows] @ right.T).todense())
        union = sizes[0][rows, None] + sizes[1][None] - shared
        nearest[rows] = (shared / np.maximum(union, 1)).max(axis=1)
    return nearest
