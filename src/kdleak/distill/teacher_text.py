"""The teacher's responses to the public prompts: written once, then read in place of the references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_parquet
from kdleak.distill.rollouts import Rollouts, continued
from kdleak.inference.release import Release, identity

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.data.encoding import EncodedRecord
    from kdleak.inference.generation import Sampling


def write_responses(
    teacher: PreTrainedModel,
    records: Sequence[EncodedRecord],
    sampling: Sampling,
    eos_id: int,
    seed: int,
    release: Release = identity,
) -> list[tuple[str, list[int]]]:
    """(record_id, tokens) of what the teacher answers to each prompt, drawn from what it releases."""
    written = Rollouts(sampling, eos_id, seed, release=release).write(teacher, records, step=0)
    return [(r.record_id, list(r.response)) for r in written if r.response]


def with_teacher_text(records: Sequence[EncodedRecord], path: Path, eos_id: int) -> list[EncodedRecord]:
    """`records` with the responses in `path`; KdleakError where one is missing, so that no reference slips in."""
    table = read_parquet(path)
    responses = {
        i: tuple(int(t) for t in tokens) for i, tokens in zip(table["record_id"], table["tokens"], strict=True)
    }
    missing = [r.record_id for r in records if r.record_id not in responses]
    if missing:
        raise KdleakError(f"{path}: no response to record {missing[0][:12]}; run its stage again ('dvc repro')")
    return [continued(r, responses[r.record_id], eos_id) for r in records]
