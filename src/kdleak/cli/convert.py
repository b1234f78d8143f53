"""`kdleak convert`: a model in pickle files made one in safetensors, which is what all other commands read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdleak.core.errors import KdleakError


def convert(
    source: Annotated[str, typer.Argument(help="A folder with weights in pickle, or a hub id: name@revision.")],
    out: Annotated[
        Path | None, typer.Argument(help="The folder to write; of a hub id, by default where the stage base looks.")
    ] = None,
) -> None:
    """Make safetensors of a model in pickle, in a process without network that reads tensors alone."""
    from kdleak.cli.project import enter_project
    from kdleak.models.convert import convert as convert_folder
    from kdleak.models.hub import model_folder

    folder = Path(source).expanduser().absolute()
    if out is None:
        if folder.is_dir():
            raise KdleakError(f"{source}: name a second folder, to which the converted model is written")
        out = enter_project().converted_from(source)
    if out.exists():
        raise KdleakError(f"{out}: is there already; name a new folder, or delete it")
    convert_folder(folder if folder.is_dir() else model_folder(source, pickle=True), out)
    typer.echo(f"convert: {out}")
