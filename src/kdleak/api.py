"""`kdleak audit`: the audit of any distilled model, without the pipeline: no repository, no DVC, no MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdleak.auditing.lists import Records
    from kdleak.auditing.result import AuditResult


def audit(
    student: str | Path | None,
    members: Records,
    nonmembers: Records,
    *,
    teacher: str | Path | None = None,
    reference: str | Path | None = None,
    baseline: str | Path | None = None,
    pretrained: str | Path | None = None,
    teacher_pretrained: str | Path | None = None,
    population: Records | None = None,
    template: str = "auto",
    attacks: Sequence[str] | None = None,
    fpr: float = 0.01,
    quick: bool = False,
    memorization: bool = True,
    drop_overlap: bool = False,
    max_prompt_tokens: int | None = None,
    max_tokens: int | None = None,
    batch_tokens: int = 4096,
    device: str = "auto",
    seed: int = 0,
    cache: str | Path | None = None,
    logprobs: Mapping[str, str | Path] | None = None,
    endpoints: Mapping[str, str] | None = None,
    rate: float | None = None,
    learned: bool = False,
    show_text: bool = False,
    dtype: str = "fp32",
    device_map: str | None = None,
    bits: int | None = None,
    identifiers: int = 0,
    out: str | Path | None = None,
) -> AuditResult:
    """How much of its teacher's private training data a student gives away.

    student:    the model to audit: a folder as `save_pretrained` writes it (a LoRA adapter too), a GGUF file, or a hub
                id; None where `logprobs` has it.
    members:    records of the private data; nonmembers: records like them that no model has seen. A file (JSONL,
                Parquet, CSV), a DataFrame or dicts with instruction and response (and context), prompt and completion,
                messages (a chat, whose assistant turns are the responses), or text.
    teacher, baseline (the student without its teacher), reference (another architecture), pretrained (the student
                before any fine-tuning), teacher_pretrained (the teacher
                before its own), population (more records that no model has seen): each lets more be said.
    template:   auto, alpaca, chat (the tokenizer's), plain, or a text with {instruction} and {context}.
    max_prompt_tokens, max_tokens: longer prompts, and prompts with responses, are cut; by default at what the models
                can read.
    fpr:        the share of non-members that an attacker may accuse falsely, in the verdict.
    quick:      leave out the attacks that cost forward passes of their own (mope, recall, lowercase).
    cache:      a folder that keeps what forward passes gave, so that a second audit costs none.
    logprobs:   log-prob files of models that are not here (`kdleak logprobs` writes one), by name: {"student": file}.
    endpoints:  addresses of completions endpoints, by name: {"student": "http://host:8000/v1"}; the model named beside
                them is then the folder of its tokenizer. rate: requests a second, at most.
    learned:    train a shadow of `pretrained` on half of `population`, for the attack `learned`; prints its cost first.
    show_text:  make a page with the texts of the most exposed records too (exposed-texts.html; private).
    dtype, device_map, bits: precision (fp32, bf16, fp16, auto), auto to spread a model over GPUs, 8 or 4 bits.
    identifiers: rank the hash, UUID or short link of each record among so many others of its format; 0: none is looked
                for. It costs as many passes over the records that have one.
    out:        a folder for audit.json, scores.parquet and report.html (and overlap.csv, where lists overlap).

    Raises KdleakError, one line that names the remedy, for lists that overlap, models that are not safetensors, rows
    that are no records.
    """
    from kdleak.auditing.lists import OverlapError
    from kdleak.auditing.result import check_out
    from kdleak.auditing.settings import Limits, Settings
    from kdleak.auditing.standalone import run_audit
    from kdleak.models.loading import Loading

    settings = Settings(
        template=template,
        attacks=attacks,
        fpr=fpr,
        quick=quick,
        memorization=memorization,
        drop_overlap=drop_overlap,
        limits=Limits(max_prompt_tokens, max_tokens),
        batch_tokens=batch_tokens,
        device=device,
        seed=seed,
        cache=None if cache is None else Path(cache),
        loading=Loading(dtype, device_map, bits),
        rate=rate,
        learned=learned,
        show_text=show_text,
    )
    models = {
        "student": student,
        "teacher": teacher,
        "reference": reference,
        "baseline": baseline,
        "pretrained": pretrained,
        "teacher_pretrained": teacher_pretrained,
    }
    if out is not None:
        check_out(Path(out))
    try:
        result = run_audit(models, members, nonmembers, population, settings, logprobs, endpoints, identifiers)
    except OverlapError as error:
        raise (error if out is None else error.save(Path(out))) from None
    if out is not None:
        result.save(out)
    return result
