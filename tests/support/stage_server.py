"""A process that has imported the libraries of the pipeline, and none of kdleak, and forks one for each `kdleak` that a
test's pipeline runs: torch, transformers and MLflow are a few seconds each time, and no test is about them.

What a stage imports of kdleak, reads, writes, prints and ends with is its own, as `tests/support/watched` sees it.

    python -m tests.support.stage_server NUMBER

listens on the socket of that file descriptor, and ends when its standard input does. `tests/support/forked/kdleak` is
what asks it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The folder whose `kdleak` asks the server.
CLIENT = Path(__file__).parent / "forked"
#: Modules that look on in each process.
WATCHED = Path(__file__).parent / "watched"
_LIBRARIES = (
    "torch", "torch.utils.data", "safetensors.torch", "transformers.models.gpt2.modeling_gpt2", "tokenizers",
    "transformers.models.opt.modeling_opt", "transformers.models.auto.modeling_auto", "transformers.generation",
    "transformers.models.auto.tokenization_auto", "numpy", "pandas", "pyarrow.parquet", "scipy.stats", "scipy.special",
    "sklearn.linear_model", "sklearn.feature_extraction.text", "sklearn.model_selection", "sklearn.pipeline",
    "matplotlib.figure", "matplotlib.backends.backend_svg", "jinja2", "pydantic", "typer", "rich.console", "rich.table",
    "mlflow", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "great_expectations", "datasketch", "yaml",
    "rouge_score.rouge_scorer", "faker", "filelock", "ruamel.yaml", "huggingface_hub",
)  # fmt: skip


@functools.cache
def address() -> str:
    """The socket of this process's server, which is started when it is first asked for; who asks meanwhile waits."""
    folder = Path(tempfile.mkdtemp(prefix="stages"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    place = folder / "socket"
    environment = {
        **os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "GX_ANALYTICS_ENABLED": "false", "HOME": str(folder),
        "WATCHED_SOCKETS": str(sockets_of(place)), "PYTHONPATH": f"{WATCHED}{os.pathsep}{ROOT}",
    }  # fmt: skip
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        number = listener.fileno()
        command = [sys.executable, "-m", "tests.support.stage_server", str(number)]
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, pass_fds=[number])
    atexit.register(server.kill)
    return str(place)


def sockets_of(place: str | Path) -> Path:
    """Where the server at `place` notes the sockets that its imports have bound."""
    return Path(place).with_name("sockets.log")


def _serve(listener: socket.socket) -> bool:
    """Answer until standard input ends; True in a process that was forked for a command."""
    for library in _LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    assert not any(name.partition(".")[0] == "kdleak" for name in sys.modules)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        asking, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _become_command(asking)
            return True
        asking.close()
    return False


def _become_command(asking: socket.socket) -> None:
    """Fork once more: this process says how its child has ended, and the child returns as the command would begin."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(asking, 8, 3)
    size, content = int.from_bytes(length, "big"), b""
    while len(content) < size:
        content += asking.recv(size - len(content))
    child = os.fork()
    if child:
        for stream in streams:
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        asking.sendall(code.to_bytes(4, "big", signed=True))
        os._exit(0)
    asking.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    asked = json.loads(content)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.argv = ["kdleak", *asked["argv"]]
    sys.path[:] = [*asked["environ"]["PYTHONPATH"].split(os.pathsep), *_INSTALLED]


if __name__ == "__main__":
    _INSTALLED = [entry for entry in sys.path if entry not in os.environ["PYTHONPATH"].split(os.pathsep)]
    if _serve(socket.socket(fileno=int(sys.argv[1]))):
        __package__ = __spec__ = None  # by which a command line would go by this module's name
        if "DVC_STAGE" in os.environ:
            import stage_watch

            stage_watch.start(os.environ["WATCHED_STAGES"])
        from kdleak.cli.main import main

        main()
