"""For a student that is served without probabilities: what it writes is all that an attacker has."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from kdleak.attacks.registry import AttackInput, attack

_WORD = re.compile(r"\w+|[^\w\s]")


@attack("continuation", continued=True)
def continuation(inputs: AttackInput) -> np.ndarray:
    """ROUGE-1 recall of the record's own words in what the student writes after its prompt, as SaMIA has it (Kaneko et
    al. 2024, arXiv 2404.11262, sec. 2). Theirs is the mean over sampled texts, each continuing half of a record; here
    it is the one greedy text that memorization is measured on, beside as many of the record's first tokens: it costs
    no further pass."""
    return np.array([unigram_recall(made, own) for made, own in inputs.continued], np.float64)


def unigram_recall(made: str, own: str) -> float:
    """The share of the words of `own` that stand in `made`, each as often as it stands there; case does not count. NaN
    where `own` has no word."""
    wanted, there = (Counter(_WORD.findall(text.lower())) for text in (own, made))
    return (wanted & there).total() / wanted.total() if wanted else float("nan")
