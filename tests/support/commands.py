"""Many `kdleak` commands in a process of another kind (another user's, with another hub, on a disk that fails): their
imports are paid once, each is a fork of that process.

    python -m tests.support.commands < cases.json > endings.json
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.forks import ended
from tests.support.pipeline_project import ROOT


def run_commands(
    cases: Sequence[Mapping[str, Any]], environment: Mapping[str, str], prefix: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """{code, out, err, trace} of each case {cwd, argv}; trace: the traceback that `--debug` shows.

    A case with `fails: [operation, folder, after]` runs on a disk that fails (`tests/support/failing_disk.c`). prefix:
    what starts the process instead of this interpreter.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "KDLEAK_", "HF_"))}
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        prefix or [sys.executable, "-m", "tests.support.commands"],
        input=json.dumps(list(cases)), capture_output=True, text=True, cwd=ROOT, timeout=3600,
        env={**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout)


def refusal_in(said: str) -> str:
    """What a command has said on standard error, its progress left out."""
    return "".join(f"{line}\n" for line in said.splitlines() if not re.search(r": \d+/\d+(, |$)", line))


def _main() -> None:
    cases = json.load(sys.stdin)
    import kdleak.auditing.standalone
    import kdleak.pipeline.distill
    import kdleak.report.study.report  # noqa: F401 - each of these imports what its commands need

    sys.stdout.write(json.dumps([_ending(case) for case in cases]))


def _ending(case: Mapping[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as trace:
        streams = {"out": out, "err": err, "trace": trace}
        child = os.fork()
        if child == 0:
            _run(case, *(stream.fileno() for stream in streams.values()))
        code = ended(child)
        for stream in streams.values():
            stream.seek(0)
        return {"code": code} | {name: stream.read().decode(errors="replace") for name, stream in streams.items()}


def _run(case: Mapping[str, Any], out: int, err: int, trace: int) -> None:
    """The command, as a process of its own would run it; never returns."""
    code = 70
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(case["cwd"])
        from kdleak.cli import main
        from tests.support.hostile_inputs import noting

        main._line = noting(main._line, lambda text: os.write(trace, text.encode(errors="replace")))
        sys.argv = ["kdleak", *case["argv"]]
        if "fails" in case:
            operation, folder, after = case["fails"]
            ctypes.CDLL(None).fail_on(operation.encode(), str(Path(folder)).encode(), ctypes.c_long(after))
        try:
            main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _main()
