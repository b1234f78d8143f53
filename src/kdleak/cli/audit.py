"""`kdleak audit`: the options of the one command that needs no project. The work is `kdleak.api`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def audit(
    members: Annotated[Path, typer.Option(readable=False, help="Records of the private data: JSONL, Parquet or CSV.")],
    nonmembers: Annotated[Path, typer.Option(readable=False, help="Records like them that no model has seen.")],
    student: Annotated[
        str | None, typer.Option(help="The model to audit: a folder (safetensors), a GGUF file, a hub id\\[@revision].")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="The teacher, to say what the student inherited.")] = None,
    reference: Annotated[str | None, typer.Option(help="Another architecture that saw neither list.")] = None,
    baseline: Annotated[str | None, typer.Option(help="The student trained without the teacher.")] = None,
    pretrained: Annotated[str | None, typer.Option(help="The student before any fine-tuning.")] = None,
    teacher_pretrained: Annotated[str | None, typer.Option(help="The teacher before any fine-tuning.")] = None,
    population: Annotated[
        Path | None, typer.Option(readable=False, help="More records that no model has seen.")
    ] = None,
    out: Annotated[
        Path, typer.Option(readable=False, help="Folder for audit.json, scores.parquet and report.html.")
    ] = Path("kdleak-audit"),
    template: Annotated[
        str, typer.Option(help="auto, alpaca, chat, plain, or a text with {instruction} and {context}.")
    ] = "auto",
    attacks: Annotated[str | None, typer.Option(help="Attacks by name, with commas; else all that apply.")] = None,
    fpr: Annotated[float, typer.Option(help="Share of non-members that an attacker may accuse falsely.")] = 0.01,
    quick: Annotated[bool, typer.Option(help="Leave out the attacks that need passes of their own.")] = False,
    drop_overlap: Annotated[bool, typer.Option(help="Leave out records that overlap instead of refusing.")] = False,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(help="Longer prompts are cut; by default at what the models can read.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Prompt and response; what is longer is cut, by default as for prompts.")
    ] = None,
    batch_tokens: Annotated[int, typer.Option(help="Tokens in one forward pass.")] = 4096,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Models' precision: fp32, bf16, fp16, or auto as stored.")] = "fp32",
    device_map: Annotated[str | None, typer.Option(help="auto spreads a model over the GPUs here.")] = None,
    bits: Annotated[int | None, typer.Option(help="8 or 4: quantised by bitsandbytes.")] = None,
    logprobs: Annotated[
        list[str] | None, typer.Option(help="student=FILE (or another model's), what `kdleak logprobs` wrote of it.")
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="student=http://host:8000/v1, completions with echo; --student then names its tokenizer."),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second to an endpoint, at most.")] = None,
    identifiers: Annotated[
        int, typer.Option(help="Rank each record's hash, UUID or short link among so many others; 19, say.")
    ] = 0,
    learned: Annotated[
        bool, typer.Option(help="Train a shadow of --pretrained on half of --population, for the attack 'learned'.")
    ] = False,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="Write the most exposed records' texts too, into exposed-texts.html.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the controls and of MoPe's noise.")] = 0,
    cache: Annotated[
        Path | None, typer.Option(readable=False, help="Folder that keeps forward passes for a second audit.")
    ] = None,
    model_card: Annotated[
        Path | None, typer.Option(readable=False, help="File for a model card's section, in Markdown.")
    ] = None,
    fail_above: Annotated[
        list[str] | None,
        typer.Option(
            help="excess_auc=X, tpr=X, p=X or list_p=X, more than once: exit 3 where that is shown, 4 where nothing is."
        ),
    ] = None,
) -> None:
    """Audit any distilled model: how much of the private training data it gives away. Needs no project."""
    from kdleak import api
    from kdleak.auditing.gate import exit_code, read_limits
    from kdleak.auditing.result import TEXTS
    from kdleak.auditing.sources import by_role
    from kdleak.auditing.standalone import ROLES
    from kdleak.core.files import replacing_file

    failing = read_limits(fail_above or [])
    files = by_role(logprobs or [], "--logprobs", ROLES)
    served = {"endpoints": by_role(endpoint or [], "--endpoint", ROLES), "rate": rate, "logprobs": files}
    if model_card is not None:
        _check_card(model_card.absolute(), out.absolute())
    models = {"teacher": teacher, "reference": reference, "baseline": baseline, "pretrained": pretrained}
    models["teacher_pretrained"] = teacher_pretrained
    chosen = attacks.split(",") if attacks else None
    limits = {"max_prompt_tokens": max_prompt_tokens, "max_tokens": max_tokens, "batch_tokens": batch_tokens}
    options = {"template": template, "attacks": chosen, "fpr": fpr, "quick": quick, "drop_overlap": drop_overlap}
    options |= {"device": device, "seed": seed, "cache": cache, "out": out, **limits, **served}
    options |= {"learned": learned, "show_text": show_text, "identifiers": identifiers}
    options |= {"dtype": dtype, "device_map": device_map, "bits": bits}
    result = api.audit(student, members, nonmembers, population=population, **models, **options)
    typer.echo(result.verdict)
    typer.echo(f"audit: {out / 'report.html'}, {out / 'audit.json'}, {out / 'scores.parquet'}")
    if show_text:
        typer.echo(f"audit: texts of private records are in {out / TEXTS}; it is no part of the report")
    if model_card is not None:
        with replacing_file(model_card) as place:
            place.write_text(result.model_card, encoding="utf-8")
    code, lines = exit_code(result.figures, failing)
    for line in lines:
        typer.echo(line, err=code != 0)
    if code:
        raise typer.Exit(code)


def _check_card(card: Path, out: Path) -> None:
    """Refuse a model card that cannot be written, or would take the place of a result, before any pass is made."""
    from kdleak.auditing.result import FILES, check_out
    from kdleak.core.errors import KdleakError

    if (card.exists() and not card.is_file()) or card in [out / name for name in FILES]:
        raise KdleakError(f"--model-card {card.name}: no file, or one of the audit's own; name it card.md, say")
    check_out(card.parent)
