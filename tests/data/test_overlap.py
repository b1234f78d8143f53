"""Groups and n-gram overlap of records."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdleak.data import overlap
from kdleak.data.overlap import group_ids, ngram_overlap

DOLLY = Path(__file__).resolve().parents[3] / "shared" / "data" / "databricks-dolly-15k.jsonl"
WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lim", "dor")]


def sentence(seed: int, n: int = 40) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(n))


def table(rows: list[tuple[str, str, str]], roles: list[str] | None = None) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["instruction", "context", "response"])
    return frame if roles is None else frame.assign(role=roles)


def with_words_changed(text: str, *at: int) -> str:
    words = text.split()
    for i in at:
        words[i] = "changed" + str(i)
    return " ".join(words)


def partition(frame: pd.DataFrame) -> set[frozenset[tuple]]:
    groups: dict[str, set[tuple]] = {}
    for row, group in zip(frame.itertuples(index=False), group_ids(frame), strict=True):
        groups.setdefault(group, set()).add(tuple(row))
    return {frozenset(g) for g in groups.values()}


def test_unrelated_records_stand_alone():
    frame = table([(sentence(i, 8), sentence(1000 + i), sentence(2000 + i)) for i in range(200)])
    assert len(set(group_ids(frame))) == 200


@pytest.mark.parametrize(
    "other",
    [
        ("Name the Firm", "", sentence(1)),
        ("  name \t the\nFIRM ", "", sentence(1).upper().replace(" ", "  ")),
        ("Name the Firm", "", with_words_changed(sentence(1), 20)),
        ("Name the firm, please!", "", sentence(1) + " indeed"),
    ],
    ids=["exact", "case and spacing", "one word changed", "words added"],
)
def test_a_repeated_record_joins_its_original(other):
    frame = table([("Name the Firm", "", sentence(1)), other, ("Name the Firm", "", sentence(2))])
    a, b, c = group_ids(frame)
    assert a == b != c


def test_a_shared_context_joins_records_whatever_else_they_say():
    rows = [(sentence(1), "A  Shared Context", sentence(2)), (sentence(3), "a shared context ", sentence(4))]
    a, b = group_ids(table(rows))
    assert a == b


def test_empty_contexts_join_nothing():
    a, b = group_ids(table([(sentence(1), " \n", sentence(2)), (sentence(3), "", sentence(4))]))
    assert a != b


def test_groups_join_through_a_third_record():
    bridge = (sentence(5), "context one", sentence(6))
    rows = [
        (sentence(1), "context one", sentence(2)),
        bridge,
        (with_words_changed(sentence(5), 3), "context two", sentence(6)),
        (sentence(7), "context two", sentence(8)),
    ]
    assert len(set(group_ids(table(rows)))) == 1
    assert len(set(group_ids(table([rows[0], rows[2], rows[3]])))) == 2


def test_texts_below_the_similarity_stay_apart():
    text = sentence(1, 40)
    far = with_words_changed(text, *range(0, 40, 4))
    a, b = group_ids(table([("", "", text), ("", "", far)]))
    assert a != b


@given(st.integers(0, 2**32), st.integers(0, 30))
@settings(max_examples=25, deadline=None)
def test_near_duplicates_are_those_of_the_exact_jaccard_similarity(seed, changes):
    """Against a plain computation, over pairs from alike to unlike."""
    text = sentence(seed, 60)
    other = with_words_changed(text, *random.Random(seed).sample(range(60), changes))
    a, b = ({tuple(t.split()[i : i + 2]) for i in range(59)} for t in (text, other))
    jaccard = len(a & b) / len(a | b)
    first, second = group_ids(table([("", "", text), ("", "", other)]))
    # A pair just above the bound shares no band once in 500; one below it is never joined.
    if jaccard < overlap.NEAR_DUPLICATE:
        assert first != second
    elif jaccard > overlap.NEAR_DUPLICATE + 0.05:
        assert first == second


def family_table() -> pd.DataFrame:
    """150 records in families by context and by likeness."""
    rows = []
    for i in range(50):
        text = sentence(i)
        rows += [
            (sentence(500 + i, 6), "", text),
            (sentence(500 + i, 6), "", with_words_changed(text, 7)),
            (sentence(900 + i, 6), f"context {i // 3}", sentence(700 + i)),
        ]
    return table(rows)


def test_ids_do_not_depend_on_the_order_of_rows():
    frame = family_table()
    ids = pd.Series(group_ids(frame))
    shuffled = frame.sample(frac=1, random_state=3)
    assert np.array_equal(group_ids(shuffled), ids[shuffled.index])


def test_unrelated_rows_added_change_no_id():
    frame = family_table()
    more = table([(sentence(5000 + i), "", sentence(6000 + i)) for i in range(100)])
    assert np.array_equal(group_ids(pd.concat([more, frame]))[100:], group_ids(frame))


def test_a_row_added_to_a_context_changes_no_id():
    frame = family_table()
    more = table([(sentence(5000 + i), f"context {i}", sentence(6000 + i)) for i in range(17)])
    assert np.array_equal(group_ids(pd.concat([frame, more]))[:150], group_ids(frame))


def test_many_rows_of_one_template_are_grouped_in_linear_time_and_rightly():
    """One bucket holds them all: near-duplicates are found, the rest stays apart."""
    head = sentence(1, 30)
    rows = [("", "", f"{head} {sentence(i, 20)}") for i in range(2, 1502)]
    twins = [("", "", r[2] + " end") for r in rows[:100]]
    started = time.perf_counter()
    ids = group_ids(table(rows + twins))
    assert time.perf_counter() - started < 10
    assert len(set(ids[:1500])) == 1500
    assert list(ids[1500:]) == list(ids[:100])


def test_text_in_scripts_without_spaces_is_compared_by_characters():
    text = "契約書番号は四五一二であり東京都に本社を置く会社が署名しました"
    a, b, c = group_ids(
        table([("", "", text), ("", "", text + "た"), ("", "", "全く別の文章がここにあります今日は晴れ")])
    )
    assert a == b != c


def test_odd_texts_are_grouped_without_failing():
    frame = table([("", "", ""), ("", "", ""), ("", "", "!!!"), ("", "", "\x00"), ("a", "", ""), ("b", "", "")])
    ids = group_ids(frame)
    assert ids[0] == ids[1]
    assert len(set(ids)) == 5
    assert len(group_ids(frame.iloc[:0])) == 0


def test_ngram_overlap_is_the_share_of_repeated_ngrams():
    private, other = sentence(1, 33), sentence(2, 33)
    half = " ".join(private.split()[:23] + other.split()[:10])  # 21 n-grams, 11 of them wholly in private
    rows = [("", "", private), ("", "", half), ("", "", other), ("", private, "short"), ("", "", "too short")]
    shares = ngram_overlap(table(rows, ["private", "public", "heldout", "heldout", "public"]), n=13)
    assert np.isnan(shares[0])
    assert np.isnan(shares[4])
    assert shares[1:4] == pytest.approx([11 / 21, 0, 1])


def test_ngrams_do_not_run_from_one_record_or_field_into_the_next():
    a, b = sentence(1, 20), sentence(2, 20)
    split = [("", a.split(" ", 10)[10], " ".join(b.split()[:10])), ("", "", f"{a} {b}")]
    shares = ngram_overlap(table(split, ["private", "public"]), n=13)
    assert shares[1] == 0


def test_ngram_overlap_ignores_case_and_punctuation():
    text = sentence(1, 20)
    shares = ngram_overlap(table([("", "", text), ("", "", text.upper().replace(" ", ", "))], ["private", "public"]))
    assert shares[1] == 1


def test_the_whole_of_dolly_is_grouped_within_a_minute():
    if not DOLLY.is_file():
        pytest.skip(f"{DOLLY} is not there: the timing on real data is left out")
    frame = pd.DataFrame([json.loads(line) for line in DOLLY.open(encoding="utf-8")])
    started = time.perf_counter()
    ids = group_ids(frame)
    assert time.perf_counter() - started < 60
    # 15,011 rows, 14,995 different texts, 4,112 different contexts.
    assert 14_400 < len(set(ids)) < 14_800
