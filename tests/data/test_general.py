"""The general corpus: prose of its own, that shares nothing with the records."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections import Counter

import pytest

from kdleak.data.synthetic import generate
from kdleak.data.synthetic.general import general_documents


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(itertools.islice(general_documents(0), 2000))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def ngrams(texts: list[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(w[i : i + n]) for w in map(words, texts) for i in range(len(w) - n + 1)}


def test_it_has_next_to_no_five_words_in_common_with_the_records(texts):
    records = [f"{r.instruction}\n{r.context}\n{r.response}" for r in generate(2100, seed=0)]
    general, private = ngrams(texts, 5), ngrams(records, 5)
    assert len(general & private) / len(general) < 1e-4
    # Two halves of the records, for comparison: the measure sees a common origin.
    halves = ngrams(records[:1050], 5), ngrams(records[1050:], 5)
    assert len(halves[0] & halves[1]) / len(halves[0]) > 0.04


def test_it_states_no_private_detail(texts):
    assert not re.search(r"\d|@", " ".join(texts))


def test_a_document_follows_from_the_seed_and_its_number(texts):
    assert list(itertools.islice(general_documents(0), 10)) == texts[:10]
    assert not set(itertools.islice(general_documents(1), 200)) & set(texts)
    program = (
        "import itertools; from kdleak.data.synthetic.general import general_documents as g; "
        "print(list(itertools.islice(g(0), 5)))"
    )
    env = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == repr(texts[:5])


def test_documents_differ_and_are_clean(texts):
    assert len(set(texts)) == len(texts)
    sentences = Counter(s for text in texts for s in re.split(r"(?<=\.) ", text))
    assert max(sentences.values()) / len(texts) < 0.04
    for text in texts:
        assert not re.search(r"[{}\[\]|$]|  |\(n\)| [,.;:]|[.;,]\.|None", text)
        assert 30 <= len(words(text)) <= 180 and text.endswith(".")
        assert all(s[0].isupper() for s in re.split(r"(?<=\.) ", text))
