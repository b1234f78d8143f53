"""Model folders: safetensors, configuration, tokenizer; written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.artifacts import replacing_folder
from kdleak.errors import KdleakError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def _quiet() -> None:
    """A bar for the shards of every model that is read or written would drown the progress that matters."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write `folder` as a Transformers model folder (safetensors and tokenizer)."""
    _quiet()
    with replacing_folder(folder) as fresh:
        model.save_pretrained(fresh, safe_serialization=True)
        tokenizer.save_pretrained(fresh)


def check_folder(folder: Path) -> None:
    """Refuse what is no safe model folder: absent, without safetensors, or with code of its own."""
    config = folder / "config.json"
    if not config.is_file():
        raise KdleakError(f"{folder}: no model folder (config.json is missing)")
    try:
        fields = json.loads(config.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise KdleakError(f"{config}: not valid JSON; fetch or make the model again") from None
    if "auto_map" in fields:
        raise KdleakError(f"{folder}: the model brings code of its own (auto_map), which kdleak never runs")
    if not list(folder.glob("*.safetensors")):
        raise KdleakError(f"{folder}: no safetensors weights; pickle files are never read, convert the model first")


def load_model(folder: Path) -> PreTrainedModel:
    """Load a causal LM for inference (evaluation mode, fp32)."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    check_folder(folder)
    _quiet()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if getattr(config, "activation_function", None) == "gelu_new":
            # The same function, as one kernel instead of eight: half of a small model's time on a CPU.
            config.activation_function = "gelu_pytorch_tanh"
        model = AutoModelForCausalLM.from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True, dtype=torch.float32
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise KdleakError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]}); make it again") from None
    return model.eval()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that was saved with a model."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        raise KdleakError(f"{folder}: no tokenizer beside the model")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise KdleakError(f"{folder}: its tokenizer cannot be loaded ({str(error).splitlines()[0]})") from None


def position_limit(folder: Path) -> int:
    """The longest sequence, in tokens, that the model in `folder` has positions for."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True).max_position_embeddings


def content_hash(folder: Path) -> str:
    """sha256 over the configuration and weights of a model folder, file names included."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
