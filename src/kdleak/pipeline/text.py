"""The text stage: the teacher's responses to the public prompts, for the techniques that train on its words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_parquet, write_parquet
from kdleak.data.encoding import EncodedRecord, Encoder
from kdleak.data.records import read_role
from kdleak.distill.plan import make_plan
from kdleak.distill.techniques import Text

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def write_training_text(method: str, params: Params, project: Project) -> None:
    """Write data/text/<method>.parquet: record_id and tokens of the responses that replace the references.

    A technique that learns from the references, or from what it writes itself, gets an empty table.
    """
    import pandas as pd

    rows: list[tuple[str, list[int]]] = []
    if make_plan(method, params.kd).technique.text is Text.TEACHER:
        rows = _teacher_text(params, project)
    write_parquet(pd.DataFrame(rows, columns=["record_id", "tokens"]), project.training_text(method))


def _teacher_text(params: Params, project: Project) -> list[tuple[str, list[int]]]:
    from kdleak.core.paths import TEACHER
    from kdleak.core.seeds import derive
    from kdleak.distill.rollouts import Rollouts
    from kdleak.inference.generation import Sampling
    from kdleak.models.checkpoints import load_model, load_tokenizer

    tokenizer = load_tokenizer(project.model(TEACHER))
    encoder = Encoder(tokenizer, params.model.max_prompt_tokens, params.model.max_tokens)
    records = encoder.encode_frame(read_role(project.records, "public"))
    limits = {"max_tokens": params.model.max_tokens, "batch_size": params.compute.generation_batch}
    sampling = Sampling(**params.generation.model_dump(), **limits)
    writer = Rollouts(sampling, tokenizer.eos_token_id, derive(params.seed, "teacher-text"))
    written = writer.write(load_model(project.model(TEACHER)), records, step=0)
    return [(r.record_id, list(r.response)) for r in written if r.response]


def with_teacher_text(records: Sequence[EncodedRecord], path: Path, eos_id: int) -> list[EncodedRecord]:
    """`records` with the responses in `path`; KdleakError where one is missing, so that no reference slips in."""
    from kdleak.distill.rollouts import continued

    table = read_parquet(path)
    said = {i: tuple(int(t) for t in tokens) for i, tokens in zip(table["record_id"], table["tokens"], strict=True)}
    missing = [r.record_id for r in records if r.record_id not in said]
    if missing:
        raise KdleakError(f"{path}: no response to record {missing[0][:12]}; run its stage again ('dvc repro')")
    return [continued(r, said[r.record_id], eos_id) for r in records]
