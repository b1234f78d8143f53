"""GGUF files (llama.cpp): unpacked once into a model folder of safetensors, which is audited as any other.

Transformers' reader does the work, by the package `gguf`: quantised weights become the numbers that they stand for.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdleak.core.errors import KdleakError, brief
from kdleak.core.files import make_private
from kdleak.models.checkpoints import check_keys, save_checkpoint
from kdleak.models.model_files import Tensors
from kdleak.models.size_check import check_sizes

SUFFIX = ".gguf"


def gguf_of(name: str) -> Path | None:
    """The GGUF file that `name` is, or that is the one model in the folder `name`; None where it is neither."""
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # ~nobody: said where folders are looked for
        return None
    if path.suffix == SUFFIX and path.is_file():
        return path
    if not path.is_dir() or any(path.glob("*.safetensors")) or not (found := sorted(path.glob(f"*{SUFFIX}"))):
        return None
    if len(found) > 1:
        raise KdleakError(f"{path}: holds {len(found)} GGUF files; name one of them")
    return found[0]


def unpacked(path: Path, store: Path) -> Path:
    """The model folder of a GGUF file, below `store`, made where it is missing: weights in fp32, tokenizer."""
    with path.open("rb") as stream:
        folder = store / f"gguf-{hashlib.file_digest(stream, 'sha256').hexdigest()[:16]}"
    if (folder / "config.json").is_file():
        return folder
    if not _is_installed():
        raise KdleakError(f"{path}: to read GGUF the package gguf is needed; pip install gguf")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    make_private(store)
    with TemporaryDirectory() as alone:  # nothing else of the file's folder is read
        (Path(alone) / "model.gguf").symlink_to(path.resolve())
        options = {"gguf_file": "model.gguf", "local_files_only": True, "trust_remote_code": False}
        try:
            config, tensors = AutoConfig.from_pretrained(alone, **options), _tensors(path)
            check_sizes(path, config, tensors)
            _check_blocks(path, config.get_text_config().num_hidden_layers, tensors)
            tokenizer = AutoTokenizer.from_pretrained(alone, **options)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                alone, dtype="float32", output_loading_info=True, **options
            )
            model, info = loaded  # as output_loading_info has it
            check_keys(path, model.config.get_text_config().num_hidden_layers, info)
        except KdleakError:
            raise
        except Exception as error:  # a damaged file, or an architecture that Transformers does not read
            raise KdleakError(
                f"{path}: cannot be read as GGUF ({brief(error)}); fetch it again, or convert it to safetensors"
            ) from None
    model.hf_quantizer = None  # its weights are plain numbers by now, and are saved as such
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    save_checkpoint(model, tokenizer, folder)
    return folder


def _tensors(path: Path) -> Tensors:
    """What the file's header says of its tensors, by llama.cpp's names."""
    from gguf import GGUFReader

    return Tensors({tensor.name: (int(tensor.n_elements),) for tensor in GGUFReader(path).tensors})


def _check_blocks(path: Path, layers: int, tensors: Tensors) -> None:
    """Refuse a header that leaves blocks out: the reader would pass over them."""
    held = {name.split(".")[1] for name in tensors.shapes if name.startswith("blk.")}
    if len(held) != layers:
        raise KdleakError(f"{path}: its header names {layers} blocks, it has tensors of {len(held)}; fetch it again")


def _is_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("gguf") is not None
