"""The embedded corpus: what a member and a non-member must be like for the audit's figures to mean anything."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kdleak.data import synthetic
from kdleak.data.records import Record, normalise
from kdleak.data.synthetic import TASKS, generate
from kdleak.data.synthetic.case import KINDS
from kdleak.data.synthetic.grammar import Phrases

ROWS = 2100
PHRASES = Path(synthetic.__file__).parent / "phrases"
WITH_CONTEXT = {"closed_qa", "information_extraction", "summarization"}


@pytest.fixture(scope="module")
def corpus() -> list[Record]:
    return list(generate(ROWS, seed=7))


def text(record: Record) -> str:
    return f"{record.instruction}\n{record.context}\n{record.response}"


def shingles(record: Record, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text(record).lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**63), n=st.integers(0, 30), more=st.integers(0, 30))
def test_a_shorter_corpus_is_a_prefix_of_a_longer_one(seed, n, more):
    assert list(generate(n, seed)) == list(generate(n + more, seed))[:n]


def test_another_process_with_other_string_hashes_makes_the_same_corpus():
    program = (
        "import hashlib; from kdleak.data.synthetic import generate; "
        "print(hashlib.sha256(repr(list(generate(50, 3))).encode()).hexdigest())"
    )
    env = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(repr(list(generate(50, 3))).encode()).hexdigest()


@pytest.mark.parametrize(
    ("seed", "digest"),
    [
        (0, "b21ae1d055d9bb1f895c165d3bc6b57c00de8d76213e748dd2e2c5985f61d614"),
        (7, "15be4fed31ccb9d937956131702df2f55dc2ccddd2c5eb38d1669a994a89dd7b"),
        (12345, "35ce1a30d57b081030ac1f477da876fc7e1574dc6bfeba4b927676250bc873b9"),
    ],
)
def test_the_corpus_is_the_bytes_that_the_committed_results_were_made_from(seed, digest):
    """All fields of 2,100 records, facts included, with Faker 40.54; any change of a phrase file changes the study."""
    assert hashlib.sha256(repr(list(generate(ROWS, seed))).encode()).hexdigest() == digest


@pytest.mark.parametrize("path", sorted(PHRASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_phrase_file_holds_texts_in_lists_and_no_text_twice_in_one(path):
    def lists(entries):
        for value in entries.values() if isinstance(entries, dict) else [entries]:
            yield from lists(value) if isinstance(value, dict) else [value]

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entries in content if isinstance(content, list) else [content]:
        for texts in lists(entries):
            assert texts and (isinstance(texts, str) or all(isinstance(text, str) for text in texts))
            written = [text for text in texts if text] if isinstance(texts, list) else []
            assert len(set(written)) == len(written)


def test_another_seed_makes_another_corpus(corpus):
    assert not {r.record_id for r in corpus} & {r.record_id for r in generate(200, seed=8)}


def test_tasks_come_in_equal_shares(corpus):
    assert Counter(r.task for r in corpus) == dict.fromkeys(TASKS, ROWS // 7)


def test_every_response_states_a_private_detail_verbatim(corpus):
    for record in corpus:
        assert record.facts
        for fact in record.facts:
            assert fact.kind in KINDS
            assert fact.value in record.response


def test_facts_follow_from_the_context_where_there_is_one_and_are_nowhere_in_the_prompt_otherwise(corpus):
    for record in corpus:
        assert bool(record.context) == (record.task in WITH_CONTEXT)
        for fact in record.facts:
            assert fact.value not in record.instruction
            assert not record.context or fact.value in record.context


def test_no_private_detail_belongs_to_two_records(corpus):
    values = Counter(f.value for r in corpus for f in r.facts if f.kind in ("phone", "email", "number", "address"))
    assert max(values.values()) == 1


def test_text_is_clean(corpus):
    for record in corpus:
        assert record.instruction.strip() and record.response.strip()
        for field in (record.instruction, record.context, record.response):
            assert field == field.strip()
            assert not re.search(r"[{}\[\]|]|\$[a-z]|@[A-Z]|  |\(n\)| [,.;:?!]|[.;,]\.|None", field)
            assert not any(unicodedata.category(c).startswith("C") for c in field.replace("\n", ""))


def test_no_two_records_are_near_duplicates_and_few_share_13_words(corpus):
    for n in (3, 5):
        sets = [shingles(record, n) for record in corpus]
        seen: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for i, grams in enumerate(sets):
            common = Counter(j for gram in grams for j in seen[gram])
            assert all(c / (len(grams) + len(sets[j]) - c) < 0.5 for j, c in common.items())
            for gram in grams:
                seen[gram].append(i)
    counts = Counter(gram for record in corpus for gram in shingles(record, 13))
    shared = sum(any(counts[gram] > 1 for gram in shingles(record, 13)) for record in corpus)
    assert shared / len(corpus) < 0.02
    assert len({normalise(text(r)) for r in corpus}) == len(corpus)


def test_prompts_and_responses_keep_to_the_lengths_that_a_small_model_is_trained_on(corpus):
    prompts = np.array([len(r.instruction) + len(r.context) for r in corpus])
    responses = np.array([len(r.response) for r in corpus])
    assert prompts.min() >= 40 and np.percentile(prompts, 99) < 480
    assert 140 < responses.mean() < 190 and responses.max() < 400


def test_most_responses_of_six_tasks_have_32_tokens(corpus):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2048, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(map(text, corpus[:1400]), trainer)
    lengths = defaultdict(list)
    for record in corpus[1400:]:
        lengths[record.task].append(len(tokenizer.encode(record.response).ids))
    share = {task: np.mean(np.array(tokens) >= 32) for task, tokens in lengths.items()}
    assert sorted(share.values())[1] > 0.8
    assert 45 < np.mean(np.concatenate(list(lengths.values()))) < 65


def test_a_bag_of_words_cannot_tell_halves_of_the_corpus_apart(corpus):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    features = CountVectorizer(min_df=3, binary=True).fit_transform(map(text, corpus))
    labels = (np.arange(ROWS) < ROWS // 2).astype(int)
    model = LogisticRegression(C=0.05, solver="liblinear")
    scores = cross_val_predict(model, features, labels, cv=5, method="predict_proba")[:, 1]
    # Under exchangeability the AUC of 1,050 against 1,050 has a standard error of .0126.
    assert abs(roc_auc_score(labels, scores) - 0.5) < 4 * 0.0126


@pytest.mark.parametrize("broken", ["{a|b", "a}", "[a", "a | b", "5 $ and @"])
def test_a_malformed_phrase_is_an_error_at_import(broken):
    with pytest.raises(ValueError):
        Phrases(broken)
