"""What is said of defences follows from frontier.json: advice, the section, the picture."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.files import write_json
from kdleak.core.paths import Project
from kdleak.defend.defences import DEFENCES
from kdleak.render.frontier import frontier_figure
from kdleak.report.frontier import advise, read_frontier, verdict_words
from kdleak.report.study.sections.frontier import defences
from tests.support.frontier import compared_defences
from tests.support.small_project import CommandLine, refusal


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    made.params.write_text("{}")
    write_json(compared_defences(), made.frontier)
    return made


@pytest.fixture
def kdleak(monkeypatch, capsys):
    return CommandLine(monkeypatch, capsys)


def section(found):
    return defences(SimpleNamespace(study=SimpleNamespace(frontier=found)))


def compared(name: str) -> dict:
    return next(row for row in compared_defences()["compared"] if row["point"] == name)


def test_advice_has_what_nothing_dominates_within_the_loss_the_safest_first():
    found = compared_defences()
    assert [each.name for each in advise(found, 0.0)] == ["none"]
    assert [each.name for each in advise(found, 0.02)] == ["top_k-k-5", "none"]
    kept = advise(found, 0.3)
    assert [each.name for each in kept] == ["no-KD", "blend-base_share-0.5", "top_k-k-5", "none"]  # dp_sgd is dominated
    blend = kept[1]
    assert blend.loss == pytest.approx(0.06) and blend.leak == ".700 [.680, .720]"
    assert blend.does_not_protect == DEFENCES["blend"].does_not_protect


def test_the_command_says_what_each_does_not_protect(project, kdleak):
    assert kdleak(project.root, "advise", "--max-utility-loss", "0.07")[0] == 0
    said = kdleak.printed
    assert "Within 7% of the undefended student's perplexity" in said
    assert "blend-base_share-0.5: leak .700 [.680, .720], perplexity +6.0%." in said
    assert f"Does not protect {DEFENCES['blend'].does_not_protect}." in said
    assert "not under the adaptive attack" in said
    kdleak(project.root, "advise", "--max-utility-loss", "0.07", "--json")
    assert [each["name"] for each in json.loads(kdleak.printed)] == ["blend-base_share-0.5", "top_k-k-5", "none"]


def test_what_cannot_be_advised_is_one_line(project, kdleak):
    wrong = refusal(kdleak, project.root, "advise", "--max-utility-loss", "0.1", "--method", "dk")
    assert wrong == "--method: no student of 'dk' was compared; valid: kd"
    wrong = refusal(kdleak, project.root, "advise", "--max-utility-loss", "-1")
    assert wrong == "--max-utility-loss: a share of perplexity, 0 or more; 0.05 accepts a twentieth"
    write_json({"points": []}, project.frontier)
    with pytest.raises(
        KdleakError, match=r"no defences have been compared; run 'dvc exp run -S defence\.grid=default'"
    ):
        read_frontier(project)


def test_words_name_the_effect_that_would_have_been_seen_and_the_attack_that_was_not_tried():
    better = verdict_words(compared("blend-base_share-0.5"))
    beside = "the undefended student and early_stop-epochs-1 at its perplexity"
    assert f"leaks less than {beside} by every attack (p = 4e-04, Holm" in better
    same = verdict_words(compared("top_k-k-5"))
    assert ".031 would have been seen (one training of each, not under the adaptive attack)" in same
    assert (
        verdict_words(compared("dp_sgd-sigma-0.8"))
        == "worth less than every control, the no-KD student too: not compared"
    )
    assert verdict_words(compared("none")) == "a control"
    worse = compared("blend-base_share-0.5") | {"verdict": "worse", "adaptive_attack": True}
    worse["adaptive"] = {"looked_better_by": 0.12}
    assert verdict_words(worse).startswith("leaks more than the undefended student and early_stop")
    assert verdict_words(worse).endswith(
        "one training of each); without shadow models of the defence it looked better by +.120"
    )


def test_the_section_tells_every_point_and_calls_none_better_that_is_not():
    found = compared_defences()
    content = section(found)
    assert content.lead == (
        "At equal utility blend-base_share-0.5 (KD) leaked less than the controls, of 3 compared, "
        "not under the adaptive attack."
    )
    table = next(block for block in content.blocks if hasattr(block, "rows"))
    assert [row[0] for row in table.rows] == [
        "undefended", "early_stop-epochs-1", "blend-base_share-0.5", "top_k-k-5", "dp_sgd-sigma-0.8", "no-KD student",
    ]  # fmt: skip
    assert table.rows[4][2] == "ε 8.1 at δ 0.001, of private"
    for row in found["compared"]:
        if row.get("verdict") == "better":
            row["verdict"] = "no difference"
    assert section(found).lead == "None of 3 defences is shown to leak less than the controls at equal utility."
    assert "defence.grid=default" in str(section(None).blocks[0])
    assert "defence.grid=default" in str(section({"points": []}).blocks[0])


def test_the_picture_has_every_point_and_is_the_same_bytes_again():
    svg = frontier_figure(compared_defences())
    assert svg == frontier_figure(compared_defences())
    for word in ("undefended", "no-KD student", "hull", "controls", "blend", "early_stop", "DP-SGD, ε", "ε 8.1"):
        assert f">{word}</text>" in svg
    assert "defence.grid is empty" in frontier_figure({"points": []})
