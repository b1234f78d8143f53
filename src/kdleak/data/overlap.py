"""Which records belong together, and which repeat each other's words: groups and n-gram overlap.

Both work on hashes of word n-grams ("shingles"), computed for a whole table at once; their time and memory are linear
in the number of words. Near-duplicates are found by MinHash (Broder 1997) with locality-sensitive hashing and then
verified by the exact Jaccard similarity, so a chance collision of signatures never joins two records.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import TYPE_CHECKING

import numpy as np

from kdleak.data.records import normalise

if TYPE_CHECKING:
    import pandas as pd

#: Words of the shingles that near-duplicates are compared by, and the Jaccard similarity that makes them one group.
SHINGLE_WORDS = 2
NEAR_DUPLICATE = 0.8

# Signatures of 126 hashes in 21 bands of 6: a pair of Jaccard similarity .8 shares a band with probability .998.
_BANDS, _BAND_ROWS = 21, 6
# Pairs whose signatures agree on less than this are not worth an exact comparison (.8 less four standard deviations).
_MIN_AGREEMENT = 0.65
# A member of a bucket is compared with this many that follow it. Without a bound, rows made from one template would
# cost the square of their number; near-duplicates agree on more than one band, so they still stand side by side.
_NEIGHBOURS = 16

_MULTIPLIER = 0x9E3779B97F4A7C15

# A word is a run of letters and digits; in scripts written without spaces, a character.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def group_ids(frame: pd.DataFrame) -> np.ndarray:
    """A group id for each row of a records table, in its order: (n,) array of sha256 strings.

    Two records are in one group if they have the same normalised text, share a non-empty normalised context, or are
    near-duplicates, directly or through others. The id is the smallest key of the group's records; a record's key
    hashes its context or, without one, its text. So ids depend neither on the order of rows nor, unless it joins groups
    or brings a smaller key into one, on a row added later. Texts alone are read: `instruction`, `context`, `response`.
    """
    fields = [[normalise(text) for text in frame[name]] for name in ("instruction", "context", "response")]
    texts = ["\x1f".join(parts) for parts in zip(*fields, strict=True)]
    contexts = fields[1]
    keys = [_digest("context", c) if c else _digest("text", t) for t, c in zip(texts, contexts, strict=True)]

    groups = _UnionFind(len(texts))
    first_text: dict[str, int] = {}
    first_context: dict[str, int] = {}
    for row, (text, context) in enumerate(zip(texts, contexts, strict=True)):
        groups.join(row, first_text.setdefault(text, row))
        if context:
            groups.join(row, first_context.setdefault(context, row))

    distinct = sorted(first_text)  # sorted, so that the order of rows does not decide who is compared with whom
    rows = [first_text[text] for text in distinct]
    for a, b in _near_duplicates(distinct):
        groups.join(rows[a], rows[b])

    roots = [groups.root(row) for row in range(len(texts))]
    smallest: dict[int, str] = {}
    for root, key in zip(roots, keys, strict=True):
        smallest[root] = min(key, smallest.get(root, key))
    return np.array([smallest[root] for root in roots], dtype=object)


def ngram_overlap(
    frame: pd.DataFrame, n: int = 13, of: Sequence[str] = ("public", "heldout"), against: Sequence[str] = ("private",)
) -> np.ndarray:
    """For each row with a role in `of`, the share of its word n-grams that occur in a row with a role in `against`.

    (n_rows,) floats in [0, 1]; NaN for rows of other roles and for rows without an n-gram. The n-grams are those of the
    response and of the context, each on its own; instructions are left out, because askers' stock phrases are no leak.
    A row is not compared with itself where a role stands on both sides, but with every row of `against` together.
    """
    shingles = _shingles([*frame["response"].map(normalise), *frame["context"].map(normalise)], n, whole_if_short=False)
    rows = shingles.owner % max(len(frame), 1)
    role = frame["role"].to_numpy()
    seen = np.unique(shingles.hashes[np.isin(role, list(against))[rows]])
    counted = np.isin(role, list(of))[rows]
    repeats = counted & np.isin(shingles.hashes, seen)
    total = np.bincount(rows[counted], minlength=len(frame))
    repeated = np.bincount(rows[repeats], minlength=len(frame))
    return np.where(total > 0, repeated / np.maximum(total, 1), np.nan)


@dataclass(frozen=True)
class _Shingles:
    """Hashed n-grams of many texts. hashes: (m,) uint64; owner: (m,) index of the text, ascending."""

    hashes: np.ndarray
    owner: np.ndarray


def _shingles(texts: Iterable[str], n: int, whole_if_short: bool) -> _Shingles:
    """Hashes of all word n-grams, in order. A text of fewer words yields none, or one of the whole text if asked."""
    vocabulary: dict[str, int] = defaultdict(count().__next__)  # a new word gets the next number
    ids: list[int] = []
    ends = []
    for text in texts:
        ids.extend(map(vocabulary.__getitem__, _WORD.findall(text)))
        ends.append(len(ids))
    ends = np.array(ends, dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    lengths = ends - starts

    word_hash = np.array([_hash64(word) for word in vocabulary], dtype=np.uint64)
    words = word_hash[np.array(ids, dtype=np.int64)] if ids else np.zeros(0, np.uint64)
    # A polynomial over the n words, modulo 2**64; words past the end of a text count as 0.
    owner = np.repeat(np.arange(len(ends)), lengths)
    position = np.arange(len(words)) - starts[owner]
    hashes = np.zeros(len(words), np.uint64)
    for k in range(n):
        following = np.concatenate([words[k:], np.zeros(min(k, len(words)), np.uint64)])
        power = np.uint64(pow(_MULTIPLIER, k, 2**64))
        hashes += np.where(position + k < lengths[owner], following * power, np.uint64(0))
    kept = position + n <= lengths[owner]
    if whole_if_short:
        kept |= (position == 0) & (lengths[owner] < n)
    return _Shingles(_mix(hashes[kept]), owner[kept])


def _near_duplicates(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of indices of texts whose sets of shingles have a Jaccard similarity of at least NEAR_DUPLICATE."""
    shingles = _shingles(texts, SHINGLE_WORDS, whole_if_short=True)
    bounds = np.searchsorted(shingles.owner, np.arange(len(texts) + 1))
    sets = [np.unique(shingles.hashes[i:j]) for i, j in pairwise(bounds)]
    filled = np.array([i for i, s in enumerate(sets) if len(s)], dtype=np.int64)
    if len(filled) < 2:
        return
    signatures = _signatures([sets[i] for i in filled])
    for a, b in _candidates(signatures):
        a, b = filled[a], filled[b]
        common = len(np.intersect1d(sets[a], sets[b], assume_unique=True))
        if common >= NEAR_DUPLICATE * (len(sets[a]) + len(sets[b]) - common):
            yield int(a), int(b)


def _signatures(sets: Sequence[np.ndarray]) -> np.ndarray:
    """(n, bands * rows) MinHash signatures of sets of 64-bit hashes."""
    from datasketch import MinHash

    values = [(s >> np.uint64(32)).tolist() for s in sets]
    sketches = MinHash.generator(values, num_perm=_BANDS * _BAND_ROWS, seed=1, hashfunc=int)
    return np.stack([sketch.hashvalues for sketch in sketches])


def _candidates(signatures: np.ndarray) -> np.ndarray:
    """(m, 2) pairs of rows that share a band of their signatures and agree on enough of the rest."""
    bands = np.zeros((len(signatures), _BANDS), np.uint64)
    for i in range(_BAND_ROWS):
        bands = _mix(bands + signatures[:, i::_BAND_ROWS].astype(np.uint64))
    pairs = [np.zeros((0, 2), np.int64)]
    for band in range(_BANDS):
        # Inside a bucket the two next bands decide the order: the more alike, the nearer.
        order = np.lexsort([bands[:, (band + k) % _BANDS] for k in (2, 1, 0)])
        ordered = bands[order, band]
        for step in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            same = np.flatnonzero(ordered[:-step] == ordered[step:])
            if not len(same):
                break
            pairs.append(np.sort(np.stack([order[same], order[same + step]], axis=1), axis=1))
    bucket_pairs = np.unique(np.concatenate(pairs), axis=0)
    agreement = np.concatenate(
        [(signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1) for part in _parts(bucket_pairs)]
        or [np.zeros(0)]
    )
    return bucket_pairs[agreement >= _MIN_AGREEMENT]


def _parts(pairs: np.ndarray, size: int = 100_000) -> Iterator[np.ndarray]:
    return (pairs[i : i + size] for i in range(0, len(pairs), size))


class _UnionFind:
    """Disjoint sets of 0..n-1, joined in nearly constant time (path halving)."""

    def __init__(self, n: int):
        self.parent = list(range(n))

    def root(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        i, j = self.root(i), self.root(j)
        self.parent[max(i, j)] = min(i, j)


def _digest(kind: str, text: str) -> str:
    return hashlib.sha256(f"{kind}\x1f{text}".encode("utf-8", "surrogatepass")).hexdigest()


def _hash64(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mix(h: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers whose every output bit depends on every input bit (MurmurHash3's finalizer)."""
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))
