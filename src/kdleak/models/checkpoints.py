"""Model folders: safetensors, configuration, tokenizer; written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.core.distributed import barrier, is_main
from kdleak.core.errors import KdleakError, brief
from kdleak.core.files import replacing_folder
from kdleak.models.device import resolve_device
from kdleak.models.hub import MODEL_FILES, model_folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

#: What to do about a model folder that holds something else than what was once written into it.
_REMEDY = "if it is damaged, delete it and run 'dvc repro', or fetch it again"


def _quiet() -> None:
    """A bar for the shards of every model that is read or written would drown the progress that matters."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@contextmanager
def _silent() -> Iterator[None]:
    """Transformers without its warnings."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write `folder` as a Transformers model folder (safetensors and tokenizer)."""
    _quiet()
    if is_main():
        with replacing_folder(folder) as fresh:
            model.save_pretrained(fresh, safe_serialization=True)
            tokenizer.save_pretrained(fresh)
    barrier()


def copy_checkpoint(source: Path, folder: Path) -> None:
    """Copy what there is of a model in `source` to `folder`: weights, configuration and tokenizer, bit for bit."""
    check_folder(source)
    if is_main():
        with replacing_folder(folder) as fresh:
            for pattern in MODEL_FILES:
                for path in sorted(source.glob(pattern)):
                    shutil.copyfile(path, fresh / path.name)
    barrier()


#: What a folder holds of a LoRA adapter, in place of a model's configuration.
ADAPTER = "adapter_config.json"


def check_folder(folder: Path) -> None:
    """Refuse what is no safe model folder: absent, without safetensors, or with code of its own."""
    config = folder / (ADAPTER if (folder / ADAPTER).is_file() else "config.json")
    if not config.is_file():
        raise KdleakError(f"{folder}: no model folder (config.json is missing); name one written by save_pretrained")
    if "auto_map" in _fields(config):
        raise KdleakError(
            f"{folder}: the model brings code of its own (auto_map), which kdleak never runs; use another"
        )
    if not list(folder.glob("adapter_model.safetensors" if config.name == ADAPTER else "*.safetensors")):
        raise KdleakError(f"{folder}: no safetensors weights; pickle files are never read, convert the model first")


def _fields(path: Path) -> dict[str, Any]:
    """Content of a configuration file."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # not JSON, or not text
        fields = None
    if not isinstance(fields, dict):
        raise KdleakError(f"{path}: damaged (no JSON object); delete the folder and run 'dvc repro', or fetch it again")
    return fields


def load_model(folder: Path, device: str | None = None) -> PreTrainedModel:
    """Load a causal LM for inference (evaluation mode, fp32); a LoRA adapter is merged into its base.

    device: one of torch's; None is where the pipeline's models are computed (`compute.device`).

    Only safetensors are read and no code of the folder's is run. Raises KdleakError where that does not make a model.
    """
    check_folder(folder)
    _quiet()
    device = device or resolve_device()
    if (folder / ADAPTER).is_file():
        return _with_adapter(folder, device)
    return _plain_model(folder).to(device).eval()


def base_folder(folder: Path) -> Path:
    """The folder whose config.json describes the model in `folder`: its own, or that of the adapter's base."""
    adapter = folder / ADAPTER
    if not adapter.is_file():
        return folder
    fields = _fields(adapter)
    if not fields.get("base_model_name_or_path"):
        raise KdleakError(f"{adapter}: names no base_model_name_or_path; write there which model it adapts")
    return model_folder(fields["base_model_name_or_path"], fields.get("revision"))


def _plain_model(folder: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    config = _config(folder)
    if getattr(config, "activation_function", None) == "gelu_new":
        # The same function, as one kernel instead of eight: half of a small model's time on a CPU.
        config.activation_function = "gelu_pytorch_tanh"
    options = {"use_safetensors": True, "local_files_only": True, "dtype": torch.float32, "output_loading_info": True}
    try:
        with _silent():  # its report of keys that do not match says in many lines what is said below in one
            model, found = AutoModelForCausalLM.from_pretrained(folder, config=config, **options)
    except Exception as error:  # a damaged file, or one of another kind, makes Transformers stumble over anything
        raise KdleakError(f"{folder}: cannot be loaded ({brief(error)}); {_REMEDY}") from None
    # Transformers draws what it does not find at random and says so in a warning: figures of noise would come out.
    if found["missing_keys"]:
        first, *more = sorted(found["missing_keys"])
        lacks = f"'{first}'" + (f" and {len(more)} more" if more else "")
        raise KdleakError(f"{folder}: its weights lack {lacks}; {_REMEDY}")
    return model


def _config(folder: Path) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise KdleakError(f"{folder}: its config.json describes no model ({brief(error)}); {_REMEDY}") from None


def _with_adapter(folder: Path, device: str) -> PreTrainedModel:
    import warnings

    from peft import PeftModel

    base = base_folder(folder)
    check_folder(base)
    model = _plain_model(base).to(device)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")  # else they stay as they were drawn
            return PeftModel.from_pretrained(model, folder).merge_and_unload().eval()
    except Exception as error:
        raise KdleakError(f"{folder}: this adapter does not fit its base {base} ({brief(error)}); {_REMEDY}") from None


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that was saved with a model; for an adapter without one, its base's."""
    from transformers import AutoTokenizer

    if not _has_tokenizer(folder):
        folder = base_folder(folder)
    if not _has_tokenizer(folder):
        raise KdleakError(f"{folder}: no tokenizer beside the model; save one there with save_pretrained")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers, in Rust, raises nothing more specific
        raise KdleakError(f"{folder}: its tokenizer cannot be loaded ({brief(error)}); {_REMEDY}") from None


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file()


def position_limit(folder: Path) -> int:
    """The longest sequence, in tokens, that the model in `folder` has positions for; without a limit, 2**31 - 1."""
    return getattr(_config(base_folder(folder)), "max_position_embeddings", None) or 2**31 - 1


def content_hash(folder: Path) -> str:
    """sha256 over the configuration and weights of a model folder, file names included."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
