"""MLflow holds what the result files hold: every run once, however often and by however many it is logged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5
from pathlib import Path

import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from kdleak.config.load import load_params
from kdleak.config.schema import Params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.data.records import ROLES, record_id
from kdleak.pipeline.provenance import Provenance
from kdleak.render.roc import attack_roc_figure
from kdleak.tracking import mlflow
from kdleak.tracking.content import AUDITS, method_runs, steps_of
from kdleak.tracking.store import EXPERIMENT, open_store, students_page, tracking_uri
from tests.support.disk_faults import largest_file

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "Marlowe Vex, account 4471-0093"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A store with tables and nothing in them; making it takes seconds, copying it none."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def params() -> Params:
    return load_params(REPOSITORY / "params.yaml")


@pytest.fixture
def project(tmp_path, monkeypatch, empty_database) -> Project:
    """A folder as a finished pipeline leaves it, and an empty store."""
    for variable in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    # A small figure is logged as a large one is, and drawn in no time.
    monkeypatch.setattr("kdleak.render.roc.attack_roc_figure", lambda *_: Figure(figsize=(1, 1)))
    (tmp_path / ".dvc").mkdir()
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    made = Project(tmp_path)
    ids = [record_id(SECRET, "", str(i)) for i in range(8)]
    write(made.splits)
    pd.DataFrame({"record_id": ids, "role": list(ROLES[:4]) * 2, "task": "open_qa", "group_id": ids}).to_parquet(
        made.splits
    )
    for i, name in enumerate(("teacher", "sft", "kd", "rkl")):
        history = [{"step": 10 * e, "epoch": e, "loss": 4.0 - e - i / 10, "lr": 1e-3} for e in (1, 2)]
        write(made.training(name), {"history": history, "records": 2})
        write(made.membership(name), membership(0.9 - i / 10))
        write(made.blocks(name), blocks(0.8 - i / 10))
        write(made.memorization(name), memorization(0.6 - i / 10))
        write(made.utility(name), {"perplexity": 20.0 + i, "rouge_l": 0.3, "rouge_l_ci95": [0.2, 0.4], "records": 2})
        write(made.roc(name), "attack,fpr,tpr\nloss,0.0,0.0\nloss,0.01,0.5\nloss,1.0,1.0\n")
        write(made.model(name) / "config.json", {"name": name})
        write(made.model(name) / "model.safetensors", "weights")
    write(made.metrics, {"method": "kd", "student_auc": 0.7, "teacher_auc": 0.9, "excess_auc": 0.2})
    return made


def membership(auc: float) -> dict:
    attack = {"auc": auc, "auc_ci95": [auc - 0.1, auc + 0.1], "tpr_at_fpr": {"0.01": auc / 2, "0": None}}
    return {
        "n_members": 2,
        "n_nonmembers": 2,
        "attacks": {"loss": attack, "zlib": {**attack, "auc": auc - 0.05}},
        "tasks": {"open (qa)": {"loss": attack}},
        "best_attack": "loss",
    }


def blocks(auc: float) -> dict:
    return {"n_perturbations": 2, "blocks": [{"index": 0, "auc": auc, "auc_ci95": [auc - 0.1, auc + 0.1]}]}


def memorization(accuracy: float) -> dict:
    figure = {"members": accuracy, "nonmembers": 0.1, "gap": accuracy - 0.1, "gap_ci95": [0.0, accuracy]}
    return {"token_accuracy": figure, "reproduced": figure, "extraction": {"facts": {"all": figure}}}


def write(path: Path, content: object = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def logged(project: Project) -> dict[str, list]:
    """Runs of the store by the title of their parent; the parent first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    parents = {run.info.run_id: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    nested = {run.info.run_name: [run] for run in parents.values()}
    assert len(nested) == len(parents)
    for run in runs:
        if "mlflow.parentRunId" in run.data.tags:
            nested[parents[run.data.tags["mlflow.parentRunId"]].info.run_name].append(run)
    return nested


def titles(project: Project) -> dict[str, set[str]]:
    return {parent: {run.info.run_name for run in nested[1:]} for parent, nested in logged(project).items()}


def title(method: str) -> str:
    return f"{method}, gpt2-tiny small, 500 members, seed 0"


ALL = {
    title(method): {"teacher", f"distill {method}"}
    | {f"{audit} {name}" for audit in AUDITS for name in (method, "teacher")}
    for method in ("kd", "rkl")
} | {title("sft"): {"distill sft", *(f"{audit} sft" for audit in AUDITS)}}


def test_sync_logs_every_run_under_its_parent_and_a_second_time_none(project, params):
    assert mlflow.sync(project, params) == 28
    assert titles(project) == ALL
    assert mlflow.sync(project, params) == 0
    assert sum(map(len, logged(project).values())) == 28


def test_an_emptied_store_is_filled_again(project, params, empty_database, monkeypatch):
    mlflow.sync(project, params)
    # MLflow keeps a connection to a file it has opened: another place stands for the deleted and remade one.
    elsewhere = project.root / "again" / "mlflow.db"
    elsewhere.parent.mkdir()
    shutil.copy(empty_database, elsewhere)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}")
    assert mlflow.sync(project, params) == 28
    assert (elsewhere.parent / "mlartifacts").is_dir()


def test_what_the_last_stages_log_leaves_nothing_to_sync(project, params, monkeypatch, capsys):
    """The summary of a `dvc repro` whose other students are yet to come, then the report of all."""
    monkeypatch.setenv("DVC_EXP_NAME", "puny-gnat")
    later = project.results("rkl").rename(project.root / "later")
    mlflow.log_results(project, params, fresh=project.metrics)
    assert titles(project) == {name: stages for name, stages in ALL.items() if "rkl" not in name}
    assert logged(project)[title("kd")][0].data.metrics["excess_auc"] == pytest.approx(0.2)
    later.rename(project.results("rkl"))
    write(project.report, "<html></html>")
    mlflow.log_results(project, params, fresh=project.report)
    assert capsys.readouterr().err == ""
    assert titles(project) == ALL
    assert {run.data.tags["dvc.exp_name"] for runs in logged(project).values() for run in runs} == {"puny-gnat"}
    assert mlflow.sync(project, params) == 0


def test_figures_that_the_stage_has_just_written_are_logged_before_the_lock_holds_them(project, params):
    lock(project)
    locks = yaml.safe_load((project.root / "dvc.lock").read_text())
    earlier = {"path": "results/metrics.json", "md5": "0" * 32}
    locks["stages"]["summary"] = {"cmd": "kdleak", "deps": [], "outs": [earlier]}
    write(project.root / "dvc.lock", yaml.safe_dump(locks))
    mlflow.sync(project, params)
    assert "excess_auc" not in logged(project)[title("kd")][0].data.metrics
    mlflow.log_results(project, params, fresh=project.metrics)
    assert logged(project)[title("kd")][0].data.metrics["excess_auc"] == pytest.approx(0.2)


def test_runs_have_the_times_of_their_stages_whenever_they_are_logged(project, params):
    for name, end in (("teacher", 1000), ("kd", 5000)):
        for i, audit in enumerate(AUDITS):
            os.utime(getattr(project, audit)(name), (end + 100 + i, end + 100 + i))
        os.utime(project.training(name), (end, end))
    write(project.times("distill", "kd"), {"start": 4940.0, "end": 5000.5})
    write(project.times("judge", "kd"), {"start": 5090.0, "end": 5104.0})
    write(project.times("teacher", "teacher"), {"start": 100.0, "end": 200.0})  # of another teacher
    for _ in range(2):
        mlflow.sync(project, params)
        runs = {run.info.run_name: run.info for run in logged(project)[title("kd")]}
        assert (runs["distill kd"].start_time, runs["distill kd"].end_time) == (4940_000, 5000_000)
        assert (runs["membership kd"].start_time, runs["membership kd"].end_time) == (5090_000, 5100_000)
        assert (runs["blocks kd"].start_time, runs["blocks kd"].end_time) == (5100_000, 5101_000)
        assert (runs["teacher"].start_time, runs["teacher"].end_time) == (1000_000, 1000_000)
        parent = runs[title("kd")]
        assert parent.start_time == 1000_000 and parent.end_time - parent.start_time == 60_000 + 13_000


def test_the_experiment_opens_as_one_of_training_runs_and_a_parent_says_what_it_is(project, params):
    from mlflow import MlflowClient

    write(project.report, "<html></html>")
    mlflow.sync(project, params)
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    view = f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=students"
    assert f"({view})" in experiment.tags["mlflow.note.content"]
    assert students_page(project) == f"http://127.0.0.1:5000/{view}"
    columns = json.loads(experiment.tags["mlflow.sharedViewState.students"])["selectedColumns"]
    metrics = logged(project)[title("kd")][0].data.metrics
    assert {c.split("`")[1] for c in columns if c.startswith("metrics.")} <= {*metrics, "rouge_l"}
    assert next(iter(method_runs(project, params, "kd", steps_of("kd")).metrics)) == "auc"  # what runs are compared by
    parent = logged(project)[title("kd")][0]
    assert "500 private records" in parent.data.tags["mlflow.note.content"]
    datasets = {i.dataset.name: i.tags[0].value for i in parent.inputs.dataset_inputs}
    assert datasets == {"synthetic public": "training", "synthetic private+heldout": "evaluation"}
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["report.html"]
    assert not client.list_artifacts(logged(project)[title("rkl")][0].info.run_id)


def test_the_student_is_a_logged_model_with_its_leak_and_without_its_weights(project, params):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")

    def models() -> dict:
        identity = client.get_experiment_by_name(EXPERIMENT).experiment_id
        return {model.source_run_id: model for model in client.search_logged_models([identity])}

    for auc in (0.7, 0.65):
        write(project.membership("kd"), membership(auc))
        mlflow.sync(project, params)
        assert len(models()) == 3
        parent = logged(project)[title("kd")][0]
        model = models()[parent.info.run_id]
        assert max(model.metrics, key=lambda m: (m.key == "auc", m.timestamp)).value == pytest.approx(auc)
        assert model.tags["checkpoint.path"] == "models/students/kd"
        assert parent.data.tags["checkpoint.sha256"] == model.tags["checkpoint.sha256"]
    files = [path.name for path in (project.root / "mlartifacts").rglob("*") if path.is_file()]
    assert files and not [name for name in files if "safetensors" in name]


def test_the_parent_shows_the_headline_and_the_recipe(project, params):
    mlflow.sync(project, params)
    parents = {title: runs[0].data for title, runs in logged(project).items()}
    assert parents[title("kd")].metrics["auc"] == pytest.approx(0.7)
    assert parents[title("kd")].metrics["auc_zlib"] == pytest.approx(0.65)
    assert parents[title("kd")].metrics["tpr_at_1pct_fpr"] == pytest.approx(0.35)
    assert parents[title("kd")].metrics["token_accuracy_members"] == pytest.approx(0.4)
    assert parents[title("kd")].metrics["perplexity"] == pytest.approx(22.0)
    assert parents[title("kd")].metrics["excess_auc"] == pytest.approx(0.2)
    assert "excess_auc" not in parents[title("rkl")].metrics
    assert parents[title("rkl")].params["kd.lr"] == str(params.kd.recipes["rkl"]["lr"])
    assert parents[title("rkl")].params["method"] == "rkl"


def test_nested_runs_hold_steps_data_checkpoint_and_figure(project, params):
    from mlflow import MlflowClient

    mlflow.sync(project, params)
    kd = {run.info.run_name: run for run in logged(project)[title("kd")]}
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    steps = client.get_metric_history(kd["distill kd"].info.run_id, "loss")
    assert [(m.step, m.value) for m in steps] == [(10, pytest.approx(2.8)), (20, pytest.approx(1.8))]
    assert kd["distill kd"].inputs.dataset_inputs[0].dataset.name == "synthetic public"
    assert kd["teacher"].inputs.dataset_inputs[0].dataset.name == "synthetic private"
    assert kd["distill kd"].data.tags["checkpoint.path"] == "models/students/kd"
    assert kd["distill kd"].data.tags["checkpoint.sha256"] != kd["teacher"].data.tags["checkpoint.sha256"]
    assert kd["membership kd"].data.metrics["auc_by_task/open _qa_"] == pytest.approx(0.7)
    assert [f.path for f in client.list_artifacts(kd["membership kd"].info.run_id)] == ["roc.png"]
    assert all(run.info.status == "FINISHED" for run in kd.values())


def test_a_technique_that_never_became_one_is_said_by_name_in_tag_and_metric(project, params):
    """DistiLLM's validation loss fell in every epoch: its scheduler never fired."""
    for place in ("results", "models"):
        shutil.copytree(project.root / place / "students/kd", project.root / place / "students/distillm")
    why = "not DistiLLM here: its validation loss never rose, so its scheduler never fired"
    made = json.loads(project.training("kd").read_text()) | {
        "options": {"threshold": 0.2},
        "realised": {"threshold": 0.2, "student_token_share": 0.217},
    }
    write(project.training("distillm"), made | {"mechanism": {"ran": False, "why": why}})
    write(project.training("kd"), made | {"mechanism": {"ran": True, "why": ""}})
    mlflow.sync(project, params)
    tags = {
        run.data.tags["method"]: (run.data.tags.get("mechanism"), run.data.metrics.get("realised_mechanism_ran"))
        for runs in logged(project).values()
        for run in runs
        if "method" in run.data.tags
    }
    assert tags["kd"] == ("ran", 1.0) and tags["sft"] == tags["rkl"] == (None, None)
    assert tags["distillm"][0].startswith("DistiLLM's scheduler never fired here: ") and tags["distillm"][1] == 0.0


def test_a_changed_result_is_a_new_run_and_the_old_one_says_so(project, params):
    mlflow.sync(project, params)
    first = project.membership("kd").read_text()
    write(project.membership("kd"), membership(0.8))
    assert mlflow.sync(project, params) == 1
    runs = [run for run in logged(project)[title("kd")] if run.info.run_name == "membership kd"]
    assert [run.data.tags.get("kdleak.superseded") for run in runs] == [None, "true"]
    assert logged(project)[title("kd")][0].data.metrics["auc"] == pytest.approx(0.8)
    write(project.membership("kd"), first)
    assert mlflow.sync(project, params) == 0
    runs = [run for run in logged(project)[title("kd")] if run.info.run_name == "membership kd"]
    assert [run.data.tags.get("kdleak.superseded") for run in runs] == ["true", "false"]


def test_other_parameters_seeds_or_data_are_other_parents(project, params):
    mlflow.sync(project, params)
    recipes = {**params.kd.recipes, "kd": {**params.kd.recipes["kd"], "lr": 0.5}}
    changed = params.model_copy(update={"kd": params.kd.model_copy(update={"recipes": recipes})})
    assert titles_of_new(project, changed) == ALL[title("kd")]
    assert titles_of_new(project, params.model_copy(update={"seed": 1})) == set().union(*ALL.values())
    splits = pd.read_parquet(project.splits)
    splits.iloc[1:].to_parquet(project.splits)
    assert titles_of_new(project, params) == set().union(*ALL.values())


def titles_of_new(project: Project, params: Params) -> set[str]:
    """What logging the kd student adds."""
    before = run_ids(project)
    mlflow.sync(project, params)
    added = {name for identity, name in run_ids(project).items() if identity not in before}
    return {name for name in added if " members, " not in name}


def run_ids(project: Project) -> dict[str, str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {run.info.run_id: run.info.run_name for run in client.search_runs([experiment.experiment_id])}


def test_a_run_whose_logging_was_cut_off_is_made_anew(project, params, monkeypatch, capsys):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow._Store, "_draw", killed)
        mlflow.log_results(project, params, fresh=project.metrics)
    assert mlflow.sync(project, params) > 20
    assert titles(project) == ALL
    assert sum(map(len, logged(project).values())) == 28


@pytest.mark.parametrize("uri", ["http://someone:hunter2@127.0.0.1:9", "file:///nowhere/runs"])
def test_a_store_that_cannot_be_reached_is_one_warning_and_sync_an_error(project, params, monkeypatch, capsys, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.log_results(project, params, fresh=project.metrics)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert shown.startswith("kdleak: warning: MLflow at ")
    assert "kdleak sync" in shown
    with pytest.raises(KdleakError, match="MLflow at") as caught:
        mlflow.sync(project, params)
    assert "hunter2" not in shown + str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda db: b"no database\n" * 99, lambda db: db[: len(db) // 2], lambda db: db[:80]]
)
def test_a_damaged_database_is_one_warning_with_the_remedy_and_stops_no_stage(project, params, capsys, damage):
    path = project.root / "mlflow.db"
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    mlflow.log_results(project, params, fresh=project.metrics)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.startswith("kdleak: warning: MLflow at sqlite:///")
    assert "mlflow.db" in shown and "move it away, a new one is made; 'kdleak sync' logs the results later" in shown
    with pytest.raises(KdleakError, match=r"mlflow\.db did not take the run .*; move it away, a new one is made"):
        mlflow.sync(project, params)
    assert path.read_bytes() == damaged


def test_a_full_disk_is_one_warning_in_the_databases_own_words(project, params, capsys):
    (project.root / "mlflow.db").unlink()
    with open_store(project):
        pass
    with largest_file((project.root / "mlflow.db").stat().st_size):
        mlflow.log_results(project, params, fresh=project.metrics)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.startswith("kdleak: warning: MLflow at sqlite:///")
    assert "did not take the run (disk I/O error); free some space on the disk; 'kdleak sync' logs the" in shown
    assert mlflow.sync(project, params) > 0
    assert mlflow.sync(project, params) == 0


LOGGER = """
import sys
from pathlib import Path
from kdleak.config.load import load_params
from kdleak.core.paths import Project
from kdleak.tracking import mlflow
project = Project(Path(sys.argv[1]))
mlflow.log_results(project, load_params(project.params), fresh=project.metrics)
"""


def test_processes_that_log_at_once_lose_and_double_no_run(project):
    def log(_: int) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", LOGGER, str(project.root)]
        return subprocess.run(command, capture_output=True, text=True)

    with ThreadPoolExecutor() as pool:
        for done in pool.map(log, range(2)):
            assert (done.returncode, done.stderr) == (0, "")
    assert titles(project) == ALL
    assert sum(map(len, logged(project).values())) == 28


def test_the_store_of_a_queued_experiment_is_the_repository_s(project, monkeypatch):
    queued = Project(project.root / ".dvc" / "tmp" / "exps" / "one")
    monkeypatch.setenv("DVC_ROOT", str(project.root))
    assert tracking_uri(queued) == f"sqlite:///{project.root / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert tracking_uri(queued) == "http://tracking:5000"


def test_the_store_holds_no_text_of_a_record(project, params):
    write(project.records, SECRET)
    mlflow.sync(project, params)
    stored = (project.root / "mlflow.db").read_bytes()
    assert b"membership kd" in stored
    assert SECRET.encode() not in stored
    assert record_id(SECRET, "", "0").encode() not in stored


def test_the_figure_has_a_curve_for_each_attack():
    curves = pd.DataFrame({"attack": ["loss"] * 3 + ["zlib"] * 3, "fpr": [0, 0.01, 1] * 2, "tpr": [0, 0.5, 1] * 2})
    axes = attack_roc_figure(curves, "kd").axes[0]
    assert [line.get_label() for line in axes.lines] == ["loss", "zlib", "chance"]
    assert axes.lines[0].get_xdata()[0] == axes.get_xlim()[0] > 0


def lock(project: Project, **changed: str) -> None:
    """dvc.lock as after a run with the parameters of params.yaml, but for the hashes of what was `changed` later."""
    settings = yaml.safe_load(project.params.read_text())

    def entry(path: str, at_run: bool = True) -> dict:
        file = project.root / path
        content = md5(file.read_bytes()).hexdigest() if file.is_file() else "dir-" + path
        return {"path": path, "md5": content if at_run else changed.get(path, content)}

    def stage(deps: list[str], outs: list[str], *keys: str) -> dict:
        values = {k: settings["kd"]["recipes"][k[-3:].lstrip(".")] if "." in k else settings[k] for k in keys}
        return {
            "cmd": "kdleak",
            "deps": [entry(d) for d in deps],
            "params": {"params.yaml": values},
            "outs": [entry(o, at_run=False) for o in outs],
        }

    stages = {"data": stage([], ["data/splits.parquet"], "seed", "data")}
    stages["teacher"] = stage(["data/splits.parquet"], ["models/teacher", "results/teacher/training.json"], "teacher")
    for method in ("kd", "rkl"):
        results = f"results/students/{method}"
        outs = [f"models/students/{method}", f"{results}/training.json"]
        stages[f"distill@{method}"] = stage(["models/teacher"], outs, f"kd.recipes.{method}")
        for audit in AUDITS:
            stages[f"{audit}@{method}"] = stage([f"models/students/{method}"], [f"{results}/{audit}.json"], "audit")
    write(project.root / "dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": stages}))


def test_results_are_logged_with_the_parameters_that_made_them(project, params):
    """After the run, params.yaml was edited and the pipeline not yet run again."""
    lock(project)
    teacher = params.teacher.model_copy(update={"epochs": 99})
    mlflow.sync(project, params.model_copy(update={"teacher": teacher}))
    found = logged(project)
    assert found[title("kd")][0].data.params["teacher.epochs"] == str(params.teacher.epochs)
    assert found[title("rkl")][0].data.params["teacher.epochs"] == str(params.teacher.epochs)


def test_a_run_names_the_defence_that_its_student_was_made_under_and_its_epsilon(project, params):
    spent = {
        "name": "dp_sgd",
        "acts_on": "teacher",
        "knobs": {"sigma": 0.5, "clip": 1.0},
        "epsilon": 7.5,
        "delta": 0.001,
    }
    write(project.training("teacher"), json.loads(project.training("teacher").read_text()) | {"defence": spent})
    mlflow.sync(project, params)
    found = logged(project)
    runs = [run.data for nested in found.values() for run in nested]
    parents = {run.params["method"]: run for run in runs if "method" in run.params}
    assert parents["kd"].params["defence.name"] == "dp_sgd" and parents["kd"].params["defence.sigma"] == "0.5"
    assert "defence.name" not in parents["sft"].params  # it has no teacher
    figures = [run.metrics for run in runs if "epsilon" in run.metrics]
    assert figures and all((f["epsilon"], f["delta"]) == (7.5, 0.001) for f in figures)


def test_a_student_of_an_earlier_teacher_is_left_out(project, params):
    lock(project, **{"models/teacher": "dir-of-another-teacher"})
    mlflow.sync(project, params)
    assert titles(project) == {
        title("kd"): {"teacher", *(f"{audit} teacher" for audit in AUDITS)},
        title("sft"): ALL[title("sft")],
    }


def test_a_result_that_is_not_what_its_stage_wrote_is_left_out(project, params):
    lock(project, **{"results/students/rkl/membership.json": "0" * 32})
    mlflow.sync(project, params)
    assert titles(project) == {**ALL, title("rkl"): ALL[title("rkl")] - {"membership rkl"}}


def test_the_results_table_refuses_figures_of_other_runs_than_params_yaml_s(project, params):
    lock(project)
    known = Provenance(project)
    assert known.outdated(project.membership("kd"), params) is None
    other = params.model_copy(update={"teacher": params.teacher.model_copy(update={"epochs": 99})})
    assert known.outdated(project.membership("kd"), other) == "teacher.epochs"
    lock(project, **{"models/teacher": "dir-of-another-teacher"})
    assert Provenance(project).outdated(project.membership("kd"), params) == "what it was made from"
