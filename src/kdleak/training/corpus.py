"""Text for the language-modelling loss: the auxiliary records, or a corpus of your own."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
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


#: Documents of a file that are read, checked and tokenised together.
DOCUMENTS = 1000
#: Characters from which on a document of plain text is cut.
LONGEST = 100_000


def auxiliary_text(auxiliary: pd.DataFrame, params: Params, tokenizer: PreTrainedTokenizerBase) -> list[EncodedRecord]:
    """Rows of a records table with a loss on all of their tokens, the template's introduction left out."""
    encoder = Encoder(tokenizer, params.model.max_prompt_tokens, params.model.max_tokens - 1)
    skips = [encoder.introduction_length(context) for context in auxiliary["context"]]
    encoded = zip(encoder.encode_frame(auxiliary), skips, strict=True)
    return [as_language_modelling(record, encoder.eos_id, skip) for record, skip in encoded]


def lm_corpus(params: Params, project: Project, tokenizer: PreTrainedTokenizerBase, most: int) -> list[EncodedRecord]:
    """The records of kd.lm_corpus, with a loss on all of their tokens.

    The project's own records.parquet stands for its auxiliary role. Another file is JSON lines with a `text` each, or
    plain text with blank lines between documents. It is read only as far as `most` records need, a few documents at a
    time; KdleakError where these repeat private records.
    """
    path, room = Path(params.kd.lm_corpus), params.model.max_tokens - 1
    if (project.root / path).resolve() == project.records.resolve():
        return auxiliary_text(read_role(project.records, "auxiliary"), params, tokenizer)
    private = read_role(project.records, "private")
    blocks: list[EncodedRecord] = []
    documents, read = _documents(project.root / path), 0
    while len(blocks) < most and (some := list(itertools.islice(documents, DOCUMENTS))):
        _refuse_private(some, private, params.checks.ngram, params.checks.max_overlap, read)
        read += len(some)
        blocks += [block for text in some for block in _blocks(text, tokenizer, room)]
    if not blocks:
        raise KdleakError(f"kd.lm_corpus: {project.root / path} holds no text; give one with documents in it")
    return blocks[:most]


def _documents(path: Path) -> Iterator[str]:
    """The documents of a file, read a line at a time."""
    try:
        with path.open(encoding="utf-8") as lines:
            yield from filter(None, _json_documents(lines, path) if path.suffix == ".jsonl" else _paragraphs(lines))
    except (OSError, UnicodeDecodeError):
        raise KdleakError(f"kd.lm_corpus: {path} cannot be read as UTF-8 text; give a .txt or .jsonl file") from None


def _json_documents(lines: Iterable[str], path: Path) -> Iterator[str]:
    try:
        for line in lines:
            if line.strip():
                yield json.loads(line)["text"].strip()
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise KdleakError(f"kd.lm_corpus: {path}: every line must be a JSON object with a 'text'") from None


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """What stands between blank lines; a text of more than `LONGEST` characters is cut into several."""
    held, characters = [], 0
    for line in lines:
        if not line.strip() or characters > LONGEST:
            yield "".join(held).strip()
            held, characters = [], 0
        held.append(line)
        characters += len(line)
    yield "".join(held).strip()


def _refuse_private(documents: list[str], private: pd.DataFrame, n: int, bound: float, before: int) -> None:
    import pandas as pd

    from kdleak.data.overlap import ngram_overlap

    corpus = pd.DataFrame({"response": documents, "context": "", "role": "corpus"})
    both = pd.concat([corpus, private[["response", "context", "role"]]], ignore_index=True)
    shared = (ngram_overlap(both, n, of=["corpus"], against=["private"])[: len(documents)] > bound).nonzero()[0]
    if len(shared):
        raise KdleakError(
            f"kd.lm_corpus: {len(shared)} documents repeat private records (the first is number "
            f"{before + shared[0] + 1}); a student must not see them: leave them out"
        )


def _blocks(text: str, tokenizer: PreTrainedTokenizerBase, room: int) -> Iterator[EncodedRecord]:
    """`text` in pieces of at most `room` tokens, the last of which ends with EOS."""
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    end = eos_id(tokenizer)
    ids = [*ids, end]
    name = hashlib.sha256(text.encode()).hexdigest()
    for start in range(0, len(ids), room):
        yield EncodedRecord(name, (end,), tuple(ids[start : start + room]), n_scored=0)
