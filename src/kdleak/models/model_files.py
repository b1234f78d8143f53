"""The files of a model folder that are loaded, no more and no less: found, checked before they are opened, hashed.

A folder is what someone else may have written. Weights are read from safetensors alone, from files that stand in the
folder by their real path; pickle is never opened, and nothing that could block (a pipe) or lead elsewhere (a link).
What is hashed is what is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdleak.core.errors import KdleakError, brief, naming, shown
from kdleak.models.hub import model_folder

#: What to do about a model folder that holds something else than what was once written into it.
REMEDY = "if it is damaged, delete it and run 'dvc repro', or fetch it again"
#: What a folder holds of a LoRA adapter, in place of a model's configuration; and the adapter's weights.
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
#: What is read whole of a model folder, beside weights, and the bytes that it may have.
_TEXTS, _LARGEST_TEXT = (".json", ".jinja", ".txt", ".model"), 2**28


@dataclass(frozen=True)
class Tensors:
    """What the headers of weight files say: tensor name -> its shape."""

    shapes: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        return sum(_product(shape) for shape in self.shapes.values())


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file()


def check_folder(folder: Path) -> None:
    """Refuse what is no safe model folder: absent, without safetensors, with code of its own, or with weights that
    stand elsewhere. Nothing but JSON is read."""
    check_configuration(folder)
    weight_files(folder)


def check_configuration(folder: Path) -> None:
    """Refuse a folder without a model's configuration, and a configuration that asks for code."""
    config = folder / (ADAPTER if is_adapter(folder) else _CONFIG)
    if not config.is_file():
        raise KdleakError(f"{folder}: no model folder ({_CONFIG} is missing); name one written by save_pretrained")
    check_texts(folder)
    fields = read_fields(config)
    if "auto_map" in fields:
        raise KdleakError(
            f"{folder}: the model brings code of its own (auto_map), which kdleak never runs; use another"
        )
    if _names_a_kernel(fields):
        raise KdleakError(
            f"{config}: names a kernel of the hub (*_implementation), code that kdleak never runs; remove it"
        )
    if "transformers_weights" in fields:
        raise KdleakError(
            f"{config}: transformers_weights names weights of another kind; name them {_WEIGHTS} and take the line out"
        )


def check_texts(folder: Path) -> None:
    """Refuse a configuration or tokenizer that would fill the memory as it is read."""
    for path in sorted(folder.iterdir()):
        if path.suffix in _TEXTS and path.is_file() and path.stat().st_size > _LARGEST_TEXT:
            raise KdleakError(f"{path}: {path.stat().st_size:,} bytes, more than any model has of it; {REMEDY}")


def _names_a_kernel(fields: dict[str, Any]) -> bool:
    """Whether an implementation (of attention, of experts) at any depth is a hub id, whose code would be fetched."""
    parts = [value for value in fields.values() if isinstance(value, dict)]
    named = [value for key, value in fields.items() if key.endswith("_implementation")]
    return "/" in json.dumps(named) or any(map(_names_a_kernel, parts))


def read_fields(path: Path) -> dict[str, Any]:
    """Content of a configuration file."""
    try:
        with naming(path):
            fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # not JSON, or not text
        fields = None
    if not isinstance(fields, dict):
        raise KdleakError(f"{path}: damaged (no JSON object); delete the folder and run 'dvc repro', or fetch it again")
    return fields


def base_folder(folder: Path) -> Path:
    """The folder whose config.json describes the model in `folder`: its own, or that of the adapter's base."""
    if not is_adapter(folder):
        return folder
    adapter = folder / ADAPTER
    fields = read_fields(adapter)
    name, revision = fields.get("base_model_name_or_path"), fields.get("revision")
    if not name or not isinstance(name, str):
        raise KdleakError(f"{adapter}: names no base_model_name_or_path; write there which model it adapts")
    base = model_folder(name, revision if isinstance(revision, str) else None)
    if is_adapter(base):
        raise KdleakError(f"{adapter}: its base {base} is an adapter itself; merge that into its own base first")
    return base


def weight_files(folder: Path) -> list[Path]:
    """The weight files of `folder` that are loaded, as Transformers and peft choose them, each checked.

    Raises KdleakError where there are none, or one is no regular *.safetensors file of the folder itself.
    """
    if is_adapter(folder):
        names = [ADAPTER_WEIGHTS] if (folder / ADAPTER_WEIGHTS).exists() else []
    elif (folder / _WEIGHTS).is_file():  # the index is not looked at then
        names = [_WEIGHTS]
    elif (folder / _INDEX).is_file():
        names = _shards(folder / _INDEX)
    else:
        names = [_WEIGHTS] if (folder / _WEIGHTS).exists() else []
    if not names:
        raise KdleakError(
            f"{folder}: no safetensors weights ({ADAPTER_WEIGHTS if is_adapter(folder) else _WEIGHTS}); "
            "pickle files are never read: 'kdleak convert' makes safetensors of them"
        )
    return [_checked(folder, name) for name in names]


def content_hash(folder: Path) -> str:
    """sha256 over what is loaded of the model in `folder`, file names included: configuration, the weight files that
    it is read from, and the same of an adapter's base."""
    digest = hashlib.sha256()
    for path in _loaded_files(folder):
        with naming(path), path.open("rb") as stream:
            digest.update(f"{path.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    if is_adapter(folder):
        digest.update(content_hash(base_folder(folder)).encode())
    return digest.hexdigest()


def tensors_of(folder: Path) -> Tensors:
    """The tensors in the weight files of `folder`, by their headers alone."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="np") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # not safetensors, cut short, or a header that lies about it
            raise KdleakError(f"{path}: cannot be loaded ({brief(error)}); {REMEDY}") from None
    return Tensors(shapes)


def _loaded_files(folder: Path) -> Iterator[Path]:
    yield folder / (ADAPTER if is_adapter(folder) else _CONFIG)
    if (folder / _INDEX).is_file() and not (folder / _WEIGHTS).is_file():
        yield folder / _INDEX
    yield from weight_files(folder)


def _shards(index: Path) -> list[str]:
    """The files that an index names."""
    weight_map = read_fields(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise KdleakError(f"{index}: names no weight files (weight_map); {REMEDY}")
    for name in weight_map.values():
        if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name:
            raise KdleakError(
                f"{index}: names '{shown(name)}', which is no *.safetensors file of its folder; "
                "convert the model with save_pretrained"
            )
    return sorted(set(weight_map.values()))


def _checked(folder: Path, name: str) -> Path:
    """The file `name` of `folder`, which must be a regular file there by its real path; in a snapshot of the hub's
    cache, whose files are links, in that model's cache."""
    path, home = folder / name, folder.resolve()
    if home.parent.name == "snapshots" and (home.parent.parent / "blobs").is_dir():
        home = home.parent.parent
    if not path.is_file():
        kind = "missing" if not path.exists() else "no regular file"
        raise KdleakError(f"{path}: {kind}; {REMEDY}")
    if not path.resolve().is_relative_to(home):
        raise KdleakError(f"{path}: leads out of its folder, to {path.resolve()}; copy the file itself there")
    path.open("rb").close()  # closed to this user: a library would say that it is not there
    return path


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for n in shape:
        product *= n
    return product
