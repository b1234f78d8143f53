"""The text stage: the teacher's responses to the public prompts, for the methods that train on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.files import write_parquet
from kdleak.core.seeds import derive
from kdleak.core.variants import TEACHER
from kdleak.data.encoding import Encoder
from kdleak.data.records import read_role
from kdleak.defend.choice import acting
from kdleak.defend.registry import Acts
from kdleak.distill.context import sampling
from kdleak.distill.methods.seqkd import SeqKD
from kdleak.distill.recipes import run_options
from kdleak.distill.teacher_text import write_responses
from kdleak.models.checkpoints import load_model, load_tokenizer

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.inference.release import Release


def write_training_text(method: str, params: Params, project: Project, release: Release | None = None) -> None:
    """Write data/text/<method>.parquet: record_id and tokens of the responses that replace the references.

    A method that learns from the references, or from what the student writes, gets an empty table. release: what the
    teacher gives out; None: as the defence of params.yaml has it.
    """
    import pandas as pd

    rows: list[tuple[str, list[int]]] = []
    options = run_options(method, params.kd)
    if isinstance(options, SeqKD):
        tokenizer, model = load_tokenizer(project.model(TEACHER)), load_model(project.model(TEACHER))
        encoder = Encoder(tokenizer, params.model.max_prompt_tokens, params.model.max_tokens)
        defence = acting(params, Acts.SIGNAL, Acts.TRANSFER_SET, Acts.ENSEMBLE)
        release = defence.release(project.base_teacher, project.model(TEACHER)) if release is None else release
        public = defence.transfer_set(
            read_role(project.records, "public"), lambda: read_role(project.records, "private")
        )
        records = encoder.encode_frame(public)
        seed = derive(params.seed, "teacher-text")
        how = options.sampling(sampling(params))
        rows = write_responses(model, records, how, encoder.eos_id, seed, release, options.samples)
    write_parquet(pd.DataFrame(rows, columns=["record_id", "tokens"]), project.training_text(method))
