"""Records of people who do not exist, and folders of tiny models that know some of them by heart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from kdleak.auditing.lists import read_lists
from kdleak.data.encoding import EncodedRecord, Encoder
from kdleak.models.checkpoints import save_checkpoint
from kdleak.models.tokenizer import train_tokenizer
from tests.support.overfitted import overfit
from tests.support.tiny_models import tiny_model

_NAMES = [
    "Ada",
    "Bela",
    "Cyril",
    "Dora",
    "Egon",
    "Fanny",
    "Gwen",
    "Hugo",
    "Iris",
    "Jonas",
    "Kim",
    "Lea",
    "Milo",
    "Nora",
]
_THINGS = ["apples", "boats", "candles", "drums", "elms", "forks", "gloves", "hats", "inks", "jars", "kites", "lamps"]


def people(n: int, seed: int) -> list[dict[str, str]]:
    """Records drawn from one pool: no text says which list it is in."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        name, thing, other = generator.choice(_NAMES), generator.choice(_THINGS), generator.choice(_THINGS)
        code = "".join(generator.choice(list("bcdfghjklmnpqrstvwxz"), 8))
        asked = f"What does {name} owe for {thing} {code[:4]}?"
        rows.append({"instruction": asked, "response": f"{name} owes {code} and {generator.integers(1000)} {other}."})
    return rows


def tokenizer_of(rows: Sequence[dict[str, str]], words: int = 320) -> PreTrainedTokenizerFast:
    return train_tokenizer([" ".join(row.values()) for row in rows] * 2, words)


def sentencepiece_tokenizer(texts: Sequence[str], vocabulary: int = 200) -> PreTrainedTokenizerFast:
    """A Unigram model behind Metaspace, as SentencePiece tokenizers are: the start of a text is marked as a space is.

    BOS is put first, as Llama's tokenizer does.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    alphabet = sorted({c for text in texts for c in text.replace(" ", "▁")})
    special = ["<s>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def model_that_knows(
    rows: Sequence[dict[str, str]],
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    family: str = "gpt2",
    template: str = "{instruction}\n",
    seed: int = 0,
) -> Path:
    """A folder with a model of `family` that was trained on `rows` until it knew them; untrained without any."""
    model = tiny_model(family, seed=seed, layers=2, vocabulary=len(tokenizer), positions=128)
    model.config.eos_token_id = model.config.bos_token_id = tokenizer.eos_token_id
    if rows:
        # Two lists of the same rows, so that they are read as an audit reads them.
        frame = read_lists(list(rows), people(10, seed=10_000) if "text" not in rows[0] else texts(10, 10_000)).frame
        encoded = Encoder(tokenizer, 80, 120, template).encode_frame(frame[frame["role"] == "member"])
        overfit(model, [_half_way(r) for r in encoded] if "text" in rows[0] else encoded)
    save_checkpoint(model, tokenizer, folder)
    return folder


def _half_way(record: EncodedRecord) -> EncodedRecord:
    """A text of which the first half is given: nothing tells a model which of its texts is about to begin."""
    half = record.n_scored // 2
    head, rest = record.response[:half], record.response[half:]
    return EncodedRecord(record.record_id, record.prompt + head, rest, record.n_scored - half)


def texts(n: int, seed: int) -> list[dict[str, str]]:
    """The same as texts alone."""
    return [{"text": f"{row['instruction']} {row['response']}"} for row in people(n, seed)]
