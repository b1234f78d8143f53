"""`kdleak logprobs`: what a model says of the records, as a file that `kdleak audit --logprobs` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def logprobs(
    model: Annotated[str, typer.Option(help="A folder (safetensors), a GGUF file or a hub id\\[@revision].")],
    members: Annotated[Path, typer.Option(readable=False, help="Records of the private data: JSONL, Parquet or CSV.")],
    nonmembers: Annotated[Path, typer.Option(readable=False, help="Records like them that no model has seen.")],
    out: Annotated[Path, typer.Option(readable=False, help="The file to write, *.jsonl: as private as the records.")],
    population: Annotated[
        Path | None, typer.Option(readable=False, help="More records that no model has seen.")
    ] = None,
    template: Annotated[
        str, typer.Option(help="auto, alpaca, chat, plain, or a text with {instruction} and {context}.")
    ] = "auto",
    quick: Annotated[bool, typer.Option(help="Without the passes of attacks' own.")] = False,
    drop_overlap: Annotated[bool, typer.Option(help="Leave out records that overlap instead of refusing.")] = False,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="As the audit's.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="As the audit's.")] = None,
    batch_tokens: Annotated[int, typer.Option(help="Tokens in one forward pass.")] = 4096,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="fp32, bf16, fp16, or auto as stored.")] = "fp32",
    device_map: Annotated[str | None, typer.Option(help="auto spreads the model over the GPUs here.")] = None,
    bits: Annotated[int | None, typer.Option(help="8 or 4: quantised by bitsandbytes.")] = None,
    cache: Annotated[Path | None, typer.Option(readable=False, help="Folder that keeps forward passes.")] = None,
) -> None:
    """Write a model's log-probs of the records, to audit it elsewhere (`kdleak audit --logprobs`). Needs no project."""
    from kdleak.auditing.export import export_logprobs
    from kdleak.auditing.result import check_out
    from kdleak.auditing.settings import Limits, Settings
    from kdleak.core.errors import KdleakError
    from kdleak.models.loading import Loading

    if out.suffix != ".jsonl":
        raise KdleakError(f"--out {out}: a log-prob file's name ends in .jsonl; name it so")
    check_out(out.absolute().parent)
    options = {"template": template, "quick": quick, "drop_overlap": drop_overlap, "device": device, "cache": cache}
    limits = Limits(max_prompt_tokens, max_tokens)
    loading = Loading(dtype, device_map, bits)
    settings = Settings(**options, limits=limits, batch_tokens=batch_tokens, loading=loading)
    written = export_logprobs(model, members, nonmembers, population, settings, out)
    typer.echo(f"logprobs: {written} records -> {out}")
