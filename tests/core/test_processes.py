"""Two processes find what one finds: the same scores, the same training; and only the main one leaves anything."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from kdleak.attacks.block_perturbation import block_mope
from kdleak.attacks.perturbation import Noise, mope
from kdleak.core import distributed
from kdleak.core.files import read_json, replacing_folder, write_json
from kdleak.core.paths import Project
from kdleak.core.progress import progress
from kdleak.data.batching import collate
from kdleak.data.canaries import write_canaries
from kdleak.inference.cache import ArrayCache
from kdleak.inference.generation import Sampling, generate
from kdleak.inference.greedy import greedy_continuations
from kdleak.inference.scoring import token_statistics
from kdleak.pipeline.base import make_bases
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.judge import judge_model
from kdleak.pipeline.measure import measure_model
from kdleak.pipeline.teacher import fine_tune_teacher
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import cross_entropy, evaluate
from kdleak.training.loop import Recipe, train
from kdleak.training.micro_batches import micro_batches, own_part
from tests.models.test_families import FAMILIES, project_with
from tests.models.test_families import params as params_of_families
from tests.support.counted import counted
from tests.support.distillation import params, untrained
from tests.support.forks import in_processes
from tests.support.tiny_models import random_records, tiny_model
from tests.training.test_micro_batches import fixed_batch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="its processes are forks")
RECORDS = random_records(23, seed=6)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_rank(monkeypatch, rank: int, size: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(size))


@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_every_item_is_done_by_one_process_and_the_load_is_even(size, monkeypatch):
    lengths, shares = [len(r.prompt) + len(r.response) for r in RECORDS], []
    for rank in range(size):
        as_rank(monkeypatch, rank, size)
        shares.append(distributed.shard_by_length(lengths))
    assert sorted(i for share in shares for i in share) == list(range(23))
    loads = [sum(lengths[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= 2 * max(lengths)


@pytest.mark.parametrize("size", [2, 4, 7])
def test_the_processes_parts_of_a_batch_have_its_gradient_even_where_rows_are_fewer(size, monkeypatch):
    from kdleak.training.finetune import with_corpus_loss

    model, batch, objective = tiny_model("gpt2", seed=1), fixed_batch(), with_corpus_loss(cross_entropy, 0.5)
    objective(model, batch).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for rank in range(size):
        as_rank(monkeypatch, rank, size)
        parts = micro_batches(own_part(batch), 60)
        assert all(len(p.input_ids) or p.corpus is not None for p in parts)
        for part in parts:
            objective(model, part).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def figures(rank: int = 0) -> dict[str, torch.Tensor]:
    """What every kind of pass finds, over uneven shares."""
    model, noise, options = tiny_model("gpt2", seed=2), Noise(0.5, 2), {"max_tokens": 150}
    statistics = token_statistics(model, RECORDS, **options)
    found = {name: getattr(statistics, name) for name in ("log_prob", "mean", "std", "missed", "argmax")}
    found["mope"] = mope(model, RECORDS, noise, **options).drops
    found["blocks"] = np.stack([block.drops for block in block_mope(model, RECORDS, noise, **options)])
    found["greedy"] = greedy_continuations(model, RECORDS, 0, 8, **options)
    found["loss"] = np.array([evaluate(model, RECORDS, 150)])
    said = generate(model, [r.prompt for r in RECORDS], Sampling(6, 128), 0, list(range(23)))
    found["said"] = np.array([[*row, *[-1] * (6 - len(row))] for row in said])
    one = token_statistics(model, RECORDS[:1], **options)  # fewer records than processes
    found["one"] = one.log_prob
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def test_two_processes_give_the_scores_of_one(tmp_path):
    def work(rank: int) -> None:
        save_file(figures(), tmp_path / f"{rank}.safetensors")

    in_processes(2, tmp_path, work)
    alone = figures()
    for rank in (0, 1):
        found = load_file(tmp_path / f"{rank}.safetensors")
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, equal_nan=True)


def test_each_record_is_scored_once(tmp_path, monkeypatch):
    def work(rank: int) -> None:
        seen = []
        token_statistics(tiny_model(layers=1), RECORDS, max_tokens=150, progress=seen.append)
        write_json(sum(seen), tmp_path / "main.json")
        (tmp_path / f"rank{rank}.json").write_text(str(sum(seen)))

    in_processes(2, tmp_path, work)
    done = [int((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert sum(done) == len(RECORDS) and min(done) > 0 and done[0] != done[1]
    assert json.loads((tmp_path / "main.json").read_text()) == done[0]


SETTINGS = {"kd.recipes.distillm.lr": 0.01, "kd.recipes.distillm.tolerance": 0.0, "compute.micro_batch_tokens": 250}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Without dropout, whose masks depend on how a batch is divided."""
    made = untrained(tmp_path_factory.mktemp("project"))
    for config in made.root.rglob("config.json"):
        write_json(read_json(config) | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0), config)
    return made


@pytest.mark.parametrize("method", ["kd", "gkd", "distillm", "minillm"])
def test_two_processes_make_the_student_of_one(method, project, tmp_path):
    make_student(method, params(**SETTINGS), project)
    alone, history = load_file(project.model(method) / "model.safetensors"), read_json(project.training(method))
    in_processes(2, tmp_path, lambda rank: make_student(method, params(**SETTINGS), project))
    both = load_file(project.model(method) / "model.safetensors")
    for name, weights in alone.items():
        if not name.endswith("c_attn.bias"):  # a key's bias has no gradient but rounding, which Adam scales up
            torch.testing.assert_close(both[name], weights, rtol=0, atol=1e-4)
    for one, two in zip(history["history"], read_json(project.training(method))["history"], strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-5)


def test_two_processes_with_dropout_are_resumed_in_the_same_bytes(tmp_path, monkeypatch):
    """Killed in the middle, both; each goes on with masks of its own."""
    from kdleak.training.resume import ResumeStore

    def trained(name: str, stop: int | None):
        def work(rank: int) -> None:
            def reached(done: int) -> None:
                if done == stop:
                    os._exit(0)

            model = tiny_model("gpt2", seed=1)
            model.config.resid_pdrop = 0.1
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.1
            recipe, store = Recipe(lr=1e-3, epochs=2, batch_size=4), ResumeStore(tmp_path / name, "run")
            source, options = FixedBatches(RECORDS, 4, seed=1), {"resume": store, "save_every_s": -1}
            history = train(model, source, cross_entropy, recipe, seed=1, progress=counted(reached), **options)
            if distributed.is_main():
                save_file({n: p.detach() for n, p in model.named_parameters()}, tmp_path / f"{name}.safetensors")
                write_json(history, tmp_path / f"{name}.json")

        in_processes(2, tmp_path, work)

    trained("whole", None)
    trained("killed", 7)
    assert not (tmp_path / "killed.json").exists()
    trained("killed", None)
    for suffix in ("safetensors", "json"):
        assert (tmp_path / f"whole.{suffix}").read_bytes() == (tmp_path / f"killed.{suffix}").read_bytes()


def test_only_the_main_process_writes_shows_and_keeps(tmp_path, capfd):
    def work(rank: int) -> None:
        write_json({"rank": rank}, tmp_path / f"of-{rank}.json")
        with replacing_folder(tmp_path / f"folder-{rank}") as fresh:
            (fresh / "file").write_text("x")
        ArrayCache(tmp_path / f"cache-{rank}").put("key", {"x": np.zeros(1)})
        with progress(f"process {rank}", 2, every_s=0) as advance:
            advance(loss=0.5)

    in_processes(2, tmp_path, work)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache-0", "folder-0", "of-0.json"]
    shown = capfd.readouterr().err
    assert "process 0: 1/2, 0:00 left  loss 0.5" in shown and "process 1" not in shown


def test_what_one_process_lacks_in_the_cache_both_compute(tmp_path):
    def work(rank: int) -> None:
        cache = ArrayCache(tmp_path / f"cache-{rank}", together=True)
        if rank == 0:
            cache.put("key", {"x": np.ones(1)})

        def compute() -> dict[str, np.ndarray]:
            x = np.ones(1)
            distributed.all_reduce_sum_(x)
            return {"x": x}

        assert cache.get_or_compute("key", compute)["x"] == 2

    in_processes(2, tmp_path, work)


def test_alone_nothing_is_loaded_and_nothing_changes():
    x = np.ones(3)
    distributed.all_reduce_sum_(x)
    assert (x == 1).all() and distributed.is_main() and distributed.all_agree(True) and not distributed.all_agree(False)
    batch = collate(RECORDS, [0, 1])
    assert own_part(batch) is batch
    assert not torch.distributed.is_initialized()


def test_two_processes_write_the_results_of_one(tmp_path):
    """From the bases to every audit: the same models trained from scratch, the same files of the same models."""
    settings = params_of_families(**{"model.family": "gpt2-smoke"})
    one, two = (project_with(tmp_path / name, FAMILIES) for name in ("one", "two"))

    def bases(project: Project) -> None:
        write_canaries(settings.canaries, 0, project)
        make_bases(settings, project)

    def audits(project: Project) -> None:
        for name in ("base", "teacher", "sft"):
            measure_model(name, settings, project)

    bases(one)
    in_processes(2, tmp_path, lambda rank: bases(two))
    for base in ("base_teacher", "base_student", "base_external"):
        weights = [load_file(getattr(project, base) / "model.safetensors") for project in (one, two)]
        for name, value in weights[0].items():
            if not name.endswith(("c_attn.bias", "k_proj.bias")):
                torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-4)
    fine_tune_teacher(settings, one)
    make_student("sft", settings, one)
    shutil.rmtree(two.root / "models")
    shutil.copytree(one.root / "models", two.root / "models")
    audits(one)
    in_processes(2, tmp_path, lambda rank: audits(two))
    for project in (one, two):
        for name in ("teacher", "sft"):
            judge_model(name, settings, project)
    files = {p.relative_to(one.root): p for p in (one.root / "results").rglob("*.parquet")}
    assert len(files) == 10
    for relative, path in files.items():
        pd.testing.assert_frame_equal(pd.read_parquet(two.root / relative), pd.read_parquet(path), rtol=0, atol=1e-5)
    for name in ("teacher", "sft"):
        utility, same = (read_json(project.utility(name)) for project in (one, two))
        assert same["perplexity"] == pytest.approx(utility["perplexity"], rel=1e-5)
        assert same["rouge_l"] == utility["rouge_l"]
        assert read_json(two.membership(name)).keys() == read_json(one.membership(name)).keys()
    assert not [p for p in tmp_path.rglob(".*") if p.name != ".kdleak"]
