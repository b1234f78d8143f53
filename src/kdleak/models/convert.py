"""A model in pickle files becomes one in safetensors: `kdleak convert`, the one place that opens a pickle.

It is done in a process of its own that has left the network, by torch's restricted unpickler (`weights_only`), which
makes tensors and runs no code of the file's. The tokenizer is written anew in the form that every stage reads; of a
`tokenizer.model` that needs the package sentencepiece.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError, brief, shown
from kdleak.core.files import replacing_folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from kdleak.models.model_files import Tensors


def convert(source: Path, folder: Path) -> None:
    """Write the model in `source` to `folder` as `save_pretrained` does: safetensors in the precision that it has, and
    its tokenizer. Raises KdleakError where there is no model in pickle, or one that cannot be read safely."""
    command = [sys.executable, "-m", "kdleak.models.convert", str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it was ended, for want of memory perhaps; use a larger machine"]
        raise KdleakError(f"{said[-1]}")


def leave_network() -> None:
    """From here on this process reaches no network: in a name space of its own where Linux grants one, and by a hook
    of Python's that cannot be taken off again."""
    if sys.platform == "linux":
        import ctypes

        new_user, new_network = 0x10000000, 0x40000000
        ctypes.CDLL(None).unshare(new_user | new_network)  # refused in some containers: then the hook alone holds

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
            raise PermissionError(f"{event}: a conversion has no network")

    sys.addaudithook(refuse)


def _convert(source: Path, folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from kdleak.core.limits import within_limits
    from kdleak.models.checkpoints import check_keys
    from kdleak.models.model_files import check_configuration, check_folder
    from kdleak.models.size_check import check_sizes

    logging.disable_progress_bar()
    logging.set_verbosity_error()

    def read_config(folder: Path) -> PretrainedConfig:
        return AutoConfig.from_pretrained(folder, local_files_only=True)

    check_configuration(source)
    if not any(source.glob("pytorch_model*.bin")):
        raise KdleakError(f"{source}: no weights in pickle (pytorch_model*.bin); there is nothing to convert")
    options = {"use_safetensors": False, "weights_only": True, "local_files_only": True, "output_loading_info": True}
    within_limits(lambda: read_config(source).model_type, f"{source}: reading its config.json")  # a list for each label
    try:
        tensors = _tensors(source)
        check_sizes(source, read_config(source), tensors)
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype="auto", **options)
        model, info = loaded  # as output_loading_info has it
    except KdleakError:
        raise
    except Exception as error:  # a pickle that asks for code, a damaged one, or another model's
        raise KdleakError(
            f"{source}: its pickle cannot be read as tensors alone ({brief(error)}); use another"
        ) from None
    check_keys(source, model.config.get_text_config().num_hidden_layers, info)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except Exception as error:
        raise KdleakError(
            f"{source}: its tokenizer cannot be read ({brief(error)}); a tokenizer.model needs 'pip install "
            "kdleak[convert]'"
        ) from None
    with replacing_folder(folder) as fresh:
        model.save_pretrained(fresh, safe_serialization=True)
        tokenizer.save_pretrained(fresh)
    check_folder(folder)


def _tensors(source: Path) -> Tensors:
    """Names and shapes in the pickles of `source`, without their content.

    Raises KdleakError where an index names what is no pickle of the folder's own.
    """
    import torch

    from kdleak.models.model_files import Tensors

    names = ["pytorch_model.bin"]
    index = source / "pytorch_model.bin.index.json"
    if not (source / names[0]).is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        if Path(name).name != name or not (source / name).is_file():
            raise KdleakError(f"{index}: names '{shown(name)}', which is no file of its folder; use another model")
        held = torch.load(source / name, map_location="meta", weights_only=True)
        shapes |= {key: tuple(tensor.shape) for key, tensor in held.items()}
    return Tensors(shapes)


if __name__ == "__main__":
    leave_network()
    try:
        _convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except KdleakError as failure:
        sys.exit(str(failure))
