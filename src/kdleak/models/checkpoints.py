"""Model folders: safetensors, configuration, tokenizer; written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.artifacts import replacing_folder
from kdleak.errors import KdleakError
from kdleak.models.hub import MODEL_FILES, model_folder
from kdleak.processes import is_main, wait_for_everyone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def _quiet() -> None:
    """A bar for the shards of every model that is read or written would drown the progress that matters."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write `folder` as a Transformers model folder (safetensors and tokenizer)."""
    _quiet()
    if is_main():
        with replacing_folder(folder) as fresh:
            model.save_pretrained(fresh, safe_serialization=True)
            tokenizer.save_pretrained(fresh)
    wait_for_everyone()


def copy_checkpoint(source: Path, folder: Path) -> None:
    """Copy what there is of a model in `source` to `folder`: weights, configuration and tokenizer, bit for bit."""
    check_folder(source)
    if is_main():
        with replacing_folder(folder) as fresh:
            for pattern in MODEL_FILES:
                for path in sorted(source.glob(pattern)):
                    shutil.copyfile(path, fresh / path.name)
    wait_for_everyone()


#: What a folder holds of a LoRA adapter, in place of a model's configuration.
ADAPTER = "adapter_config.json"


def check_folder(folder: Path) -> None:
    """Refuse what is no safe model folder: absent, without safetensors, or with code of its own."""
    config = folder / (ADAPTER if (folder / ADAPTER).is_file() else "config.json")
    if not config.is_file():
        raise KdleakError(f"{folder}: no model folder (config.json is missing)")
    try:
        fields = json.loads(config.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise KdleakError(f"{config}: not valid JSON; fetch or make the model again") from None
    if "auto_map" in fields:
        raise KdleakError(f"{folder}: the model brings code of its own (auto_map), which kdleak never runs")
    if not list(folder.glob("adapter_model.safetensors" if config.name == ADAPTER else "*.safetensors")):
        raise KdleakError(f"{folder}: no safetensors weights; pickle files are never read, convert the model first")


def load_model(folder: Path, device: str = "cpu") -> PreTrainedModel:
    """Load a causal LM for inference (evaluation mode, fp32); a LoRA adapter is merged into its base.

    Only safetensors are read and no code of the folder's is run. Raises KdleakError where that does not make a model.
    """
    check_folder(folder)
    _quiet()
    if (folder / ADAPTER).is_file():
        return _with_adapter(folder, device)
    return _plain_model(folder).to(device).eval()


def base_folder(folder: Path) -> Path:
    """The folder whose config.json describes the model in `folder`: its own, or that of the adapter's base."""
    adapter = folder / ADAPTER
    if not adapter.is_file():
        return folder
    fields = json.loads(adapter.read_text(encoding="utf-8"))
    if not fields.get("base_model_name_or_path"):
        raise KdleakError(f"{adapter}: names no base_model_name_or_path, the model that it adapts")
    return model_folder(fields["base_model_name_or_path"], fields.get("revision"))


def _plain_model(folder: Path) -> PreTrainedModel:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if getattr(config, "activation_function", None) == "gelu_new":
            # The same function, as one kernel instead of eight: half of a small model's time on a CPU.
            config.activation_function = "gelu_pytorch_tanh"
        return AutoModelForCausalLM.from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True, dtype=torch.float32
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise KdleakError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]}); make it again") from None


def _with_adapter(folder: Path, device: str) -> PreTrainedModel:
    from peft import PeftModel
    from safetensors import SafetensorError

    base = base_folder(folder)
    check_folder(base)
    model = _plain_model(base).to(device)
    try:
        return PeftModel.from_pretrained(model, folder).merge_and_unload().eval()
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0][:160]
        raise KdleakError(f"{folder}: this adapter does not fit its base {base} ({reason})") from None


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that was saved with a model; for an adapter without one, its base's."""
    from transformers import AutoTokenizer

    if not _has_tokenizer(folder):
        folder = base_folder(folder)
    if not _has_tokenizer(folder):
        raise KdleakError(f"{folder}: no tokenizer beside the model")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise KdleakError(f"{folder}: its tokenizer cannot be loaded ({str(error).splitlines()[0]})") from None


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file()


def position_limit(folder: Path) -> int:
    """The longest sequence, in tokens, that the model in `folder` has positions for; without a limit, 2**31 - 1."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base_folder(folder), local_files_only=True)
    return getattr(config, "max_position_embeddings", None) or 2**31 - 1


def content_hash(folder: Path) -> str:
    """sha256 over the configuration and weights of a model folder, file names included."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
