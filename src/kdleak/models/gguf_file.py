"""GGUF files (llama.cpp): unpacked once into a model folder of safetensors, which is audited as any other.

Transformers' reader does the work, by the package `gguf`: quantised weights become the numbers that they stand for.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdleak.core.errors import KdleakError, brief
from kdleak.core.files import make_private
from kdleak.data.corpus_files import file_digest
from kdleak.models.checkpoints import save_checkpoint

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
    folder = store / f"gguf-{file_digest(path)[:16]}"
    if (folder / "config.json").is_file():
        return folder
    if not _is_installed():
        raise KdleakError(f"{path}: to read GGUF the package gguf is needed; pip install gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_private(store)
    with TemporaryDirectory() as alone:  # nothing else of the file's folder is read
        (Path(alone) / "model.gguf").symlink_to(path.resolve())
        options = {"gguf_file": "model.gguf", "local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, **options)
            model: Any = AutoModelForCausalLM.from_pretrained(alone, dtype="float32", **options)
        except Exception as error:  # a damaged file, or an architecture that Transformers does not read
            raise KdleakError(
                f"{path}: cannot be read as GGUF ({brief(error)}); fetch it again, or convert it to safetensors"
            ) from None
    model.hf_quantizer = None  # its weights are plain numbers by now, and are saved as such
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    save_checkpoint(model, tokenizer, folder)
    return folder


def _is_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("gguf") is not None
