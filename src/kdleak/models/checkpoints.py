"""Model folders: safetensors, configuration, tokenizer; written whole or not at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from logging import CRITICAL, Filter, LogRecord
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.core.distributed import barrier, is_main
from kdleak.core.errors import KdleakError, brief
from kdleak.core.files import replacing_folder
from kdleak.core.limits import within_limits
from kdleak.models.adapter_check import check_adapter
from kdleak.models.architecture import positions
from kdleak.models.device import resolve_device
from kdleak.models.hub import MODEL_FILES
from kdleak.models.model_files import REMEDY, base_folder, check_folder, check_texts, is_adapter, tensors_of
from kdleak.models.size_check import check_sizes

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

#: To Transformers: read what lies there; no code of the folder's is run, and nobody is asked whether it may be.
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class _NoAdvice(Filter):
    def filter(self, record: LogRecord) -> bool:
        return "passing in an `attention_mask`" not in record.getMessage()


_NO_ADVICE = _NoAdvice()


def _quiet() -> None:
    """Transformers without what would drown the progress that matters: a bar for the shards of every model that is read
    or written; and advice to pass an attention mask, given of GPT-2 wherever a text begins or ends with the token that
    pads. No mask is passed because none is needed: padding stands behind the text, where a causal model does not look
    (`kdleak.data.batching`), and EOS often is that token."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.get_logger("transformers.modeling_utils").addFilter(_NO_ADVICE)


@contextmanager
def _silent() -> Iterator[None]:
    """Transformers and torch without their warnings: what is wrong is said in one line."""
    import warnings

    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
                    if path.is_file():
                        shutil.copyfile(path, fresh / path.name)
    barrier()


def load_model(folder: Path, device: str | None = None) -> PreTrainedModel:
    """Load a causal LM for inference (evaluation mode, fp32); a LoRA adapter is merged into its base.

    device: one of torch's; None is where the pipeline's models are computed (`compute.device`).

    Only safetensors are read and no code of the folder's is run. Raises KdleakError where that does not make a model,
    its weights are not finite, or its logits are not those that are computed here (`kdleak.models.output_head`).
    """
    from kdleak.models.output_head import output_head  # imports torch

    check_folder(folder)
    _quiet()
    device = device or resolve_device()
    model = _with_adapter(folder, device) if is_adapter(folder) else on_device(_plain_model(folder), device)
    model.eval()
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise KdleakError(f"{folder}: its weights are not finite ('{name}' holds NaN or infinity); {REMEDY}")
    output_head(model)
    return model


def on_device(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """`model`, moved to `device`."""
    return model.to(device)  # pyright: ignore[reportArgumentType]  # Transformers' wrapper of `to` hides its self


def _plain_model(folder: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    config = _config(folder)
    with _silent():
        check_sizes(folder, config, tensors_of(folder))
    if getattr(config, "activation_function", None) == "gelu_new":
        # The same function, as one kernel instead of eight: half of a small model's time on a CPU.
        config.activation_function = "gelu_pytorch_tanh"
    options = _LOCAL | {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
    try:
        with _silent():  # its report of keys that do not match says in many lines what is said below in one
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, config=config, ignore_mismatched_sizes=True, **options
            )
            model, info = loaded  # as output_loading_info has it
    except Exception as error:  # a damaged file, or one of another kind, makes Transformers stumble over anything
        raise KdleakError(f"{folder}: cannot be loaded ({brief(error)}); {REMEDY}") from None
    check_keys(folder, config.get_text_config().num_hidden_layers, info)
    return model


def check_keys(folder: Path, layers: int, info: dict[str, Any]) -> None:
    """Refuse what Transformers would only warn of: tensors that are missing or of another shape, which it draws at
    random, and those of layers above the last that the configuration knows. Figures of noise would come out."""
    if info["missing_keys"]:
        raise KdleakError(f"{folder}: its weights lack {_listed(info['missing_keys'])}; {REMEDY}")
    if info["mismatched_keys"]:
        names = [key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]]
        raise KdleakError(f"{folder}: its weights have {_listed(names)} of another shape than config.json; {REMEDY}")
    numbers = {name: re.search(r"\.(\d+)\.", name) for name in info["unexpected_keys"]}
    above = [name for name, number in numbers.items() if number and int(number[1]) >= layers]
    if above:
        raise KdleakError(f"{folder}: its weights have {_listed(above)}, config.json only {layers} layers; {REMEDY}")


def _listed(names: Iterable[str]) -> str:
    first, *more = sorted(names)
    return f"'{first}'" + (f" and {len(more)} more" if more else "")


def _config(folder: Path) -> PretrainedConfig:
    from transformers import AutoConfig

    def read() -> PretrainedConfig:
        return AutoConfig.from_pretrained(folder, **_LOCAL)

    try:
        within_limits(lambda: _loads(read), f"{folder}: reading its config.json")  # a list for each layer, label …
        with _silent():
            return read()
    except KdleakError:
        raise
    except Exception as error:
        raise KdleakError(f"{folder}: its config.json describes no model ({brief(error)}); {REMEDY}") from None


def _with_adapter(folder: Path, device: str) -> PreTrainedModel:
    import warnings

    from peft import PeftModel

    base = base_folder(folder)
    check_folder(base)
    tensors = tensors_of(folder)
    model = on_device(_plain_model(base), device)
    check_adapter(folder, tensors, tensors_of(base), [name for name, _ in model.named_modules()])
    try:
        with _silent():
            warnings.filterwarnings("error", "Found missing adapter keys")  # else they stay as they were drawn
            return PeftModel.from_pretrained(model, folder).merge_and_unload().eval()
    except Exception as error:
        raise KdleakError(f"{folder}: this adapter does not fit its base {base} ({brief(error)}); {REMEDY}") from None


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that was saved with a model; for an adapter without one, its base's."""
    from transformers import AutoTokenizer

    if not _has_tokenizer(folder):
        folder = base_folder(folder)
    check_texts(folder)
    if not _has_tokenizer(folder):
        raise KdleakError(f"{folder}: no tokenizer beside the model; save one there with save_pretrained")

    def load() -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(folder, **_LOCAL)

    try:
        within_limits(lambda: _loads(load), f"{folder}: loading its tokenizer")
        return load()
    except KdleakError:
        raise
    except Exception as error:  # tokenizers, in Rust, raises nothing more specific
        raise KdleakError(f"{folder}: its tokenizer cannot be loaded ({brief(error)}); {REMEDY}") from None


def _loads(load: Callable[[], object]) -> bool:
    """Whether it does; why not is found out when it is loaded in earnest. MemoryError where memory ends."""
    try:
        load()
    except MemoryError:
        raise
    except Exception:
        return False
    return True


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file()


def position_limit(folder: Path) -> int:
    """The longest sequence, in tokens, that the model in `folder` can read: the default of every limit on prompts.

    UNLIMITED (2**31 - 1) without one, as for a state space; a sliding window is none (`kdleak.models.architecture`).
    """
    return positions(_config(base_folder(folder)))
