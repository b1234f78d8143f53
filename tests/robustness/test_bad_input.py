"""What a user can get wrong, tried through the command line and through `dvc repro`:
one line that names the place and the remedy, exit code 1, earlier results untouched."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kdleak.data.synthetic import generate
from tests.support.pipeline_project import ROOT, SMOKE, PipelineProject
from tests.support.small_project import CommandLine, change

#: Every row of `rows()` has a place, so that a planted one is never left out.
SIZES = {"private": 63, "public": 63, "heldout": 63, "auxiliary": 100, "population": 26}


def rows() -> list[dict]:
    """A clean split of one's own, with the roles in the rows."""
    by_task: dict[str, int] = {}
    made = []
    for record in generate(315, seed=5):
        # Every role gets every task: the k-th record of a task takes the k-th role of a fixed cycle.
        k = by_task[record.task] = by_task.get(record.task, -1) + 1
        role = ["private", "public", "heldout", "auxiliary", "auxiliary"][k % 5]
        fields = {"instruction": record.instruction, "context": record.context, "response": record.response}
        made.append({**fields, "category": record.task, "role": role})
    return made


def lines(content: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in content).encode()


def planted(**change: Callable[[str], str]) -> bytes:
    """The clean rows, and a heldout row that is a changed copy of a private one."""
    content = rows()
    source = next(r for r in content if r["role"] == "private" and r["context"])
    target = next(i for i, r in enumerate(content) if r["role"] == "heldout" and r["category"] == source["category"])
    copy = {**source, "role": "heldout"}
    for name, function in change.items():
        copy[name] = function(copy[name])
    content[target] = copy
    return lines(content)


def replace_one_word(text: str) -> str:
    *words, last = text.split(" ")
    return " ".join([*words, f"{last} indeed"])


CASES: dict[str, tuple[bytes | None, dict, str]] = {
    "truncated JSONL": (lines(rows())[:-40], {}, "line 315: not valid JSON (the line is cut off)"),
    "a row without a response": (
        lines([{k: v for k, v in r.items() if k != "response" or i != 6} for i, r in enumerate(rows())]),
        {},
        "line 7: no 'response'",
    ),
    "bytes that are not UTF-8": (lines(rows()[:4]) + b'{"instruction": "\xff"}\n', {}, "line 5: byte 18 is not UTF-8"),
    "wrong field names": (
        lines([{"prompt": "a", "completion": "b"}]),
        {},
        "line 1: no 'response'; it has 'prompt', 'completion'",
    ),
    "an empty file": (b"", {}, "rows.jsonl is empty"),
    "a missing file": (None, {"data.path": "absent.jsonl"}, "absent.jsonl: no such file"),
    "a folder for a file": (None, {"data.path": "src"}, "src is a folder"),
    "more rows than there are": (lines(rows()), {"data.sizes.private": 4000}, "4000 private records are asked for"),
    "an exact duplicate across roles": (planted(), {}, "checks: "),
    "a duplicate that differs in case and spacing": (
        planted(response=lambda text: f"  {text.upper()} ", instruction=lambda text: text.replace(" ", "  ")),
        {},
        "checks: ",
    ),
    "a near-duplicate": (planted(response=replace_one_word), {}, "checks: "),
    "a shared context across roles": (
        planted(instruction=lambda _: "Something else?", response=lambda _: "Quite another answer to it."),
        {},
        "checks: ",
    ),
    "an unknown method": (None, {"kd.method": "rlk"}, "kd.method: 'rlk' is unknown; did you mean 'rkl'?"),
    "negative epochs": (None, {"teacher.epochs": -3}, "teacher.epochs: input should be greater than or equal to 0"),
}


#: What reads them, in order; run in this process, which has imported what they need.
STAGES = ("params", "data", "checks")
#: One failure of each stage is met through `dvc repro` too, which shows what the stage says.
THROUGH_DVC = ("an unknown method", "an empty file", "a near-duplicate")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> PipelineProject:
    """A project with earlier results, which no failure may touch."""
    made = PipelineProject(tmp_path_factory.mktemp("bad"), forked=True)
    for name in ("results/metrics.json", "results/students/kd/membership.json"):
        (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made.folder / name).write_text('{"earlier": "result"}\n')
    return made


def configure(project: PipelineProject, content: bytes | None, settings: dict) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    own = {}
    if content is not None:
        path = project.folder.parent / "rows.jsonl"
        path.write_bytes(content)
        own = {"data.source": "file", "data.path": str(path), "data.roles": "column"}
        own |= {f"data.sizes.{role}": size for role, size in SIZES.items()}
    elif "data.path" in settings:
        own = {"data.source": "file"}
    for key, value in {**SMOKE, **own, **settings}.items():
        change(params, key, value)
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture
def kdleak(monkeypatch, capfd) -> CommandLine:
    return CommandLine(monkeypatch, capfd)


def digests(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.json"))}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_leaves_earlier_results_alone(project, kdleak, case):
    content, settings, words = CASES[case]
    configure(project, content, settings)
    before = digests(project.folder / "results" / "students") | digests(project.folder / "results" / "teacher")
    code, said = next(filter(lambda ended: ended[0], (kdleak(project.folder, stage) for stage in STAGES)))
    assert code == 1 and len(said.strip().splitlines()) == 1, said
    assert said.startswith("kdleak: error: ")
    assert words in said
    if case in THROUGH_DVC:
        repro = project.dvc("repro")
        assert repro.returncode != 0
        assert words in repro.stdout + repro.stderr
        assert "Traceback" not in repro.stdout + repro.stderr
    assert digests(project.folder / "results" / "students") | digests(project.folder / "results" / "teacher") == before
    assert (project.folder / "results/metrics.json").read_text() == '{"earlier": "result"}\n'


def test_a_clean_split_of_ones_own_passes_the_gate(project, kdleak):
    configure(project, lines(rows()), {})
    for stage in STAGES:
        assert kdleak(project.folder, stage)[0] == 0


@pytest.mark.faults  # it is asked again and again before that is said
def test_a_hub_that_cannot_be_reached_is_one_line(project):
    configure(project, None, {"data.source": "hub"})
    run = project.run("env", "HF_ENDPOINT=http://127.0.0.1:9", sys.executable, "-m", "kdleak", "data")
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1].startswith("kdleak: error: data.hub: ")
    assert "download it and use data.source=file" in run.stderr


def test_what_a_shell_would_read_is_refused_by_dvc_and_the_first_stage_and_never_run(project):
    configure(project, None, {})
    project.commit("parameters")
    command = "kd; touch x"
    done = project.dvc("exp", "run", "-P", **{"kd.method": f"'{command}'", "study.methods": f"['{command}']"})
    assert done.returncode != 0
    assert "kd.method: 'kd; touch x' is unknown" in done.stdout + done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    begun = [line for line in done.stdout.splitlines() if line.startswith("Running stage")]
    assert begun == ["Running stage 'params':"]
    assert not list(project.folder.rglob("x"))
