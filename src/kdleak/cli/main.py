"""The command line: one thin command a stage. Heavy imports stand inside the commands.

kdleak params | data | checks | canaries | base | teacher | distill METHOD
       | measure NAME | summary | rate METHOD MULTIPLIER | report           (run by DVC)
kdleak results | compare [EXPERIMENT...] | sync                             (run by people)
kdleak family NAME [SIZE]                                                   (the settings of a family)
kdleak audit --student DIR --members FILE --nonmembers FILE                 (anywhere: no project, no DVC)
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from kdleak.cli.audit import audit
from kdleak.core.distributed import RENDEZVOUS, is_main, size
from kdleak.core.errors import KdleakError
from kdleak.core.launch import say_error
from kdleak.core.paths import Project
from kdleak.core.seconds import timed_stage

if TYPE_CHECKING:
    from kdleak.config.schema import Params

app = typer.Typer(
    help="What a distilled language model gives away of its teacher's private training data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(audit)
PROJECT = Project()


def _params() -> Params:
    from kdleak.config.load import load_params

    return load_params(PROJECT.params)


def _shared() -> Params:
    """The same for a command whose work several processes may share: the one that starts them ends here."""
    from kdleak.core.launch import launch
    from kdleak.models.device import CHOSEN_DEVICE

    settings = _params()
    os.environ[CHOSEN_DEVICE] = settings.compute.device
    if settings.compute.processes > 1 and size() == 1:
        raise SystemExit(launch(settings.compute.processes))
    return settings


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["KDLEAK_DEBUG"] = "1"


@app.command()
def params() -> None:
    """Check params.yaml and all that it names, and fingerprint the code of every stage, before anything runs."""
    from kdleak.pipeline.validate import validate

    validate(_params(), PROJECT)


@app.command()
def data() -> None:
    """Read the source, group what belongs together, draw the roles."""
    from kdleak.pipeline.data import write_records

    settings = _params()
    prepared = write_records(settings.data, settings.seed, PROJECT)
    counts = prepared.records["role"].value_counts().to_dict()
    typer.echo(
        f"data: {prepared.read} rows read, {prepared.filtered} filtered by length, {prepared.duplicates} duplicates; "
        + ", ".join(f"{role} {counts[role]}" for role in sorted(counts))
    )


@app.command()
def checks() -> None:
    """The gate: stop unless the roles are disjoint and whole."""
    from kdleak.pipeline.checks import run_gate

    report = run_gate(_params(), PROJECT)
    typer.echo(f"checks: {len(report['expectations'])} expectations hold")


@app.command()
def canaries() -> None:
    """Draw the secrets that are planted in the teacher's training data, and those that they are ranked against."""
    from kdleak.data.canaries import write_canaries

    settings = _params()
    write_canaries(settings.canaries, settings.seed, PROJECT)


@app.command()
def base() -> None:
    """Train the tokenizer and pretrain teacher and student on auxiliary."""
    from kdleak.pipeline.base import make_bases

    make_bases(_shared(), PROJECT)


@app.command()
def teacher() -> None:
    """Fine-tune the teacher on private."""
    settings = _shared()
    with _tracked("teacher", "teacher"):
        from kdleak.pipeline.teacher import fine_tune_teacher

        fine_tune_teacher(settings, PROJECT)


@app.command()
def text(method: Annotated[str, typer.Argument(help="A technique of kd.recipes.")]) -> None:
    """Let the teacher answer the public prompts, where the technique trains on its words."""
    from kdleak.pipeline.text import write_training_text

    write_training_text(method, _shared(), PROJECT)


@app.command()
def distill(method: Annotated[str, typer.Argument(help="A technique of kd.recipes.")]) -> None:
    """Distil a student on public (`sft`: the No-KD baseline)."""
    settings = _shared()
    with _tracked("distill", method):
        from kdleak.pipeline.distill import make_student

        make_student(method, settings, PROJECT)


@app.command()
def measure(name: Annotated[str, typer.Argument(help="teacher, or the technique that made the student.")]) -> None:
    """Audit a model of the pipeline: membership, exposure of each block, memorization, utility."""
    settings = _shared()
    with _tracked("measure", name):
        from kdleak.pipeline.measure import measure_model

        measure_model(name, settings, PROJECT)


@app.command()
def summary() -> None:
    """Gather the headline figures of kd.method in results/metrics.json."""
    settings = _params()
    with _tracked("summary", settings.kd.method):
        from kdleak.report.headline import write_headline

        write_headline(settings, PROJECT)


@app.command()
def rate(
    method: Annotated[str, typer.Argument(help="A technique of study.methods.")],
    multiplier: Annotated[str, typer.Argument(help="An entry of study.lr_multipliers.")],
) -> None:
    """Train and audit a student at a multiple of its recipe's learning rate."""
    from kdleak.pipeline.trial import run_trial

    run_trial(method, multiplier, _shared(), PROJECT)


@app.command()
def report() -> None:
    """Write results/report.html, and the verdicts on the paper's claims in results/findings.json."""
    from kdleak.report.study.report import write_report

    write_report(_params(), PROJECT)
    typer.echo(f"report: {PROJECT.report}")


@app.command()
def results() -> None:
    """Print the figures of kd.method: teacher beside student beside No-KD."""
    from kdleak.report.headline import print_headline

    print_headline(_params(), PROJECT)


@app.command()
def compare(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="Names of DVC experiments, or revisions; by default all of HEAD.")
    ] = None,
    all_commits: Annotated[bool, typer.Option(help="Experiments of every commit, not of HEAD alone.")] = False,
) -> None:
    """Compare finished experiments and the workspace: a table here, results/comparison.csv and .md."""

    from kdleak.report.compare import compare as compare_experiments

    compare_experiments(PROJECT, experiments or (), all_commits)


@app.command()
def sync() -> None:
    """Bring MLflow up to date with the result files of this folder."""
    from kdleak.tracking import mlflow

    created = mlflow.sync(PROJECT, _params())
    typer.echo(f"sync: {created} run(s) added")


@app.command()
def family(
    name: Annotated[str, typer.Argument(help="An entry of families.yaml.")],
    size: Annotated[str | None, typer.Argument(help="A student's size; the first if left out.")] = None,
) -> None:
    """Print the settings that go with a family, for `dvc exp run $(kdleak family gpt2 large)`."""
    from kdleak.models.families import load_family

    entry = load_family(PROJECT.families, name)
    size = size or next(iter(entry.students))
    settings = {"model.family": name, "model.student": size, **entry.settings(size)}
    typer.echo(" ".join(f"-S {key}={value}" for key, value in settings.items()))


@app.command(hidden=True)
def log(stage: str, name: str) -> None:
    """Open the MLflow store, wait for a word on standard input, and log the stage; without the word, nothing."""
    from kdleak.tracking import mlflow

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stage; this process ends with it
    mlflow.prepare(PROJECT)
    if sys.stdin.readline().strip() == "done":
        mlflow.log_stage(PROJECT, _params(), stage, name)


@contextmanager
def _tracked(stage: str, name: str) -> Iterator[None]:
    """Log the stage to MLflow when the block has ended well.

    MLflow takes longer to import and to open its store than many a stage to run, so a process of its own does that
    meanwhile. It ends with this one, whatever happens: its standard input closes.
    """
    if not is_main():
        yield
        return
    command = [sys.executable, "-m", "kdleak", "log", stage, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as companion:
        yield
        companion.communicate("done\n")


def _end_with_pipeline() -> None:
    """A stage that outlives its `dvc repro` would write under the feet of the next one: let it be ended too (Linux)."""
    if ("DVC_STAGE" in os.environ or RENDEZVOUS in os.environ) and sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def main() -> None:
    """Entry point: a known failure is one line on standard error and exit code 1."""
    _end_with_pipeline()
    if not is_main():
        sys.stdout = io.StringIO()
    try:
        with timed_stage(PROJECT):
            app()
    except KdleakError as error:
        if os.environ.get("KDLEAK_DEBUG"):
            raise
        say_error(f"kdleak: error: {error}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        say_error("kdleak: stopped; the same command goes on where it was")
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get("KDLEAK_DEBUG"):
            raise
        if isinstance(error, OSError) and error.filename and error.strerror:
            say_error(f"kdleak: error: {error.filename}: {error.strerror.lower()}; mend that, then run it again")
            raise SystemExit(1) from None
        text = " ".join(str(error).split())[:200]
        say_error(f"kdleak: error: unforeseen {type(error).__name__}: {text} (kdleak --debug shows where)")
        raise SystemExit(1) from None
