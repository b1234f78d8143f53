"""The real pipeline, through real DVC, MLflow and Great Expectations, on `smoke` sizes."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from kdleak.attacks import ATTACKS
from kdleak.config.load import load_params
from kdleak.core.fingerprint import SourceTree
from kdleak.data.records import ROLES
from kdleak.distill.methods import METHODS
from kdleak.pipeline.validate import ATTACKS_PACKAGE, DEFENCES_PACKAGE, IDLE, METHODS_PACKAGE, PLUMBING
from tests.docs.test_measures import FILES, without_entry
from tests.support.declared import declared
from tests.support.pipeline_project import ROOT, SMOKE, PipelineProject
from tests.support.stage_server import address, sockets_of

RESULTS = ("results/metrics.json", "results/students/kd/membership.json", "results/teacher/membership.json")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> PipelineProject:
    """A project in which the headline chain has run once."""
    made = PipelineProject(tmp_path_factory.mktemp("pipeline"), forked=True)
    done = made.experiment()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    made.shown = done.stdout + done.stderr
    assert "kdleak: warning" not in made.shown
    made.commit("the first run")
    return made


def read(project: PipelineProject, name: str) -> dict:
    return json.loads((project.folder / name).read_text())


def ran(done: subprocess.CompletedProcess) -> set[str]:
    """The stages that a command of DVC has run."""
    return {line.split("'")[1].split(":")[-1] for line in done.stdout.splitlines() if line.startswith("Running stage")}


def contents(project: PipelineProject) -> dict[str, bytes]:
    return {name: (project.folder / name).read_bytes() for name in RESULTS}


def test_the_chain_leaves_every_file_that_others_rely_on(project):
    splits = pd.read_parquet(project.folder / "data/splits.parquet")
    assert list(splits.columns) == ["record_id", "role", "task", "group_id"]
    assert splits["role"].value_counts().to_dict() == {role: SMOKE[f"data.sizes.{role}"] for role in ROLES}
    assert read(project, "results/checks/report.json")["success"]
    assert (project.folder / "results/checks/docs/index.html").is_file()
    for folder in ("models/teacher", "models/students/kd", "models/students/sft"):
        assert (project.folder / folder / "model.safetensors").is_file()
    scores = pd.read_parquet(project.folder / "results/students/kd/scores.parquet")
    assert set(scores["role"]) == {"private", "heldout"}
    assert len(scores) == SMOKE["data.sizes.private"] + SMOKE["data.sizes.heldout"]
    report = read(project, "results/students/kd/membership.json")
    for attack in report["attacks"].values():
        low, high = attack["auc_ci95"]
        assert 0 <= low <= attack["auc"] <= high <= 1
    metrics = read(project, "results/metrics.json")
    assert metrics["method"] == "kd"
    assert metrics["student_auc"] == report["attacks"]["loss"]["auc"]
    assert not (project.folder / ".kdleak/resume").exists()


def test_the_student_is_judged_beside_teacher_baseline_and_controls(project):
    report = read(project, "results/students/kd/membership.json")
    assert not report["not_applicable"] and {"ref_external", "rmia", "wbc"} <= set(report["attacks"])
    assert set(report["controls"]) == {"blind", "permutation", "overlap", "no_kd", "placebo"}
    control = report["controls"]["placebo"]["teacher_aware"]
    assert control["model"] == "control" and control["state"] in ("passed", "failed") and 0 <= control["auc"] <= 1
    assert {"records": 60, "canary_rows": 42}.items() <= read(project, "results/control/teacher/training.json").items()
    assert not list(project.folder.glob("models/variants/**/*.safetensors"))
    assert 0 <= report["attacks"]["rmia"]["a"] <= 1
    for attack in report["attacks"]:
        if {"teacher", "no_kd"} & set(ATTACKS[attack].needs.references):
            continue  # neither the teacher nor its stand-in can be asked that
        figures, beside = report["attacks"][attack], report["controls"]["no_kd"][attack]
        assert beside["excess"]["difference"] == pytest.approx(figures["auc"] - beside["auc"], abs=2e-6)
        assert set(report["teacher"]["inherited"][attack]) == {"share", "ci95"}
        assert report["teacher"]["exposed_overlap"][attack]["top"]["0.1"]["k"] == 6
    for name in ("teacher", "students/sft"):
        other = read(project, f"results/{name}/membership.json")
        assert "no_kd" not in other["controls"] and set(other["attacks"]) | set(other["not_applicable"]) == set(
            report["attacks"]
        )


def test_every_block_of_the_teacher_and_the_students_is_measured(project):
    teacher, student = (read(project, f"results/{name}/blocks.json") for name in ("teacher", "students/kd"))
    assert [block["index"] for block in teacher["blocks"]] == [0, 1] and len(student["blocks"]) == 1
    for block in [*teacher["blocks"], *student["blocks"]]:
        assert block["auc_ci95"][0] <= block["auc"] <= block["auc_ci95"][1]
        assert block["auc_monte_carlo_error"] >= 0
    null = read(project, "results/students/sft/blocks.json")["blocks"][0]
    excess = student["blocks"][0]["excess_over_no_kd"]["difference"]
    assert excess == pytest.approx(student["blocks"][0]["auc"] - null["auc"], abs=2e-6)
    assert (teacher["sigma"], teacher["n_perturbations"]) == (1.0, 4)


def test_what_each_model_gives_back_stands_beside_the_student_without_a_teacher(project):
    teacher, student, null = (
        read(project, f"results/{name}/memorization.json") for name in ("teacher", "students/kd", "students/sft")
    )
    for figure in ("token_accuracy", "token_accuracy_as_published", "rouge_l", "edit_similarity"):
        assert student[figure]["no_kd"] == null[figure]
        assert teacher[figure]["gap"] == pytest.approx(
            teacher[figure]["members"] - teacher[figure]["nonmembers"], abs=2e-6
        )
    assert [point["threshold"] for point in student["inheritance"]][:2] == [0.5, 0.6] and "inherited" in student
    planted = pd.read_parquet(project.folder / "data/canaries.parquet")
    assert planted["repetitions"].value_counts().to_dict() == {0: 30, 1: 2, 4: 2, 16: 2}
    assert read(project, "results/teacher/training.json")["canary_rows"] == 2 * 21
    assert set(student["extraction"]["canaries"]["repetitions"]) == {"1", "4", "16"}
    records = pd.read_parquet(project.folder / "data/records.parquet", columns=["record_id", "task"])
    assert not set(records["record_id"]) & set(planted["record_id"]) and "canary" not in set(records["task"])
    assert set(pd.read_parquet(project.folder / "results/teacher/scores.parquet")["role"]) == {"private", "heldout"}


def test_every_key_of_the_results_has_an_entry_in_the_page_of_measures(project):
    for model in ("teacher", "students/sft", "students/kd"):
        for name in FILES:
            assert without_entry(read(project, f"results/{model}/{name}")) == set(), (model, name)


def test_a_second_run_changes_nothing(project):
    before = contents(project)
    done = project.dvc("repro")
    assert done.returncode == 0, done.stderr
    assert ran(done) == {"params"}
    assert contents(project) == before
    status = project.dvc("status", "summary", "--with-deps").stdout
    assert status.split() == ["params:", "always", "changed"]


def test_comments_bytecode_and_speed_run_no_stage_and_code_runs_those_that_import_it(project, monkeypatch):
    """Speed and memory decide no result; nor does what Python compiles beside the code."""
    monkeypatch.setenv("PYTHONPATH", str(project.folder / "src"))
    for part in ("data/synthetic", "models", "distill", "auditing", "stats", "report"):
        compiled = project.folder / "src/kdleak" / part / "__pycache__/made.cpython-311.pyc"
        compiled.parent.mkdir(exist_ok=True)
        compiled.write_bytes(b"bytecode")
    source = project.folder / "src/kdleak/render/roc.py"  # summary alone draws with it
    text, params = source.read_text(), project.folder / "params.yaml"
    before = params.read_text()
    source.write_text(text.replace('"""ROC curves', '"""Curves') + "# a comment\n")
    settings = yaml.safe_load(before)
    settings["compute"] |= {"batch_tokens": 512, "generation_batch": 8, "micro_batch_tokens": 900}
    params.write_text(yaml.safe_dump(settings, sort_keys=False))
    done = project.dvc("repro")
    assert done.returncode == 0 and ran(done) == {"params"}, done.stdout + done.stderr
    source.write_text(text.replace('lw=1, ls=":"', 'lw=2, ls=":"'))
    done = project.dvc("repro")
    assert done.returncode == 0 and ran(done) == {"params", "summary"}, done.stdout + done.stderr
    source.write_text(text)
    params.write_text(before)


def test_a_bit_flipped_in_a_checkpoint_is_noticed_and_the_remedy_brings_it_back(project):
    path = project.folder / "models/students/sft/model.safetensors"
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert "modified:           models/students/sft" in project.dvc("status", "sft").stdout
    shutil.rmtree(path.parent)
    done = project.dvc("repro", "sft")
    assert done.returncode == 0 and ran(done) == {"params"}, done.stdout + done.stderr
    assert path.read_bytes() == whole


def test_an_earlier_judgement_comes_back_from_the_run_cache(project):
    """Where the lock has gone on to another result, or is lost, nothing is computed twice."""
    before = contents(project)
    lock = project.folder / "study" / "dvc.lock"
    locked = yaml.safe_load(lock.read_text())
    del locked["stages"]["judge@kd"]
    lock.write_text(yaml.safe_dump(locked, sort_keys=False))
    (project.folder / "results/students/kd/membership.json").unlink()
    done = project.dvc("repro", "study/dvc.yaml:judge@kd")
    assert done.returncode == 0 and "'study/dvc.yaml:judge@kd' is cached - skipping run" in done.stdout, done.stdout
    assert contents(project) == before


def test_git_holds_few_small_results(project):
    """All of them: what `make repro` changes on another machine is among these, and the locks."""
    project._git(project.folder, "add", "-A")
    held = project._git(project.folder, "ls-files", "results").stdout.split()
    assert sorted(name for name in held if not name.endswith(".gitignore")) == [
        "results/checks/report.json", "results/defences/frontier.csv", "results/defences/frontier.json",
        "results/defences/frontier.svg", "results/epsilon/report.json", "results/metrics.json", "results/roc.csv",
        "results/roc.svg", "results/shadow/report.json", "results/training.csv",
    ]  # fmt: skip
    assert sum((project.folder / name).stat().st_size for name in held) < 200_000
    written = (ROOT / "CONTRIBUTING.md").read_text()
    for name in (*held, "dvc.lock", "study/dvc.lock"):
        named = name if name.endswith(".lock") else name.rpartition("/")[2]
        assert f"`{named}`" in written or name.endswith((".gitignore", "report.json")), name


def test_the_results_table_names_teacher_student_and_baseline(project):
    shown = project.kdleak("results").stdout
    titles = ("teacher", "no-KD student", "Memorization", "exposure, 16x", "loss", "95 % interval")
    for words in (*titles, "perplexity", "exposed block"):
        assert words in shown


@pytest.fixture(scope="module")
def other_objective(project) -> subprocess.CompletedProcess:
    """An experiment beside the first run."""
    return project.experiment(**{"kd.method": "rkl"})


def test_experiments_are_compared_in_a_table_that_fits_a_terminal(project, other_objective):
    """Method and AUC stand first; all of it within 120 columns where only what changed is asked for."""
    for attack in ("zlib", "ez"):  # beside the other objective's
        assert project.dvc("exp", "run", **{"report.headline": attack}).returncode == 0
    before = os.times()
    shown = project.dvc("exp", "show", "--no-pager", "--only-changed")
    seconds = os.times().children_user + os.times().children_system - before.children_user - before.children_system
    assert shown.returncode == 0 and seconds < 5
    head = project.run("git", "rev-parse", "HEAD").stdout.strip()
    assert len(project.run("git", "for-each-ref", f"refs/exps/{head[:2]}/{head[2:]}/*").stdout.splitlines()) == 3
    assert all(len(line) <= 120 for line in shown.stdout.splitlines())
    assert "method" in shown.stdout and "student_auc" in shown.stdout
    assert len(read(project, "results/metrics.json")) == 12
    assert "student_auc" in project.dvc("metrics", "diff").stdout
    assert "report.headline" in project.dvc("params", "diff").stdout
    plotted = project.dvc("plots", "diff", "HEAD", "--targets", "results/roc.csv", "-o", str(project.home / "plots"))
    assert plotted.returncode == 0 and (project.home / "plots/index.html").is_file(), plotted.stderr


def test_another_objective_trains_that_student_alone(project, other_objective):
    done = other_objective
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert ran(done) == {"params", "text@rkl", "distill@rkl", "measure@rkl", "judge@rkl", "summary"}
    assert read(project, "results/metrics.json")["method"] == "rkl"


def test_a_technique_with_one_thing_changed_is_audited_and_not_kept(project):
    project.commit("results so far")
    params = project.folder / "params.yaml"
    text = params.read_text()
    for name, values in {"lr_multipliers": "[0.5]", "fractions": "[1]"}.items():
        assert f"{name}: []" in text
        text = text.replace(f"{name}: []", f"{name}: {values}")
    params.write_text(text)
    done = project.dvc("repro", "study/dvc.yaml:rates@kd-0.5", "study/dvc.yaml:fractions@kd-1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    plain = read(project, "results/students/kd/training.json")
    for run in ("rate-0.5", "fraction-1"):
        folder = project.folder / "results/students/kd/runs" / run
        assert sorted(f.name for f in folder.iterdir()) == [
            "membership.json", "scores.parquet", "training.json", "utility.json",
        ]  # fmt: skip
        attacks = read(project, f"results/students/kd/runs/{run}/membership.json")["attacks"]
        assert {"loss", "ez", "ref_no_kd", "ref_pretrained", "wbc"} <= set(attacks) and "mope" not in attacks
    assert read(project, "results/students/kd/runs/rate-0.5/training.json")["lr"] == 0.5 * plain["lr"]
    swept = read(project, "results/students/kd/runs/fraction-1/training.json")
    assert swept["realised"]["student_token_share"] == 1 and swept["starts_from"] == plain["starts_from"]
    assert not list((project.folder / "models/variants").rglob("*.safetensors"))
    done = project.run("env", "DVC_STAGE=report", "kdleak", "report")
    assert done.returncode == 0, done.stderr
    page = (project.folder / "results/report.html").read_text()
    assert "0.5 and 1 times its recipe" in page and "fraction-1" in page


def test_stages_of_runs_beside_the_default_ones_differ_in_what_they_change_alone():
    """What one of them was seen to read is what all of them declare."""
    stages = yaml.safe_load((ROOT / "study/dvc.yaml").read_text())["stages"]
    trials = {name: stage for name, stage in stages.items() if stage.get("cmd", "").startswith("kdleak trial")}
    assert set(trials) == {"rates", *TRIALS}
    for stage in trials.values():
        assert {k: v for k, v in stage.items() if k not in ("matrix", "desc", "cmd", "outs")} == {
            k: trials["rates"][k] for k in ("wdir", "deps", "params")
        }
        factor = stage["cmd"].split()[-1]
        assert stage["outs"] == [f"results/students/${{item.method}}/runs/{factor}"]


def test_a_defence_runs_the_stages_that_it_acts_on_and_is_named_beside_the_figures(project):
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    assert project.experiment(**{"kd.method": "kd"}).returncode == 0
    before = contents(project)
    # Under the same defence, all:
    student = {"text@kd", "distill@kd", "measure@kd", "judge@kd", "control", "shadow", "defences", "epsilon"}
    done = project.experiment(**{"kd.method": "kd", "defence.name": "top_k", "defence.k": 3})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert ran(done) == {"params", *student, "summary"}
    assert read(project, "results/metrics.json")["defence"] == "top_k"
    assert "defence" not in read(project, "results/teacher/training.json")
    private = {"kd.method": "kd", "defence.name": "dp_sgd", "defence.sigma": 0.8, "defence.k": "null"}
    done = project.experiment(**private)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert ran(done) == {"params", "teacher", "measure-teacher", "judge-teacher", *student, "summary"}
    metrics, spent = (read(project, f"results/{name}.json") for name in ("metrics", "teacher/training"))
    assert (metrics["defence"], metrics["epsilon"]) == ("dp_sgd", spent["defence"]["epsilon"])
    assert spent["defence"]["groups"]["planted canaries"]["size"] == 16
    done = project.run("env", "DVC_STAGE=report", "kdleak", "report")
    page = (project.folder / "results/report.html").read_text()
    assert "dp_sgd on the teacher, clip 1.0, sigma 0.8; ε " in page and "for one record of private" in page, done.stderr
    done = project.experiment(**{"kd.method": "kd", "defence.name": "none", "defence.sigma": "null"})
    # All is in DVC's cache, but for what stands in git: headline, shadow models, grid, bounds on ε (none here).
    assert ran(done) == {"params", "shadow", "defences", "epsilon", "summary"} and contents(project) == before


#: Parameters that a stage looks at and whose value decides nothing of its result.
LOOKED_AT = {
    "sft": ("kd.student_fraction",),  # the baseline has no text of its own making
    "text": ("kd.student_fraction", "kd.lm_corpus", "kd.recipes"),  # of a recipe it needs whose text it trains on
    "control": ("audit",),  # settings of passes that it does not make
    "rates": ("study",),  # its own arguments are compared with the lists
    "fractions": ("study",),
}
#: Stages of runs that are declared as `rates` is.
TRIALS = ("seeds", "grids", "fractions", "corpora")


def test_no_stage_reads_a_file_a_parameter_or_code_that_it_does_not_declare(project):
    """After all stages have run at least once: what they opened, looked up and imported, against dvc.yaml."""
    settings = SourceTree(ROOT / "src").closure("kdleak.config.schema")
    named = SourceTree(ROOT / "src").closure(METHODS_PACKAGE)  # the command line looks up whether a method exists
    defences = SourceTree(ROOT / "src").closure(DEFENCES_PACKAGE)  # a stage looks up which one acts on it
    own = {"kdleak", "kdleak.__main__", "kdleak.pipeline", *(module.name for module in [*settings, *named, *defences])}
    seen = set()
    for file in sorted(project.stages.glob("*.json")):
        found = json.loads(file.read_text())
        stage, command = found["stage"].rpartition(":")[2], found["command"][0]
        if command == "params":
            continue  # the stage that always runs
        names, place = declared(project.folder, found["stage"], found["settings"]), (found["stage"], found["command"])
        assert not [f for f in found["files"] if f != "params.yaml" and not names.reads(f) and not private(f)], place
        # The defence that acts on a stage stands in its fingerprint, knobs and all.
        allowed = ("compute", "defence", *LOOKED_AT.get(stage.split("@")[0], ()))
        undeclared = [key for key in found["params"] if not names.takes(key) and not key.startswith(allowed)]
        assert not undeclared, (place, undeclared)
        known = {line.split()[1] for line in (project.folder / names.code).read_text().splitlines()}
        idle = (
            *PLUMBING,
            "kdleak.core.yaml_file",  # reads params.yaml, which stages declare by key
            METHODS_PACKAGE,
            *IDLE.get(command, ()),
            *([ATTACKS_PACKAGE] if command in ("measure", "control") else []),
        )
        strange = [m for m in set(found["modules"]) - known - own if not m.startswith(idle)]
        assert not strange, (place, sorted(strange))
        seen.add(stage.split("@")[0])
    assert seen == set(stage_names()) - {"params", "seeds", "grids", "corpora"}


def private(file: str) -> bool:
    """State of this folder that decides nothing: caches, an unfinished training, a student that is not kept. And code,
    which stands among the modules: where the package is imported from this folder, MLflow's imports open files of it,
    compiled or, the first time, not."""
    return file.startswith((".kdleak/", "models/variants/")) or file.endswith((".py", ".pyc"))


def stage_names() -> set[str]:
    files = [yaml.safe_load((ROOT / name).read_text()) for name in ("dvc.yaml", "study/dvc.yaml")]
    return {name for file in files for name in file["stages"]}


def test_every_method_of_the_study_has_a_stage_and_the_others_say_what_they_need(project):
    listed = project.dvc("stage", "list", "--all", "--name-only").stdout.split()
    asked = load_params(ROOT / "params.yaml").study.methods
    assert "sft" in listed and {f"study/dvc.yaml:distill@{method}" for method in asked} <= {*listed}
    parameters = (project.folder / "params.yaml").read_bytes()
    for method in METHODS.keys() - {"sft", *asked}:
        done = project.experiment(**{"kd.method": method})
        assert done.returncode != 0 and f"'{method}' is not in study.methods; add -S" in done.stdout + done.stderr
    (project.folder / "params.yaml").write_bytes(parameters)


def test_no_private_text_leaves_data_and_models(project):
    records = pd.read_parquet(project.folder / "data/records.parquet")
    secrets = pd.read_parquet(project.folder / "data/canaries.parquet")
    private = [*records.loc[records["role"] == "private", "response"], *secrets["response"]]
    marks = [text[:40] for text in private if len(text) >= 20]
    assert len(marks) > SMOKE["data.sizes.private"]
    written = [project.folder / "mlflow.db"]
    for place in ("results", "mlartifacts", ".dvc/tmp", "study"):
        written += [path for path in (project.folder / place).rglob("*") if path.is_file()]
    assert len(written) > 40 and any(path.suffix == ".html" for path in written)
    for path in written:
        if path.suffix == ".parquet":
            content = pd.read_parquet(path).to_csv()
        else:
            content = path.read_bytes().decode("utf-8", "replace")
        assert not [mark for mark in marks if mark in content], path
    assert not [mark for mark in marks if mark in project.shown]


def test_no_stage_opens_a_socket_to_listen_on(project):
    watch = "import socket; socket.socket().bind(('127.0.0.1', 0))"
    assert not project.sockets.exists() and not sockets_of(address()).exists()
    assert project.run(sys.executable, "-c", watch).returncode == 0
    assert "127.0.0.1" in project.sockets.read_text()  # the watch itself works
    project.sockets.unlink()


def test_mlflow_knows_every_run_and_sync_adds_none(project):
    with sqlite3.connect(project.folder / "mlflow.db") as store:
        names = [name for (name,) in store.execute("select name from runs where lifecycle_stage = 'active'")]
    for words in ("teacher", "kd", "rkl", "sft", "membership"):
        assert any(words in name for name in names), names
    # The rkl experiment took the teacher's audits from the cache: the summary nests them under its parent too.
    assert "sync: 0 run(s) added" in project.kdleak("sync").stdout


#: The commands of its arguments, one after another: what one leaves in the process changes nothing of the next.
IN_ONE_PROCESS = """
import sys
from kdleak.cli.main import app
for command in sys.argv[1:]:
    app(command.split(), standalone_mode=False)
"""


def test_the_same_seed_gives_byte_identical_results(project):
    names = ["membership.json", "roc.csv", "training.json"]
    files = [project.folder / "results/students/rkl" / name for name in names]
    files += [project.folder / "results/teacher/training.json", project.folder / "results/base/teacher.json"]
    before = [file.read_bytes() for file in files]
    shutil.rmtree(project.folder / ".kdleak")
    for file in files:
        file.unlink()
    commands = ("base", "teacher", "distill sft", "distill rkl", "measure rkl", "judge rkl")
    done = project.run(sys.executable, "-c", IN_ONE_PROCESS, *commands)
    assert done.returncode == 0, done.stderr
    assert [file.read_bytes() for file in files] == before
