"""How a model is loaded for an audit: its precision, over how many GPUs, quantised or not.

The default is that of the pipeline (fp32 on one device, `kdleak.models.checkpoints`); other ways trade exactness for
room, and what was computed in one is never taken for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError, brief, nearest, shown
from kdleak.models import checkpoints
from kdleak.models.architecture import decoder
from kdleak.models.model_files import REMEDY, base_folder, check_folder, is_adapter, tensors_of
from kdleak.models.size_check import check_sizes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: `--dtype`: as in the pipeline, half precision, or what the weights are stored in.
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "auto": "auto"}
_BITS = (4, 8)


@dataclass(frozen=True)
class Loading:
    """dtype: one of `DTYPES`. device_map: `auto` spreads the model over all GPUs of this machine. bits: 8 or 4, by
    bitsandbytes; None: as it is."""

    dtype: str = "fp32"
    device_map: str | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise KdleakError(f"--dtype {shown(self.dtype)}: unknown; {nearest(self.dtype, DTYPES)}")
        if self.device_map not in (None, "auto"):
            raise KdleakError(f"--device-map {shown(self.device_map)}: unknown; write auto, or leave it out")
        if self.bits is not None and self.bits not in _BITS:
            raise KdleakError(f"--bits {self.bits}: a model is quantised to 8 or 4 bits; write one of them")
        if self.bits is not None and find_spec("bitsandbytes") is None:
            raise KdleakError(f"--bits {self.bits}: bitsandbytes is not installed; pip install bitsandbytes")

    @property
    def is_plain(self) -> bool:
        """Whether models are loaded as in the pipeline."""
        return self == Loading()

    @property
    def name(self) -> str:
        """What figures depend on."""
        return f"{self.dtype}, {self.bits} bits" if self.bits else self.dtype


def load_as(folder: Path, device: str, loading: Loading) -> PreTrainedModel:
    """The causal LM of `folder` in evaluation mode, as `loading` says; with the checks of `checkpoints.load_model`.

    Raises KdleakError where that does not make a model, where `device_map` finds no GPU, and for a quantised adapter.
    """
    from kdleak.models.output_head import output_head  # imports torch

    if loading.is_plain:
        return checkpoints.load_model(folder, device)
    check_folder(folder)
    checkpoints._quiet()
    model = _adapted(folder, device, loading) if is_adapter(folder) else _loaded(folder, device, loading)
    model.eval()
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise KdleakError(f"{folder}: its weights are not finite ('{name}' holds NaN or infinity); {REMEDY}")
    output_head(model)
    return model


def _adapted(folder: Path, device: str, loading: Loading) -> PreTrainedModel:
    from peft import PeftModel

    if loading.bits is not None:
        raise KdleakError(f"{folder}: an adapter is not merged into {loading.bits} bits; merge it first")
    base = base_folder(folder)
    check_folder(base)
    tensors_of(folder)
    model = _loaded(base, device, loading)
    try:
        merged: Any = PeftModel.from_pretrained(model, folder)
        return merged.merge_and_unload()
    except Exception as error:  # a damaged file, or one of another base
        raise KdleakError(f"{folder}: this adapter does not fit its base {base} ({brief(error)}); {REMEDY}") from None


def _loaded(folder: Path, device: str, loading: Loading) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    config = checkpoints._config(folder)  # one rule of what is a configuration, and what of its keys, for every way
    check_sizes(folder, config, tensors_of(folder))
    options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    options |= {"dtype": DTYPES[loading.dtype], "ignore_mismatched_sizes": True} | _placement(device, loading)
    try:
        with checkpoints._silent():
            loaded: Any = AutoModelForCausalLM.from_pretrained(folder, config=config, **options)
            model, info = loaded
    except KdleakError:
        raise
    except Exception as error:  # a damaged file, or one of another kind, makes Transformers stumble over anything
        raise KdleakError(f"{folder}: cannot be loaded ({brief(error)}); {REMEDY}") from None
    checkpoints.check_keys(folder, config.get_text_config().num_hidden_layers, info)
    if loading.device_map is None and loading.bits is None:
        return checkpoints.on_device(model, device)
    return _gathered(model, folder)


def _placement(device: str, loading: Loading) -> dict[str, Any]:
    """Options of from_pretrained: where the model's parts go, and how they are quantised."""
    import torch

    options: dict[str, Any] = {}
    if loading.device_map:
        if not torch.cuda.is_available():
            raise KdleakError("--device-map auto: no GPU is to be had here; leave it out")
        options["device_map"] = loading.device_map
    if loading.bits:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=loading.bits == 8, load_in_4bit=loading.bits == 4
        )
        options.setdefault("device_map", {"": device})
    return options


def _gathered(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """A model that was spread over GPUs, such that its first one gives the decoder's states and holds the head: what
    follows the decoder (`kdleak.models.output_head`) knows of one device."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module

    places = set(getattr(model, "hf_device_map", {}).values())
    if places & {"cpu", "disk"}:
        raise KdleakError(f"{folder}: the GPUs here do not hold it; use --dtype bf16 or --bits 8, or more of them")
    if len(places) > 1:
        first = _device(model.get_input_embeddings())
        add_hook_to_module(decoder(model), AlignDevicesHook(first, io_same_device=True), append=True)
        head: Any = model.get_output_embeddings()
        remove_hook_from_module(head)
        head.to(first)
    return model


def _device(module: Any) -> Any:
    return module.weight.device
