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
    samples: int = 1,
) -> list[tuple[str, list[int]]]:
    """(record_id, tokens) of what the teacher answers to each prompt, `samples` times, drawn from what it releases."""
    rollouts = Rollouts(sampling, eos_id, seed, release=release)
    written = [r for draw in range(samples) for r in rollouts.write(teacher, records, step=draw)]
    return [(r.record_id, list(r.response)) for r in written if r.response]


def with_teacher_text(records: Sequence[EncodedRecord], path: Path, eos_id: int) -> list[EncodedRecord]:
    """`records` with the responses in `path`, each as often as it has some; KdleakError where one has none, so that no
    reference slips in."""
    table = read_parquet(path)
    responses: dict[str, list[tuple[int, ...]]] = {}
    for i, tokens in zip(table["record_id"], table["tokens"], strict=True):
        responses.setdefault(i, []).append(tuple(int(t) for t in tokens))
    missing = [r.record_id for r in records if r.record_id not in responses]
    if missing:
        raise KdleakError(f"{path}: no response to record {missing[0][:12]}; run its stage again ('dvc repro')")
    return [continued(r, response, eos_id) for r in records for response in responses[r.record_id]]
