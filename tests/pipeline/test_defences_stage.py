"""The defences stage on a few dozen records: what it trains, what it keeps, what it makes anew."""

from __future__ import annotations

import shutil

import pytest

from kdleak.core.files import read_csv, read_json, read_parquet, write_json
from kdleak.pipeline import defences, defended
from kdleak.pipeline.defended import KEPT, TEACHERS_TRAINING
from tests.docs.test_measures import without_entry
from tests.support.frontier import GRID, audited_project, in_this_process, settings

#: Keys of frontier.json that are names of points, knobs and groups.
NAMED = {"none", "no-KD", "early_stop-epochs-1", "top_k-k-2", "epochs", "k"}
POINTS = ["none-seed-0", "early_stop-epochs-1-seed-0", "top_k-k-2-seed-0"]


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    return audited_project(tmp_path_factory.mktemp("audited"))


@pytest.fixture
def project(audited, tmp_path):
    shutil.copytree(audited.root, tmp_path / "project")
    return type(audited)(tmp_path / "project")


@pytest.fixture
def made(monkeypatch):
    """The models that are made, in order."""
    calls = []

    def run(make, tasks, workers):
        for task, result in in_this_process(make, tasks, workers):
            calls.append((task[0].name, str(task[1])))
            yield task, result

    monkeypatch.setattr(defences, "run_tasks", run)
    return calls


def test_every_point_is_trained_with_its_defence_and_audited(project, made):
    defences.make_grid(settings(), project)
    students = [(name, "kd") for name in POINTS]
    assert made == [(POINTS[1], "teacher"), *students]  # top_k's students learn from the project's own teacher
    for name in POINTS:
        folder = project.defended / name / "kd"
        assert {f.name for f in folder.iterdir()} == {*KEPT, TEACHERS_TRAINING, "origin.json"}
        assert set(read_json(folder / "membership.json")["attacks"]) == {"loss", "ez", "ref_no_kd"}
    assert not (project.root / ".kdleak" / "defences").exists()


def test_a_grid_that_was_stopped_goes_on_and_what_changed_is_made_anew(project, made, capsys):
    defences.make_grid(settings(), project)
    shutil.rmtree(project.defended / POINTS[1])
    made.clear()
    defences.make_grid(settings(), project)
    assert made == [(POINTS[1], "teacher"), (POINTS[1], "kd")]
    made.clear()
    longer = [*GRID, {"name": "label_only"}]
    defences.make_grid(settings(**{"defence.grid": longer, "kd.recipes.seqkd.lr": 0.5}), project)
    assert made == [("label_only-seed-0", "kd")]
    made.clear()
    defences.make_grid(settings(**{"kd.recipes.kd.lr": 0.5}), project)
    assert [name for name, model in made if model == "kd"] == POINTS
    assert "none-seed-0: other settings, data or code; made anew" in capsys.readouterr().err


def test_the_files_say_what_the_results_say(project, made):
    defences.make_grid(settings(**{"defence.seeds": [1]}), project)
    found = read_json(project.frontier)
    names = ["none", "early_stop-epochs-1", "top_k-k-2"]
    assert [(row["name"], row["seed"]) for row in found["points"]] == [(n, s) for s in (0, 1) for n in names]
    assert [row["point"] for row in found["compared"]] == [*names, "no-KD"]
    assert made.count(("none-seed-1", "teacher")) == 1  # one undefended teacher for all that leave the teacher alone
    for row in found["points"]:
        folder = project.defended / f"{row['name']}-seed-{row['seed']}" / "kd"
        aucs = read_json(folder / "membership.json")["attacks"]
        assert row["perplexity"] == pytest.approx(read_json(folder / "utility.json")["perplexity"])
        for attack, own in row["attacks"].items():
            assert own["leak"] == pytest.approx(abs(aucs[attack]["auc"] - 0.5) + 0.5, abs=1e-5)
            low, high = own["leak_ci95"]
            assert 0.5 <= low <= own["leak"] <= high
    undefended = [row["attacks"] for row in found["points"] if row["defence"] == "none"]
    assert found["attack"] == max(undefended[0], key=lambda a: sum(row[a]["leak"] for row in undefended))
    assert len(read_csv(project.frontier_table)) == 6 and project.frontier_figure.read_text().startswith("<svg ")
    assert without_entry({key: found[key] for key in found if key != "left_out"} | {"left_out": {}}) <= NAMED
    verdict = found["compared"][2]
    assert verdict["verdict"] and not verdict["adaptive_attack"]


def test_a_defence_that_a_method_excludes_is_told_and_left_out(project, made):
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    grid = [{"name": "dp_student", "sigma": 1.0}]
    defences.make_grid(settings(**{"defence.grid": grid, "defence.methods": ["imitkd"]}), project)
    left_out = read_json(project.frontier)["left_out"]
    assert list(left_out) == ["dp_student-sigma-1.0-seed-0 imitkd"] and "cannot train 'imitkd'" in left_out.popitem()[1]
    assert made == [("none-seed-0", "imitkd")]


def test_epsilon_is_that_of_the_training_that_spent_it_and_says_whose_records_it_covers(project, made):
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    grid = [{"name": "dp_sgd", "sigma": 1.0}, {"name": "dp_student", "sigma": 2.0}]
    defences.make_grid(settings(**{"defence.grid": grid}), project)
    _, of_teacher, of_student = read_json(project.frontier)["points"]
    spent = read_json(project.defended / "dp_sgd-sigma-1.0-seed-0" / "kd" / TEACHERS_TRAINING)["defence"]
    assert (
        of_teacher["epsilon"] == pytest.approx(spent["epsilon"], rel=1e-4) and of_teacher["epsilon_covers"] == "private"
    )
    assert of_teacher["epsilon_of_groups"].keys() == {"near-duplicates", "planted canaries"}
    assert of_student["epsilon"] < of_teacher["epsilon"] and of_student["epsilon_covers"] == "public"
    assert f"ε {of_teacher['epsilon']:.3g}<" in project.frontier_figure.read_text()


def test_the_text_of_a_teacher_is_that_of_its_defence(project, made, monkeypatch):
    texts = {}
    write = defended.write_training_text

    def kept(method, params, its):
        write(method, params, its)
        texts[params.defence.name] = read_parquet(its.training_text(method))["tokens"].map(tuple).tolist()

    monkeypatch.setattr(defended, "write_training_text", kept)
    defences.make_grid(settings(**{"defence.methods": ["seqkd"]}), project)
    assert len({tuple(each) for each in texts.values()}) == 3
    assert not project.training_text("seqkd").exists()


def test_shadow_models_of_a_point_are_trained_with_its_defence(project, made, monkeypatch):
    asked = {}

    def shadows(params, home):
        asked[params.defence.name] = (params.shadow.models, params.shadow.methods)
        gain = 0.0 if params.defence.name == "none" else 0.3
        by = {"loss": 0.8 - gain, "lira_online:loss": 0.9 - gain / 3}
        attacks = {name: {"auc": {"value": auc, "low": auc - 0.02, "high": auc + 0.02}} for name, auc in by.items()}
        write_json({"attacks": {"kd": attacks}}, home.shadow_report)

    monkeypatch.setattr(defences, "make_shadows", shadows)
    defences.make_grid(settings(**{"defence.shadows": 8}), project)
    assert asked == dict.fromkeys(("none", "early_stop", "top_k"), (8, ["kd"]))
    found = {row["point"]: row for row in read_json(project.frontier)["compared"]}
    assert found["top_k-k-2"]["adaptive"] == {
        "value": pytest.approx(0.8), "error": pytest.approx(0.02 / 1.96, abs=1e-6), "attack": "lira_online:loss",
        "looked_better_by": pytest.approx(0.2),
    }  # fmt: skip
    assert "adaptive" not in found["no-KD"]


def test_an_empty_grid_leaves_what_there_is(project, made):
    defences.make_grid(settings(**{"defence.grid": []}), project)
    assert read_json(project.frontier) == {"points": []} and len(read_csv(project.frontier_table)) == 0
    write_json({"points": [1]}, project.frontier)
    defences.make_grid(settings(**{"defence.grid": []}), project)
    assert read_json(project.frontier) == {"points": [1]} and not made
