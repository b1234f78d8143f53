"""Claims on the cache of token statistics: exact, keyed by content, healed when damaged, bounded."""

import os
from dataclasses import fields, replace

import numpy as np
import pytest

from kdleak.inference.cache import ArrayCache, StatisticsCache, content_key
from kdleak.inference.scoring import token_statistics
from tests.support.tiny_models import random_records, tiny_model


@pytest.fixture(scope="module")
def statistics():
    return token_statistics(tiny_model(), random_records(12))


def assert_same(a, b):
    for f in fields(a):
        left, right = getattr(a, f.name), getattr(b, f.name)
        assert left.dtype.kind == right.dtype.kind and np.array_equal(left, right), f.name


def never():
    pytest.fail("computed again")


def test_statistics_survive_the_round_trip_exactly(tmp_path, statistics):
    assert_same(StatisticsCache(ArrayCache(tmp_path)).get_or_compute("a", lambda: statistics), statistics)
    assert_same(StatisticsCache(ArrayCache(tmp_path)).get_or_compute("a", never), statistics)


def test_choices_that_nobody_asked_for_are_in_no_entry(tmp_path, statistics):
    without = replace(statistics, argmax=None)
    found = StatisticsCache(ArrayCache(tmp_path)).get_or_compute("a", lambda: without)
    assert found.argmax is None and np.array_equal(found.missed, statistics.missed)
    assert set(ArrayCache(tmp_path).get("a")) == {"record_ids", "offsets", "log_prob", "mean", "std", "missed"}


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "other"])
def test_a_damaged_entry_is_discarded_and_computed_again(tmp_path, statistics, damage):
    cache = StatisticsCache(ArrayCache(tmp_path))
    for key in ("a", "b"):
        cache.get_or_compute(key, lambda: statistics)
    path = tmp_path / "a.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
    elif damage == "truncate":
        del content[-40:]
    elif damage == "empty":
        content.clear()
    else:
        content = bytearray((tmp_path / "b.safetensors").read_bytes())
    path.write_bytes(content)
    assert cache.arrays.get("a") is None and not path.exists()
    assert_same(cache.get_or_compute("a", lambda: statistics), statistics)
    assert_same(cache.get_or_compute("a", never), statistics)


def test_the_least_recently_used_entries_make_room(tmp_path):
    cache, entry = ArrayCache(tmp_path), {"x": np.zeros(1000)}
    cache.put("a", entry)
    size = (tmp_path / "a.safetensors").stat().st_size
    cache.put("b", entry)
    os.utime(tmp_path / "a.safetensors", (1, 1))
    os.utime(tmp_path / "b.safetensors", (2, 2))
    assert cache.get("a") is not None  # a use makes it the newer one
    ArrayCache(tmp_path, max_bytes=2 * size).put("c", entry)
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["a", "c"]
    ArrayCache(tmp_path, max_bytes=0).put("d", entry)
    assert [p.stem for p in tmp_path.iterdir()] == ["d"]


def test_the_key_follows_model_records_order_and_settings():
    records = random_records(5)
    last = records[-1]
    variants = [
        content_key("m", records),
        content_key("n", records),
        content_key("m", records[::-1]),
        content_key("m", records[:-1]),
        content_key("m", records, "token statistics, bfloat16"),
        content_key("m", [*records[:-1], replace(last, record_id="other")]),
        content_key("m", [*records[:-1], replace(last, prompt=(*last.prompt[:-1], last.prompt[-1] + 1))]),
        content_key("m", [*records[:-1], replace(last, n_scored=last.n_scored - 1)]),
        content_key(
            "m", [*records[:-1], replace(last, prompt=last.prompt + last.response[:1], response=last.response[1:])]
        ),
    ]
    assert len(set(variants)) == len(variants)
    assert content_key("m", random_records(5)) == variants[0]
