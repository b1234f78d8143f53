"""Whether the models of a family belong together, said before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kdleak.core.errors import KdleakError
from kdleak.models.checkpoints import load_tokenizer, position_limit
from kdleak.models.model_files import base_folder, check_folder, read_fields

#: What the name of an architecture ends with that gives the next token's logits.
_CAUSAL = ("ForCausalLM", "LMHeadModel")


def check_fit(folders: Mapping[str, Path], names: Mapping[str, str], max_tokens: int) -> None:
    """Refuse models that cannot be trained and compared: no causal LM, too few positions for `max_tokens`, a tokenizer
    that writes tokens the model does not know; a teacher and a student of two vocabularies.

    folders: part (`teacher`, `student`, `external`) -> its folder; names: part -> what the user calls it.
    """
    sizes, vocabularies = {}, {}
    for part, folder in folders.items():
        named = f"{part} {names[part]}"
        check_folder(base_folder(folder))
        config = read_fields(base_folder(folder) / "config.json")
        architecture = (config.get("architectures") or ["model without architecture"])[0]
        if not architecture.endswith(_CAUSAL):
            raise KdleakError(f"{named} is a {architecture}; a causal LM is needed ({' or '.join(_CAUSAL)})")
        if position_limit(folder) < max_tokens:
            raise KdleakError(
                f"{named} has {position_limit(folder)} positions, model.max_tokens is {max_tokens}; lower it"
            )
        vocabularies[part] = load_tokenizer(folder).get_vocab()
        sizes[part] = config["vocab_size"]
        if max(vocabularies[part].values()) >= sizes[part]:
            raise KdleakError(
                f"{named} ({architecture}) knows {sizes[part]} tokens, its tokenizer has {len(vocabularies[part])}; "
                "save the tokenizer that the model was trained with beside it"
            )
    teacher, student = (f"{part} {names[part]}" for part in ("teacher", "student"))
    if sizes["teacher"] != sizes["student"] or vocabularies["teacher"] != vocabularies["student"]:
        raise KdleakError(
            f"the {teacher} has a vocabulary of {sizes['teacher']}, the {student} one of {sizes['student']}"
            f"{', of other tokens' if sizes['teacher'] == sizes['student'] else ''}; distributions can only be "
            "compared over one vocabulary: take both from one family"
        )
