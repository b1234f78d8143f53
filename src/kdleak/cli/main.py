"""The command line: `kdleak audit` anywhere, the other commands in a project. What fails is one line.

kdleak audit --student DIR --members FILE --nonmembers FILE    anywhere: no project, no DVC   (cli/audit.py)
kdleak results | compare | advise | verify | sync | family     a project's figures            (cli/results.py)
kdleak logprobs --model DIR ... --out FILE                     the same model's log-prob file (cli/logprobs.py)
kdleak convert SOURCE [FOLDER]                                 a model in pickle, to safetensors (cli/convert.py)
kdleak params | data | checks | base | teacher | distill ...   the pipeline, run by DVC       (cli/pipeline.py)
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from typing import Annotated

import typer

from kdleak.cli import pipeline, results
from kdleak.cli.audit import audit
from kdleak.cli.convert import convert
from kdleak.cli.logprobs import logprobs
from kdleak.core.distributed import RENDEZVOUS, is_main
from kdleak.core.errors import KdleakError, place_of, traceback_of
from kdleak.core.launch import say_error
from kdleak.core.version import __version__

#: `--debug` and `--show-text`, for this process and those that it starts.
_DEBUG, _SHOW_TEXT = "KDLEAK_DEBUG", "KDLEAK_SHOW_TEXT"
app = typer.Typer(
    help="What a distilled language model gives away of its teacher's private training data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command(rich_help_panel=results.PANEL)(audit)
app.command(rich_help_panel=results.PANEL)(logprobs)
app.command(rich_help_panel=results.PANEL)(convert)
app.add_typer(results.app)
app.add_typer(pipeline.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kdleak {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="With --debug: exceptions' texts too, which may quote private records.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if debug:
        os.environ[_DEBUG] = "1"
    if show_text:
        os.environ[_SHOW_TEXT] = "1"


def _end_with_pipeline() -> None:
    """A stage that outlives its `dvc repro` would write under the feet of the next one: let it be ended too (Linux)."""
    if ("DVC_STAGE" in os.environ or RENDEZVOUS in os.environ) and sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def main() -> None:
    """Entry point: a known failure is one line on standard error and exit code 1."""
    _end_with_pipeline()
    gc.set_threshold(50_000)  # importing torch and transformers makes a million objects, and no garbage
    if not is_main():
        sys.stdout = io.StringIO()
    try:
        app()
    except KeyboardInterrupt:
        say_error("kdleak: stopped; the same command goes on where it was")
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get(_DEBUG):
            print(traceback_of(error, show_text=bool(os.environ.get(_SHOW_TEXT))), file=sys.stderr)
        say_error(f"kdleak: error: {_line(error)}")
        raise SystemExit(1) from None


def _line(error: Exception) -> str:
    """What a user reads of `error`. An unforeseen one is named by its type and place: its text may quote a record."""
    if isinstance(error, KdleakError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or place_of(error)  # a file that was opened well and fails as it is read has no name
        return str(KdleakError(f"{where}: {error.strerror.lower()}; mend that, then run it again"))
    return f"unforeseen {type(error).__name__} at {place_of(error)} (kdleak --debug shows the way there)"
