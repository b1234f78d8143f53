"""MLflow holds what the result files hold: every run once, however often and by however many it is logged."""

from __future__ import annotations

import json
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
from kdleak.render.attack_roc import attack_roc_figure
from kdleak.tracking import mlflow
from kdleak.tracking.content import AUDITS
from kdleak.tracking.store import EXPERIMENT, tracking_uri
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
    monkeypatch.setattr("kdleak.render.attack_roc.attack_roc_figure", lambda *_: Figure(figsize=(1, 1)))
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


ALL = {
    f"{method} seed 0": {"teacher", f"distill {method}"}
    | {f"{audit} {name}" for audit in AUDITS for name in (method, "teacher")}
    for method in ("kd", "rkl")
} | {"sft seed 0": {"distill sft", *(f"{audit} sft" for audit in AUDITS)}}


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


def test_stages_logged_as_they_end_leave_nothing_to_sync(project, params, monkeypatch, capsys):
    monkeypatch.setenv("DVC_STAGE", "distill@kd")
    monkeypatch.setenv("DVC_EXP_NAME", "puny-gnat")
    for stage, name in (
        [("teacher", "teacher"), ("measure", "teacher")]
        + [(stage, m) for m in ("sft", "kd", "rkl") for stage in ("distill", "measure")]
        + [("summary", "kd")]
    ):
        mlflow.log_stage(project, params, stage, name)
    assert capsys.readouterr().err == ""
    found = logged(project)
    assert sum(map(len, found.values())) == 24  # the teacher's audits stand under the headline student alone
    kd = {run.info.run_name: run.data.tags for run in found["kd seed 0"]}
    assert kd["distill kd"]["dvc.stage"] == "distill@kd"
    assert kd["distill kd"]["dvc.exp_name"] == kd["kd seed 0"]["dvc.exp_name"] == "puny-gnat"
    assert "dvc.stage" not in kd["kd seed 0"]
    assert "dvc.stage" in kd["teacher"]
    assert mlflow.sync(project, params) == len(AUDITS)


def test_the_parent_shows_the_headline_and_the_recipe(project, params):
    mlflow.sync(project, params)
    parents = {title: runs[0].data for title, runs in logged(project).items()}
    assert parents["kd seed 0"].metrics["auc"] == pytest.approx(0.7)
    assert parents["kd seed 0"].metrics["auc_zlib"] == pytest.approx(0.65)
    assert parents["kd seed 0"].metrics["tpr_at_1pct_fpr"] == pytest.approx(0.35)
    assert parents["kd seed 0"].metrics["token_accuracy_members"] == pytest.approx(0.4)
    assert parents["kd seed 0"].metrics["perplexity"] == pytest.approx(22.0)
    assert parents["kd seed 0"].metrics["excess_auc"] == pytest.approx(0.2)
    assert "excess_auc" not in parents["rkl seed 0"].metrics
    assert parents["rkl seed 0"].params["kd.lr"] == str(params.kd.recipes["rkl"].lr)
    assert parents["rkl seed 0"].params["method"] == "rkl"


def test_nested_runs_hold_steps_data_checkpoint_and_figure(project, params):
    from mlflow import MlflowClient

    mlflow.sync(project, params)
    kd = {run.info.run_name: run for run in logged(project)["kd seed 0"]}
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


def test_a_changed_result_is_a_new_run_and_the_old_one_says_so(project, params):
    mlflow.sync(project, params)
    first = project.membership("kd").read_text()
    write(project.membership("kd"), membership(0.8))
    assert mlflow.sync(project, params) == 1
    runs = [run for run in logged(project)["kd seed 0"] if run.info.run_name == "membership kd"]
    assert [run.data.tags.get("kdleak.superseded") for run in runs] == [None, "true"]
    assert logged(project)["kd seed 0"][0].data.metrics["auc"] == pytest.approx(0.8)
    write(project.membership("kd"), first)
    assert mlflow.sync(project, params) == 0
    runs = [run for run in logged(project)["kd seed 0"] if run.info.run_name == "membership kd"]
    assert [run.data.tags.get("kdleak.superseded") for run in runs] == ["true", "false"]


def test_other_parameters_seeds_or_data_are_other_parents(project, params):
    mlflow.log_stage(project, params, "distill", "kd")
    faster = params.kd.recipes["kd"].model_copy(update={"lr": 0.5})
    recipes = {**params.kd.recipes, "kd": faster}
    changed = params.model_copy(update={"kd": params.kd.model_copy(update={"recipes": recipes})})
    for other in (changed, params.model_copy(update={"seed": 1})):
        assert titles_of_new(project, other) == {"distill kd", "teacher"}
    splits = pd.read_parquet(project.splits)
    splits.iloc[1:].to_parquet(project.splits)
    assert titles_of_new(project, params) == {"distill kd", "teacher"}


def titles_of_new(project: Project, params: Params) -> set[str]:
    """What logging the kd student adds."""
    before = run_ids(project)
    mlflow.log_stage(project, params, "distill", "kd")
    return {name for identity, name in run_ids(project).items() if identity not in before} - {f"kd seed {params.seed}"}


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
        mlflow.log_stage(project, params, "measure", "sft")
    assert mlflow.sync(project, params) == 26
    assert titles(project) == ALL
    assert sum(map(len, logged(project).values())) == 28


@pytest.mark.parametrize("uri", ["http://someone:hunter2@127.0.0.1:9", "file:///nowhere/runs"])
def test_a_store_that_cannot_be_reached_is_one_warning_and_sync_an_error(project, params, monkeypatch, capsys, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.log_stage(project, params, "distill", "kd")
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
    mlflow.prepare(project)
    mlflow.log_stage(project, params, "distill", "kd")
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.startswith("kdleak: warning: MLflow at sqlite:///")
    assert "mlflow.db" in shown and "move it away, a new one is made; 'kdleak sync' logs this stage later" in shown
    with pytest.raises(KdleakError, match=r"mlflow\.db did not take the run .*; move it away, a new one is made"):
        mlflow.sync(project, params)
    assert path.read_bytes() == damaged


def test_a_full_disk_is_one_warning_in_the_databases_own_words(project, params, capsys):
    (project.root / "mlflow.db").unlink()
    mlflow.prepare(project)
    with largest_file((project.root / "mlflow.db").stat().st_size):
        mlflow.log_stage(project, params, "distill", "kd")
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.startswith("kdleak: warning: MLflow at sqlite:///")
    assert "did not take the run (disk I/O error); free some space on the disk; 'kdleak sync' logs this" in shown
    assert mlflow.sync(project, params) > 0
    assert mlflow.sync(project, params) == 0


LOGGER = """
import sys
from pathlib import Path
from kdleak import tracking
from kdleak.params_file import load_params
from kdleak.paths import Project
project = Project(Path(sys.argv[1]))
for name in sys.argv[2:]:
    for stage in ("distill", "measure"):
        mlflow.log_stage(project, load_params(project.params), stage, name)
"""


def test_processes_that_log_at_once_lose_and_double_no_run(project):
    def log(methods: list[str]) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", LOGGER, str(project.root), *methods]
        return subprocess.run(command, capture_output=True, text=True)

    with ThreadPoolExecutor() as pool:
        for done in pool.map(log, [["kd", "rkl"], ["rkl", "kd"]]):
            assert (done.returncode, done.stderr) == (0, "")
    assert titles(project) == {
        f"{m} seed 0": {"teacher", f"distill {m}", *(f"{audit} {m}" for audit in AUDITS)} for m in ("kd", "rkl")
    }
    assert sum(map(len, logged(project).values())) == 14


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
    assert found["kd seed 0"][0].data.params["teacher.epochs"] == str(params.teacher.epochs)
    assert found["rkl seed 0"][0].data.params["teacher.epochs"] == str(params.teacher.epochs)


def test_a_student_of_an_earlier_teacher_is_left_out(project, params):
    lock(project, **{"models/teacher": "dir-of-another-teacher"})
    mlflow.sync(project, params)
    assert titles(project) == {
        "kd seed 0": {"teacher", *(f"{audit} teacher" for audit in AUDITS)},
        "sft seed 0": ALL["sft seed 0"],
    }


def test_a_result_that_is_not_what_its_stage_wrote_is_left_out(project, params):
    lock(project, **{"results/students/rkl/membership.json": "0" * 32})
    mlflow.sync(project, params)
    assert titles(project) == {**ALL, "rkl seed 0": ALL["rkl seed 0"] - {"membership rkl"}}


def test_the_results_table_refuses_figures_of_other_runs_than_params_yaml_s(project, params):
    lock(project)
    known = Provenance(project)
    assert known.outdated(project.membership("kd"), params) is None
    other = params.model_copy(update={"teacher": params.teacher.model_copy(update={"epochs": 99})})
    assert known.outdated(project.membership("kd"), other) == "teacher.epochs"
    lock(project, **{"models/teacher": "dir-of-another-teacher"})
    assert Provenance(project).outdated(project.membership("kd"), params) == "what it was made from"
