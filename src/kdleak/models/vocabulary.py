"""One tokenizer, heads of unequal size: families pad the rows of embeddings and head to a round number, another for
each size (Qwen2.5, Pythia). The rows above the vocabulary stand for no token; cut to one size, two models compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.model_files import base_folder, read_fields

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


def share_vocabulary(teacher: Path, student: Path) -> None:
    """Cut the larger head of two models with one tokenizer to the size of the smaller, where every token has its row in
    both. Models of two tokenizers stay as they are: `check_fit` refuses them."""
    sizes = {folder: vocabulary_size(folder) for folder in (teacher, student)}
    smaller, larger = min(sizes.values()), max(sizes, key=lambda folder: sizes[folder])
    if sizes[larger] == smaller:
        return
    tokenizers = [load_tokenizer(folder) for folder in sizes]
    vocabularies = [tokenizer.get_vocab() for tokenizer in tokenizers]
    if vocabularies[0] == vocabularies[1] and max(vocabularies[0].values()) < smaller:
        save_checkpoint(trimmed(load_model(larger), smaller), load_tokenizer(larger), larger)


def trimmed(model: PreTrainedModel, size: int) -> PreTrainedModel:
    """`model` with the first `size` rows of embeddings and head; itself where it has no more."""
    if model.config.get_text_config().vocab_size > size:
        model.resize_token_embeddings(size)
    return model


def vocabulary_size(folder: Path) -> int:
    """Tokens that the model in `folder` gives a logit to; 0 where its configuration does not say."""
    size = read_fields(base_folder(folder) / "config.json").get("vocab_size")
    return size if isinstance(size, int) else 0
