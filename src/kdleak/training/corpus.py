"""Text for the language-modelling loss (kd.lm_corpus): none, the general corpus, the auxiliary records, or a file.

What is no record is read as far as a training needs it, a portion at a time, and tokenised once: the tokens stand in
.kdleak/corpus under a key of the content, and a training maps them instead of loading them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from kdleak.core import distributed
from kdleak.core.errors import KdleakError
from kdleak.data.corpus_files import documents, file_digest
from kdleak.data.encoding import EncodedRecord, eos_id, first_id
from kdleak.data.records import read_role
from kdleak.training.finetune import auxiliary_text
from kdleak.training.token_blocks import TokenBlocks, blocks_stand_in, write_blocks

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

#: Raised when the meaning of stored blocks changes: older ones are then never found.
_VERSION = 1
#: Documents, and characters, that are read, checked and tokenised together at most.
DOCUMENTS, CHARACTERS = 1000, 2_000_000


def lm_corpus(
    params: Params, project: Project, tokenizer: PreTrainedTokenizerBase, most: int
) -> Sequence[EncodedRecord]:
    """The text of kd.lm_corpus in records with a loss on all of their tokens: all of auxiliary, else `most` at most.

    KdleakError where a document of a file repeats a private record, or the file holds no text.
    """
    name = params.kd.lm_corpus
    if name == "auxiliary":
        return auxiliary_text(read_role(project.records, "auxiliary"), params, tokenizer)
    private = read_role(project.records, "private")
    path = None if params.kd.corpus_file is None else project.root / params.kd.corpus_file
    settings = [_VERSION, eos_id(tokenizer), most, params.model.max_tokens, dict(params.checks)]
    source = f"general {params.seed}" if path is None else file_digest(path)
    tokens = cast("Any", tokenizer).backend_tokenizer.to_str()  # the Encoder has refused a tokenizer without
    folder = project.corpora / _key(settings, source, tokens, *private["response"], *private["context"])
    if distributed.is_main() and not blocks_stand_in(folder):
        texts = _general(params.seed) if path is None else documents(path)
        checked = _without_private(texts, private, params, str(path or name))
        blocks = _blocks(checked, tokenizer, params.model.max_tokens - 1)
        if not write_blocks(itertools.islice(blocks, most), folder):
            raise KdleakError(f"kd.lm_corpus: {path} holds no text; give one with documents in it")
    distributed.barrier()
    return TokenBlocks(folder, first_id(tokenizer))


def _general(seed: int) -> Iterator[str]:
    from kdleak.data.synthetic.general import general_documents

    return general_documents(seed)


def _key(settings: list, *texts: str) -> str:
    digest = hashlib.sha256(json.dumps(settings).encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


def _portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """`texts` in lists of at most `DOCUMENTS`, each ended by the text that takes it over `CHARACTERS`."""
    held: list[str] = []
    characters = 0
    for text in texts:
        held.append(text)
        characters += len(text)
        if len(held) == DOCUMENTS or characters > CHARACTERS:
            yield held
            held, characters = [], 0
    if held:
        yield held


def _without_private(texts: Iterable[str], private: pd.DataFrame, params: Params, name: str) -> Iterator[list[str]]:
    """Portions of `texts`; KdleakError at the first that repeats private records, by the gate's measure."""
    import pandas as pd

    from kdleak.data.overlap import ngram_overlap

    before, checks = 0, params.checks
    for portion in _portions(texts):
        frame = pd.DataFrame({"response": portion, "context": "", "role": "corpus"})
        both = pd.concat([frame, private[["response", "context", "role"]]], ignore_index=True)
        overlap = ngram_overlap(both, checks.ngram, of=["corpus"], against=["private"])[: len(portion)]
        repeated = (overlap > checks.max_overlap).nonzero()[0]
        if len(repeated):
            raise KdleakError(
                f"kd.lm_corpus: {name}: {len(repeated)} documents repeat private records (the first is number "
                f"{before + repeated[0] + 1}); a student must not see them: leave them out"
            )
        before += len(portion)
        yield portion


def _blocks(portions: Iterable[list[str]], tokenizer: PreTrainedTokenizerBase, room: int) -> Iterator[list[int]]:
    """Each text in pieces of at most `room` tokens, the last of which ends with EOS."""
    end = eos_id(tokenizer)
    for portion in portions:
        encoded = tokenizer(portion, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for ids in encoded:
            ids.append(end)
            for start in range(0, len(ids), room):
                yield ids[start : start + room]
