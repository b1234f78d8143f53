"""The commands of a project that people run: its figures, experiments side by side, their conclusions, MLflow's runs,
a family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdleak.cli.project import PROJECT, enter_project, read_settings
from kdleak.core.files import json_text

if TYPE_CHECKING:
    from pandas import DataFrame

PANEL = "Your models and results"
app = typer.Typer()
command = app.command(rich_help_panel=PANEL)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.")]


@command
def results(json: AsJson = False, csv: AsCsv = False) -> None:
    """Print the figures of kd.method: teacher beside student beside the no-KD student."""
    settings = read_settings()
    from kdleak.pipeline.provenance import reading_results
    from kdleak.report.results_table import print_results, results_table

    with reading_results(PROJECT):
        if json or csv:
            _print_rows(results_table(settings, PROJECT), json)
        else:
            print_results(settings, PROJECT)


@command
def compare(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="Names of DVC experiments, or revisions; by default all of HEAD.")
    ] = None,
    all_commits: Annotated[bool, typer.Option(help="Experiments of every commit, not of HEAD alone.")] = False,
    json: AsJson = False,
    csv: AsCsv = False,
    out: Annotated[
        Path | None, typer.Option(readable=False, help="Also write the table there, FILE.csv or FILE.md.")
    ] = None,
) -> None:
    """Compare finished experiments and the workspace: figures by method, mean and deviation over seeds."""
    out = None if out is None else out.absolute()  # before the project's root becomes the working folder
    enter_project()
    from kdleak.pipeline.provenance import reading_results
    from kdleak.report.compare import compared, print_comparison, write_table

    with reading_results(PROJECT):
        found = compared(PROJECT, experiments or (), all_commits)
        if json or csv:
            _print_rows(found.table, json)
        else:
            print_comparison(found)
    if out is not None:
        write_table(found.table, out)


@command
def advise(
    max_utility_loss: Annotated[
        float, typer.Option(help="What may be lost of held-out perplexity, as a share: 0.05 accepts a twentieth.")
    ],
    method: Annotated[
        str | None, typer.Option(help="The student, as frontier.json names it; by default its first.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Name the defences that no other one beats within a loss of utility, and what each does not protect."""
    enter_project()
    from kdleak.pipeline.provenance import reading_results
    from kdleak.report.frontier import advise as advice
    from kdleak.report.frontier import print_advice, read_frontier

    with reading_results(PROJECT, PROJECT.frontier):
        found = read_frontier(PROJECT)
        kept = advice(found, max_utility_loss, method)
        if json:
            typer.echo(json_text([vars(each) for each in kept], sort_keys=False).rstrip("\n"))
        else:
            print_advice(found, kept, max_utility_loss)


@command
def verify(
    revision: Annotated[str, typer.Argument(help="The commit whose results these are compared with.")] = "HEAD",
) -> None:
    """Say whether the results here say what the committed ones say: equal verdicts, figures within tolerance."""
    enter_project()
    from kdleak.report.verify import print_verification, verified

    result = verified(PROJECT, revision)
    print_verification(result)
    raise typer.Exit(bool(result.differences))


@command
def sync() -> None:
    """Bring MLflow up to date with the result files of this folder."""
    settings = read_settings()
    from kdleak.tracking import mlflow
    from kdleak.tracking.store import students_page

    created = mlflow.sync(PROJECT, settings)
    typer.echo(f"sync: {created} run(s) added; 'mlflow ui' shows them at")
    typer.echo(students_page(PROJECT))


@command
def family(
    name: Annotated[str, typer.Argument(help="An entry of families.yaml.")],
    size: Annotated[str | None, typer.Argument(help="A student's size; the first if left out.")] = None,
) -> None:
    """Print the settings that go with a family, for `dvc exp run $(kdleak family gpt2 large)`."""
    enter_project()
    from kdleak.models.families import load_family

    entry = load_family(PROJECT.families, name)
    size = size or next(iter(entry.students))
    settings = {"model.family": name, "model.student": size, **entry.settings(size)}
    typer.echo(" ".join(f"-S {key}={value}" for key, value in settings.items()))


def _print_rows(table: DataFrame, as_json: bool) -> None:
    """A table on standard output for a program: JSON (a list of objects; null where there is no figure) or CSV."""
    text = table.to_json(orient="records", indent=2) if as_json else table.to_csv(index=False)
    typer.echo(text.rstrip("\n"))
