"""What every registered method keeps to; registering one is being tested here."""

from __future__ import annotations

import math
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from kdleak.core.paths import Project
from kdleak.distill.context import Context
from kdleak.distill.methods import METHODS
from kdleak.distill.recipes import recipe, run_options
from kdleak.distill.registry import Text
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.text import write_training_text
from kdleak.training import loop, run
from kdleak.training.micro_batches import micro_batches
from tests.support.counted import counted
from tests.support.distillation import made, params, untrained

every_method = pytest.mark.parametrize("method", sorted(METHODS))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return untrained(tmp_path_factory.mktemp("project"))


@pytest.fixture(autouse=True)
def baseline_stays(project):
    """The students of a few methods start from the checkpoint that training `sft` overwrites."""
    before = load_model(project.model("sft")), load_tokenizer(project.model("sft"))
    yield
    save_checkpoint(*before, project.model("sft"))


def outputs(method: str, project: Project) -> tuple[bytes, bytes]:
    return (project.model(method) / "model.safetensors").read_bytes(), project.training(method).read_bytes()


# Its options.


@every_method
def test_options_have_valid_defaults_and_bounds_and_cannot_be_changed(method):
    options = METHODS[method]()
    assert METHODS[method].model_validate(options.model_dump(exclude_none=True)) == options
    assert (options.name, bool(options.source), bool(options.loss)) == (method, True, True)
    for field in METHODS[method].model_fields:
        for wrong in (-1, math.nan, "1", [1]):
            with pytest.raises(ValidationError):
                METHODS[method].model_validate({field: wrong})
        with pytest.raises(ValidationError):
            setattr(options, field, getattr(options, field))


@every_method
def test_options_of_its_own_are_explained(method):
    inherited = {name for base in METHODS[method].__mro__[1:] for name in getattr(base, "model_fields", ())}
    described = " ".join(c.__doc__ or "" for c in METHODS[method].__mro__ if issubclass(c, METHODS[method].__base__))
    for field in METHODS[method].model_fields.keys() - inherited:
        assert field in described, f"the docstring of '{method}' says nothing of {field}"


def test_defects_of_the_published_code_are_numbered_alike_everywhere():
    sentences: dict[int, set[str]] = {}
    for method in METHODS.values():
        assert not method().defects
        for number, sentence in method().as_published().defects.items():
            sentences.setdefault(number, set()).add(sentence)
    assert {number: len(said) for number, said in sentences.items()} == dict.fromkeys(
        (1, 2, 3, 4, 7, *range(16, 23)), 1
    )


# Its training.


@every_method
def test_a_training_moves_the_student_from_where_it_is_meant_to_start(method, project):
    options = run_options(method, params().kd)
    start = load_model(project.model("sft") if options.starts_from == "sft" else project.base_student)
    record = made(method, project)
    assert record["defects"] == {} and record["protocol"] == "corrected" and record["text"] == options.text
    assert record["starts_from"] == options.starts_from and record["options"] == options.options()
    assert [entry["epoch"] for entry in record["history"]] == [1, 2]
    assert all(math.isfinite(value) for entry in record["history"] for value in entry.values())
    student = load_model(project.model(method))
    assert any(not torch.equal(a, b) for a, b in zip(student.parameters(), start.parameters(), strict=True))
    assert not project.resume(method).exists()


@every_method
def test_the_same_parameters_make_the_same_student_to_the_bit_and_so_does_a_stopped_run(method, project, monkeypatch):
    class Stopped(Exception):
        pass

    def interrupt(done: int) -> None:
        if done == 5:
            raise Stopped

    @contextmanager
    def stopping(label: str, total: int):
        yield counted(interrupt)

    baseline = load_model(project.model("sft")), load_tokenizer(project.model("sft"))
    made(method, project)
    whole = outputs(method, project)
    save_checkpoint(*baseline, project.model("sft"))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", SimpleNamespace(monotonic=count(step=100).__next__))  # saves at every step
        patch.setattr(run, "progress", stopping)
        with pytest.raises(Stopped):
            make_student(method, params(), project)
    assert project.resume(method).exists()
    make_student(method, params(), project)
    assert outputs(method, project) == whole
    assert not project.resume(method).exists()


def test_who_has_the_teacher_write(project):
    for method in METHODS:
        write_training_text(method, params(), project)
        table = pd.read_parquet(project.training_text(method))
        assert table.empty == (recipe(method, params().kd).text is not Text.TEACHER)
    write_training_text("seqkd", params(**{"kd.protocol": "as_published"}), project)
    assert pd.read_parquet(project.training_text("seqkd")).empty


# Its objective.


def built(method: str, project: Project):
    """(context, run, student in training mode, the first batch)."""
    write_training_text(method, params(), project)
    options = run_options(method, params().kd)
    start = project.model("sft") if options.starts_from == "sft" else project.base_student
    student = load_model(start).train()
    context = Context(method, params(), project, student)
    run = options.training(context)
    return context, run, student, run.batches.batch(student, 0)


@every_method
def test_a_student_writes_and_is_scored_without_dropout_and_trains_with_it(method, project):
    context, run, student, batch = built(method, project)
    assert student.training
    assert context.loaded_teacher is None or not context.loaded_teacher.training
    noisy = {run.objective(student, batch).item() for _ in range(3)}
    student.eval()
    quiet = {run.objective(student, batch).item() for _ in range(3)}
    assert len(noisy) == 3 and len(quiet) == 1


@every_method
def test_the_gradient_lowers_the_loss_and_reaches_no_teacher(method, project):
    context, run, student, batch = built(method, project)
    student.eval()
    before = run.objective(student, batch)
    before.backward()
    gradients = [p.grad for p in student.parameters()]
    assert all(g is None or g.isfinite().all() for g in gradients)
    if context.loaded_teacher is not None:
        assert all(p.grad is None and not p.requires_grad for p in context.loaded_teacher.parameters())
    size = sum(float((g**2).sum()) for g in gradients if g is not None)
    assert size > 0
    with torch.no_grad():
        for parameter, gradient in zip(student.parameters(), gradients, strict=True):
            if gradient is not None:
                parameter -= 1e-3 * gradient / size**0.5
        assert run.objective(student, batch) < before


@every_method
def test_micro_batches_give_the_gradient_of_the_batch(method, project):
    _, run, student, batch = built(method, project)
    student.eval()
    sums = []
    for parts in ([batch], micro_batches(batch, 200)):
        student.zero_grad()
        for part in parts:
            run.objective(student, part).backward()
        sums.append([p.grad for p in student.parameters()])
    assert len(parts) > 1
    for whole, summed in zip(*sums, strict=True):
        torch.testing.assert_close(summed, whole, rtol=1e-4, atol=1e-5)


# What the teacher releases is all that it hears of the teacher.


def nothing(logits: torch.Tensor) -> torch.Tensor:
    """The uniform distribution, whatever the teacher."""
    return torch.zeros_like(logits)


@every_method
def test_teachers_that_release_nothing_make_the_same_student(method, project, tmp_path):
    def students(release) -> list[bytes]:
        weights = []
        for seed, teacher in enumerate((project.model("teacher"), project.base_student)):
            other = Project(tmp_path / f"{seed}-{release.__name__}")
            (other.root / "models" / "students").mkdir(parents=True)
            (other.root / "data").mkdir()
            other.records.symlink_to(project.records)
            (other.root / "models" / "base").symlink_to(project.root / "models" / "base")
            save_checkpoint(load_model(project.model("sft")), load_tokenizer(teacher), other.model("sft"))
            save_checkpoint(load_model(teacher), load_tokenizer(teacher), other.model("teacher"))
            write_training_text(method, params(), other, release)
            make_student(method, params(), other, release)
            weights.append(outputs(method, other)[0])
        return weights

    assert len(set(students(nothing))) == 1
    if method != "sft":

        def everything(logits: torch.Tensor) -> torch.Tensor:
            return logits

        assert len(set(students(everything))) == 2
