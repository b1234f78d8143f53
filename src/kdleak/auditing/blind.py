"""The blind battery: classifiers that see the texts alone, and models that saw neither list.

Each scorer looks at one thing in which two lists may differ without any leak. It is a cross-fitted logistic regression:
a record is scored by a model that saw no record of its group. Nothing here depends on a language: words are runs of
letters, or single characters where a script has no spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak import stats

if TYPE_CHECKING:
    from scipy.sparse import spmatrix

FOLDS = 5
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+"
_PIECE = re.compile(rf"{_WORD}|[^\w\s]|\n")


def _hashed(texts: Sequence[str], **options: Any) -> spmatrix:
    from sklearn.feature_extraction.text import HashingVectorizer

    counts = HashingVectorizer(alternate_sign=False, lowercase=False, **options).transform(texts)
    return counts[:, counts.getnnz(axis=0) > 0]


def _counted(texts: Sequence[str], features: Callable[[str], Sequence[float]]) -> np.ndarray:
    """(n, 2 k) logarithms of k counts, standardised, and their squares: a list may be more uneven than the other."""
    counts = np.log1p(np.array([features(text) for text in texts], np.float64))
    width = counts.std(0)
    counts = (counts - counts.mean(0)) / np.where(width > 1e-12, width, 1.0)
    return np.hstack([counts, counts**2])


def _lengths(text: str) -> list[float]:
    return [len(text), len(re.findall(_WORD, text)), text.count("\n"), *(len(part) for part in text.split("\x1f"))]


def _cases(text: str) -> list[float]:
    words = re.findall(_WORD, text)
    initials = [word[0].isupper() for word in words]
    parts = [part.strip()[:1].isupper() for part in text.split("\x1f")]
    capitals = sum(character.isupper() for character in text)
    share = 1000 * capitals / max(1, len(text))
    return [capitals, share, sum(initials), sum(len(w) > 1 and w.isupper() for w in words), *parts]


def _arrangement(text: str) -> list[float]:
    """How often the next word comes later in the alphabet, and how often it is longer, per 100 pairs."""
    words = re.findall(_WORD, text)
    pairs = list(pairwise(words))
    later, longer = sum(a < b for a, b in pairs), sum(len(a) < len(b) for a, b in pairs)
    return [100 * later / max(1, len(pairs)), 100 * longer / max(1, len(pairs))]


def _marks(text: str) -> str:
    """The characters that are no letter or digit, with their neighbours' kinds, as words."""
    kinds = [unicodedata.category(character)[0] for character in text]
    before, after = ["-", *kinds[:-1]], [*kinds[1:], "-"]
    triples = zip(before, text, kinds, after, strict=True)
    return " ".join(f"{ord(c):x} {a}{ord(c):x}{b}" for a, c, kind, b in triples if kind in "PSZC" and c != " ")


def _shapes(text: str) -> str:
    """Each word as its kind and length, each mark as itself: what is left of a text without its vocabulary."""
    return " ".join(_shape(piece) for piece in _PIECE.findall(text))


def _shape(piece: str) -> str:
    if not piece[0].isalnum():
        return f"m{ord(piece[0]):x}"
    kind = "d" if piece.isdigit() else "U" if piece.isupper() else "T" if piece[0].isupper() else "l"
    return f"{kind}{min(len(piece), 6)}"


def _numbers(text: str) -> str:
    """Runs of digits and how long they are; runs joined by a mark (dates, decimals) as a whole too."""
    runs = re.findall(r"\d+", text)
    joined = [re.sub(r"\d", "0", run) for run in re.findall(r"\d+(?:[^\w\s]\d+)+", text)]
    counts = Counter(f"digits{len(run)}" for run in runs)
    return " ".join([*(f"n{run}" for run in runs), *(f"{name}x{min(n, 5)}" for name, n in counts.items()), *joined])


_TOKEN = {"token_pattern": r"\S+"}
#: What a text is looked at for: name -> (n, k) features of n texts, whose parts are joined by \x1f.
SCORERS: dict[str, Callable[[Sequence[str]], Any]] = {
    "words": lambda texts: _hashed([text.lower() for text in texts], token_pattern=_WORD),
    "characters": lambda texts: _hashed(texts, analyzer="char", ngram_range=(1, 3)),
    "length": lambda texts: _counted(texts, _lengths),
    "casing": lambda texts: _counted(texts, _cases),
    "numbers": lambda texts: _hashed([f"text {_numbers(text)}" for text in texts], **_TOKEN),
    "punctuation": lambda texts: _hashed([f"text {_marks(text)}" for text in texts], **_TOKEN),
    "order": lambda texts: _hashed(texts, token_pattern=_WORD, ngram_range=(2, 2), binary=True),
    "arrangement": lambda texts: _counted(texts, _arrangement),
    "shapes": lambda texts: _hashed([_shapes(text) for text in texts], ngram_range=(1, 3), **_TOKEN),
}


def blind_scores(
    texts: Sequence[str], is_member: np.ndarray, groups: np.ndarray, seed: int = 0
) -> dict[str, np.ndarray]:
    """Scorer -> (n,) scores, higher = member; empty with too few groups to make two folds.

    Scores are ranks within their fold (0 to 1), since the folds' models are not on one scale.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(FOLDS, *(len(np.unique(groups[side])) for side in (is_member, ~is_member)))
    if folds < 2:
        return {}
    order = np.argsort(groups, kind="stable")  # so that the order of the table decides nothing
    ordered: list[str] = [texts[int(i)] for i in order]
    labels, groups = is_member[order].astype(int), groups[order]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    splits = [(a, b) for a, b in splitter.split(labels, labels, groups) if len(b)]
    if any(len(np.unique(labels[train])) < 2 for train, _ in splits):
        return {}
    result = {}
    for name, features in SCORERS.items():
        table = features(ordered)
        if not table.shape[1]:
            continue
        scores = np.full(len(ordered), np.nan)
        for train, test in splits:
            model = LogisticRegression(C=10.0, class_weight="balanced", solver="liblinear", random_state=0)
            decision = model.fit(table[train], labels[train]).decision_function(table[test])
            scores[order[test]] = stats.mid_ranks(decision.round(9)) / len(test)
        result[name] = scores
    return result
