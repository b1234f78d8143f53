"""Processes that share one cache folder: each gets what it would get alone, and what they leave is whole."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import kdleak
from kdleak.core.errors import KdleakError
from kdleak.inference.cache import ArrayCache
from tests.support.forks import ended, fork
from tests.support.standalone_models import model_that_knows, people, tokenizer_of

MEMBERS, NONMEMBERS = people(12, 1), people(12, 2)


def write(rows: list[dict], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_two_audits_at_once_on_one_cache_give_what_one_gives_alone(tmp_path):
    student = model_that_knows([], tmp_path / "student", tokenizer_of(NONMEMBERS))
    lists = [write(MEMBERS, tmp_path / "m.jsonl"), write(NONMEMBERS, tmp_path / "n.jsonl")]
    cache = tmp_path / "cache"

    def audit(name: str) -> None:
        torch.set_num_threads(1)
        logging.getLogger().addHandler(logging.FileHandler(tmp_path / f"{name}.log"))
        kdleak.audit(student, *lists, template="plain", out=tmp_path / name, cache=cache)

    running = {name: fork(lambda name=name: audit(name)) for name in ("first", "second")}
    kdleak.audit(student, *lists, template="plain", out=tmp_path / "alone", cache=tmp_path / "own")
    for name, process in running.items():
        assert ended(process) == 0
        said = (tmp_path / f"{name}.log").read_text()
        assert "damaged" not in said and "not kept" not in said
    for name in ("audit.json", "scores.parquet", "report.html"):
        contents = {(tmp_path / run / name).read_bytes() for run in ("alone", "first", "second")}
        assert len(contents) == 1, name
    keys = sorted(path.stem for path in (tmp_path / "own").iterdir())
    assert keys and sorted(path.stem for path in cache.iterdir()) == keys
    for key in keys:
        alone, shared = (ArrayCache(folder).get(key) for folder in (tmp_path / "own", cache))
        assert alone.keys() == shared.keys()
        assert all(np.array_equal(alone[name], shared[name]) for name in alone)


def entry(key: int) -> dict[str, np.ndarray]:
    return {"x": np.full(2000, key, np.float64), "key": np.array([key])}


def hammer(folder: Path, seed: int, max_bytes: int) -> None:
    """Read, write and damage entries in the midst of others who do so; ends with 3 where an entry is not its own."""
    generator, cache = np.random.default_rng(seed), ArrayCache(folder, max_bytes)
    for _ in range(150):
        key = int(generator.integers(6))
        found = cache.get(str(key))
        if found is None:
            cache.put(str(key), entry(key))
        elif not np.array_equal(found["x"], entry(key)["x"]):
            sys.exit(3)
        if generator.random() < 0.1:
            with suppress(FileNotFoundError):  # another has removed it meanwhile
                path = folder / f"{key}.safetensors"
                content = bytearray(path.read_bytes())
                content[-3] ^= 1
                path.with_suffix(f".{seed}").write_bytes(content)
                with contextlib.suppress(FileNotFoundError):  # removed by another, who made room
                    path.with_suffix(f".{seed}").replace(path)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("room_for", [2.5, 100])
def test_whoever_writes_removes_and_damages_entries_meanwhile_no_wrong_one_is_read(tmp_path, room_for):
    forks = multiprocessing.get_context("fork")
    arguments = [(tmp_path, seed, int(room_for * 16_300)) for seed in range(4)]
    running = [forks.Process(target=hammer, args=given) for given in arguments]
    for process in running:
        process.start()
    for process in running:
        process.join(timeout=120)
        assert process.exitcode == 0
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".safetensors"]


def test_an_audit_goes_on_without_a_cache_that_cannot_be_made(tmp_path, caplog):
    student = model_that_knows([], tmp_path / "student", tokenizer_of(NONMEMBERS))
    (tmp_path / "file").write_text("no folder")
    options = {"template": "plain", "quick": True, "memorization": False}
    result = kdleak.audit(student, MEMBERS, NONMEMBERS, cache=tmp_path / "file", **options)
    assert result.figures["membership"]["attacks"]
    assert "cache entry not kept" in caplog.text
    with pytest.raises(KdleakError, match=r"--out .*file/out: not a directory"):
        kdleak.audit(student, MEMBERS, NONMEMBERS, out=tmp_path / "file" / "out", **options)
