"""One thin command a stage, run by DVC. Heavy imports stand inside the commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from kdleak.cli.project import PROJECT, read_settings, shared_settings
from kdleak.core.errors import KdleakError, nearest
from kdleak.core.times import timed

app = typer.Typer()
stage = app.command(rich_help_panel="The pipeline's stages (DVC runs them)")


def _methods() -> list[str]:
    from kdleak.distill.methods import METHODS

    return list(METHODS)


def _models() -> list[str]:
    return ["teacher", *_methods()]


Method = Annotated[str, typer.Argument(help="A technique of kd.recipes.", autocompletion=_methods)]
Model = Annotated[str, typer.Argument(help="teacher, or the technique that made the student.", autocompletion=_models)]
Measured = Annotated[str, typer.Argument(help="base, teacher, or a student's technique.", autocompletion=_models)]


@stage
def params() -> None:
    """Check params.yaml and all that it names, and fingerprint the code of every stage, before anything runs."""
    settings = read_settings()
    from kdleak.pipeline.validate import validate

    validate(settings, PROJECT)


@stage
def data() -> None:
    """Read the source, group what belongs together, draw the roles."""
    settings = read_settings()
    from kdleak.pipeline.data import write_records

    prepared = write_records(settings.data, settings.seed, PROJECT)
    counts = prepared.records["role"].value_counts().to_dict()
    typer.echo(
        f"data: {prepared.read} rows read, {prepared.filtered} filtered by length, {prepared.duplicates} duplicates; "
        + ", ".join(f"{role} {counts[role]}" for role in sorted(counts))
    )


@stage
def checks() -> None:
    """The gate: stop unless the roles are disjoint and whole."""
    settings = read_settings()
    from kdleak.pipeline.checks import run_gate

    report = run_gate(settings, PROJECT)
    typer.echo(f"checks: {len(report['expectations'])} expectations hold")


@stage
def canaries() -> None:
    """Draw the secrets that are planted in the teacher's training data, and those that they are ranked against."""
    settings = read_settings()
    from kdleak.data.canaries import write_canaries

    write_canaries(settings.canaries, settings.seed, PROJECT)


@stage
def base() -> None:
    """Train the tokenizer and pretrain teacher and student on auxiliary."""
    settings = shared_settings()
    from kdleak.pipeline.base import make_bases

    make_bases(settings, PROJECT)


@stage
def teacher() -> None:
    """Fine-tune the teacher on private."""
    settings = shared_settings()
    with timed(PROJECT, "teacher", "teacher"):
        from kdleak.pipeline.teacher import fine_tune_teacher

        fine_tune_teacher(settings, PROJECT)


@stage
def text(method: Method) -> None:
    """Let the teacher answer the public prompts, where the technique trains on its tokens."""
    settings = shared_settings()
    from kdleak.pipeline.text import write_training_text

    write_training_text(_known(method, _methods()), settings, PROJECT)


@stage
def distill(method: Method) -> None:
    """Distil a student on public (`sft`: the no-KD baseline)."""
    settings = shared_settings()
    with timed(PROJECT, "distill", _known(method, _methods())):
        from kdleak.pipeline.distill import make_student

        make_student(method, settings, PROJECT)


@stage
def measure(name: Measured) -> None:
    """Make the forward passes and continuations of a model, that judge makes figures of."""
    settings = shared_settings(measuring=True)
    with timed(PROJECT, "measure", _known(name, ["base", *_models()])):
        from kdleak.pipeline.measure import measure_model

        measure_model(name, settings, PROJECT)


@stage
def judge(name: Model) -> None:
    """Audit a model by what measure made: membership, exposure of each block, memorization, utility."""
    settings = read_settings()
    with timed(PROJECT, "judge", _known(name, _models())):
        from kdleak.pipeline.judge import judge_model

        judge_model(name, settings, PROJECT)


@stage
def control() -> None:
    """Make the student of a teacher that saw no member: what an attack finds in it, no student gave away."""
    settings = shared_settings()
    from kdleak.pipeline.control import make_control

    make_control(settings, PROJECT)


@stage
def summary() -> None:
    """Gather the headline figures of kd.method in results/metrics.json."""
    settings = read_settings()
    from kdleak.pipeline.provenance import reading_results
    from kdleak.report.headline import write_headline
    from kdleak.tracking import mlflow

    with reading_results(PROJECT):
        write_headline(settings, PROJECT)
    mlflow.log_results(PROJECT, settings, fresh=PROJECT.metrics)


@stage
def trial(method: Method, name: Annotated[str, typer.Argument(help="What it changes: rate-0.3, seed-1.")]) -> None:
    """Train and audit a student that differs from the technique's default one in one thing."""
    settings = shared_settings()
    from kdleak.pipeline.trial import run_trial

    run_trial(_known(method, _methods()), name, settings, PROJECT)


@stage
def shadow() -> None:
    """Train teachers on halves of the records, and their students, and attack each by the others."""
    settings = read_settings()
    from kdleak.models.device import CHOSEN_DEVICE
    from kdleak.pipeline.shadow import make_shadows

    os.environ[CHOSEN_DEVICE] = settings.compute.device  # of the workers too
    make_shadows(settings, PROJECT)


@stage
def defences() -> None:
    """Train and audit the models of defence.grid, and draw utility against leak of all of them."""
    settings = read_settings()
    from kdleak.models.device import CHOSEN_DEVICE
    from kdleak.pipeline.defences import make_grid

    os.environ[CHOSEN_DEVICE] = settings.compute.device  # of the workers too
    make_grid(settings, PROJECT)


@stage
def epsilon() -> None:
    """Plant canaries by a coin each, and say what ε teacher and students certify."""
    settings = read_settings()
    from kdleak.models.device import CHOSEN_DEVICE
    from kdleak.pipeline.epsilon import certify

    os.environ[CHOSEN_DEVICE] = settings.compute.device
    certify(settings, PROJECT)
    if settings.epsilon.canaries:
        from kdleak.tracking import mlflow

        mlflow.log_results(PROJECT, settings, fresh=PROJECT.epsilon_report)


@stage
def report(
    markdown: Annotated[
        Path | None,
        typer.Option(readable=False, help="Write the figures of the result files there as Markdown, and nothing else."),
    ] = None,
) -> None:
    """Write results/report.html, and the verdicts on the paper's claims in results/findings.json."""
    settings = read_settings()
    from kdleak.pipeline.provenance import reading_results

    if markdown is not None:
        from kdleak.report.study.markdown import write_markdown

        with reading_results(PROJECT):
            write_markdown(settings, PROJECT, markdown)
        typer.echo(f"results: {markdown}")
        return
    from kdleak.report.study.report import write_report
    from kdleak.tracking import mlflow

    with reading_results(PROJECT):
        write_report(settings, PROJECT)
    mlflow.log_results(PROJECT, settings, fresh=PROJECT.report)
    typer.echo(f"report: {PROJECT.report}")


def _known(name: str, valid: list[str]) -> str:
    """`name`; KdleakError names the nearest one there is where it is none of `valid`."""
    if name not in valid:
        raise KdleakError(f"no method '{name}'; {nearest(name, valid)}")
    return name
