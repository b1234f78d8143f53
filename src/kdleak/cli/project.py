"""What every command of a project begins with: its root, its packages, its parameters, its processes."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.core.distributed import size
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project

if TYPE_CHECKING:
    from kdleak.config.schema import Params

#: What `kdleak[pipeline]` installs beyond `kdleak`, by the names that are imported.
PIPELINE_PACKAGES = ("datasets", "dvc", "faker", "filelock", "great_expectations", "mlflow", "ruamel.yaml")
#: Bytes of weights up to which a model's operations are too short to be divided among threads, and how many processes
#: make passes of such a model at most where their number is not given.
_SMALL_MODEL, _MOST_MEASURING = 2**26, 4
#: The files of the project: paths are relative to its root, which `enter_project` makes the working folder.
PROJECT = Project()


def enter_project() -> Project:
    """Go to the project's root: the nearest folder, from here upwards, with a params.yaml; else stay here.

    KdleakError where a package of the pipeline is missing.
    """
    missing = [name for name in PIPELINE_PACKAGES if find_spec(name.partition(".")[0]) is None]
    if missing:
        raise KdleakError(f"this command needs {missing[0]}; pip install 'kdleak[pipeline]'")
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if Project(folder).params.is_file()), here)
    if root != here:
        os.chdir(root)
    return PROJECT


def read_settings() -> Params:
    """params.yaml of the project, checked."""
    enter_project()
    from kdleak.config.load import load_params

    return load_params(PROJECT.params)


def shared_settings(measuring: bool = False) -> Params:
    """The same for a command whose work several processes may share: the one that starts them ends here. measuring:
    whether the work is forward passes alone."""
    from kdleak.core.launch import launch
    from kdleak.models.device import CHOSEN_DEVICE

    settings = read_settings()
    os.environ[CHOSEN_DEVICE] = settings.compute.device
    processes = _measuring_processes(settings) if measuring else settings.compute.processes
    if processes > 1 and size() == 1:
        raise SystemExit(launch(processes))
    return settings


def _measuring_processes(settings: Params) -> int:
    """`compute.measure_processes`; where that is 0, as many as train, but on the CPU one a core for small models."""
    from kdleak.core.launch import cores

    compute = settings.compute
    if compute.measure_processes:
        return compute.measure_processes
    largest = max((file.stat().st_size for file in (PROJECT.root / "models").rglob("*.safetensors")), default=0)
    if compute.device != "cpu" or largest > _SMALL_MODEL:
        return compute.processes
    return max(compute.processes, min(cores(), _MOST_MEASURING))
