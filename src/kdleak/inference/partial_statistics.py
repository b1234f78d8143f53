"""Token statistics of which some are unknown, as a log-prob file or an endpoint gives them."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdleak.core.errors import KdleakError
from kdleak.inference.token_statistics import TokenStatistics

_OF_TOKENS = "the log-probs of the records' tokens"
_OVER_VOCABULARY = "the mean and the deviation of log-probs over the vocabulary"
_FIRST_CHOICE = "whether each token is the model's first choice"


class PartialStatistics(TokenStatistics):
    """Statistics that may lack `log_prob`, `mean`, `std` and `missed`; `argmax` is always None.

    To read what is lacking raises a KdleakError with `origin` (who does not give it): the reason why an attack that
    reads it did not run.
    """

    def __init__(
        self,
        record_ids: np.ndarray,
        offsets: np.ndarray,
        log_prob: np.ndarray | None,
        origin: str,
        *,
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
        missed: np.ndarray | None = None,
    ):
        columns = {"log_prob": log_prob, "mean": mean, "std": std, "missed": missed}
        fields = {"record_ids": record_ids, "offsets": offsets, "argmax": None}
        for name, value in {**fields, "origin": origin, "columns": columns}.items():
            object.__setattr__(self, name, value)  # the base class is frozen

    def _column(self, name: str, words: str) -> Any:
        values: dict[str, Any] = vars(self)["columns"]
        if values[name] is None:
            raise KdleakError(f"needs {words}, which {vars(self)['origin']} does not give")
        return values[name]

    @property
    def log_prob(self) -> np.ndarray:
        return self._column("log_prob", _OF_TOKENS)

    @property
    def mean(self) -> np.ndarray:
        return self._column("mean", _OVER_VOCABULARY)

    @property
    def std(self) -> np.ndarray:
        return self._column("std", _OVER_VOCABULARY)

    @property
    def missed(self) -> np.ndarray:
        return self._column("missed", _FIRST_CHOICE)
