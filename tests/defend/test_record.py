"""The report names the defence that training.json does, its ε and whose records that covers."""

from __future__ import annotations

from types import SimpleNamespace

from kdleak.core.files import write_json
from kdleak.core.paths import Project
from kdleak.defend.record import defence_of
from kdleak.report.study.results import read_study
from kdleak.report.study.sections.run import what_was_run
from tests.support.study_results import StudyResults, params_of

SPENT = {
    "name": "dp_sgd",
    "acts_on": "teacher",
    "knobs": {"sigma": 0.5, "clip": 1.0},
    "epsilon": 7.5,
    "delta": 0.001,
    "groups": {"near-duplicates": {"size": 2, "epsilon": 31.0}},
    "covers": "private",
    "does_not_cover": "facts that many records state",
}


def test_a_student_is_of_its_teachers_defence_and_the_baseline_of_none(tmp_path):
    project = Project(tmp_path)
    assert defence_of("kd", project) is None
    write_json({"defence": SPENT}, project.training("teacher"))
    write_json({"defence": {"name": "top_k"}}, project.training("rkl"))
    assert defence_of("kd", project)["name"] == "dp_sgd"
    assert defence_of("sft", project) is None
    write_json({}, project.training("teacher"))
    assert defence_of("rkl", project)["name"] == "top_k"


def lines(results: StudyResults) -> list[tuple]:
    """The facts of the section."""
    table = what_was_run(SimpleNamespace(study=read_study(params_of(), results.project))).blocks[0]
    return [row for row in table.rows if row[0] == "defence"]


def test_the_report_says_a_defences_knobs_its_epsilon_and_whose_records_that_covers(tmp_path):
    results = StudyResults(tmp_path, n=20)
    assert lines(results) == []
    write_json({"history": [], "defence": SPENT}, results.project.training("teacher"))
    ((_, words),) = lines(results)
    assert words == (
        "teacher: dp_sgd on the teacher, clip 1.0, sigma 0.5; ε 7.50 at δ 0.001 for one record of private, 31 for "
        "near-duplicates (2 records); it says nothing of facts that many records state"
    )
    kept = {"name": "top_k", "acts_on": "signal", "knobs": {"k": 3}}
    write_json({"history": []}, results.project.training("teacher"))
    training = {"lr": 0.1, "epochs": 1, "batch_size": 8, "text": "references", "loss": "fkl", "history": []}
    write_json({**training, "defence": kept}, results.project.training("kd"))
    assert [row[1] for row in lines(results)] == ["KD: top_k on the signal, k 3"]
