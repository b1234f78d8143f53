"""Text for the language-modelling loss: the auxiliary records, or a corpus of your own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.data.encoding import EncodedRecord, Encoder, eos_id
from kdleak.data.records import read_role
from kdleak.training.finetune import as_language_modelling

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def auxiliary_text(auxiliary: pd.DataFrame, params: Params, tokenizer: PreTrainedTokenizerBase) -> list[EncodedRecord]:
    """Rows of a records table with a loss on all of their tokens, the template's introduction left out."""
    encoder = Encoder(tokenizer, params.model.max_prompt_tokens, params.model.max_tokens - 1)
    skips = [encoder.introduction_length(context) for context in auxiliary["context"]]
    encoded = zip(encoder.encode_frame(auxiliary), skips, strict=True)
    return [as_language_modelling(record, encoder.eos_id, skip) for record, skip in encoded]


def lm_corpus(params: Params, project: Project, tokenizer: PreTrainedTokenizerBase) -> list[EncodedRecord]:
    """The records of kd.lm_corpus, with a loss on all of their tokens.

    The project's own records.parquet stands for its auxiliary role. Another file is JSON lines with a `text` each, or
    plain text with blank lines between documents; KdleakError where it repeats private records.
    """
    path, room = Path(params.kd.lm_corpus), params.model.max_tokens - 1
    if (project.root / path).resolve() == project.records.resolve():
        return auxiliary_text(read_role(project.records, "auxiliary"), params, tokenizer)
    documents = list(_documents(project.root / path))
    _refuse_private(documents, read_role(project.records, "private"), params.checks.ngram, params.checks.max_overlap)
    return [block for text in documents for block in _blocks(text, tokenizer, room)]


def _documents(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise KdleakError(f"kd.lm_corpus: {path} cannot be read as UTF-8 text; give a .txt or .jsonl file") from None
    if path.suffix != ".jsonl":
        documents = [d.strip() for d in text.split("\n\n")]
    else:
        try:
            documents = [json.loads(line)["text"].strip() for line in text.splitlines() if line.strip()]
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise KdleakError(f"kd.lm_corpus: {path}: every line must be a JSON object with a 'text'") from None
    if not any(documents):
        raise KdleakError(f"kd.lm_corpus: {path} holds no text; give one with documents in it")
    yield from filter(None, documents)


def _refuse_private(documents: list[str], private: pd.DataFrame, n: int, bound: float) -> None:
    import pandas as pd

    from kdleak.data.overlap import ngram_overlap

    corpus = pd.DataFrame({"response": documents, "context": "", "role": "corpus"})
    both = pd.concat([corpus, private[["response", "context", "role"]]], ignore_index=True)
    shared = (ngram_overlap(both, n, of=["corpus"], against=["private"])[: len(documents)] > bound).nonzero()[0]
    if len(shared):
        raise KdleakError(
            f"kd.lm_corpus: {len(shared)} documents repeat private records (the first is number {shared[0] + 1}); "
            "a student must not see them: leave them out"
        )


def _blocks(text: str, tokenizer: PreTrainedTokenizerBase, room: int) -> Iterator[EncodedRecord]:
    """`text` in pieces of at most `room` tokens, the last of which ends with EOS."""
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    end = eos_id(tokenizer)
    ids = [*ids, end]
    name = hashlib.sha256(text.encode()).hexdigest()
    for start in range(0, len(ids), room):
        yield EncodedRecord(name, (end,), tuple(ids[start : start + room]), n_scored=0)
