"""The templates of `dvc plots`: a model has one colour in every figure, revisions stand where they can be compared."""

from __future__ import annotations

import json

import pytest
import yaml

from kdleak.render.palette import style
from tests.support.pipeline_project import ROOT

TEMPLATES = {path.stem: json.loads(path.read_text()) for path in (ROOT / ".dvc" / "plots").glob("*.json")}


def colour_scale(template: dict) -> dict:
    """The scale of the models' colours."""
    spec = template["spec"]
    return spec.get("layer", [spec])[0]["encoding"]["color"]["scale"]


@pytest.mark.parametrize("name", ["roc", "training"])
def test_teacher_student_and_no_kd_student_have_the_palettes_colours(name):
    scale = colour_scale(TEMPLATES[name])
    assert scale["domain"] == ["teacher", "student", "no-KD student"]
    assert scale["range"] == [style(model).colour for model in ("teacher", "kd", "sft")]


@pytest.mark.parametrize(("name", "columns"), [("roc", 2), ("training", 2), ("heatmap", None)])
def test_revisions_stand_side_by_side_or_below_each_other(name, columns):
    """Vega-Lite takes `columns` beside `facet`, not in it: there it is ignored, and a wide figure leaves the page."""
    template = TEMPLATES[name]
    assert template["columns"] == (columns or 1) and "columns" not in template["facet"]
    assert "width" in template["spec"] and "width" not in template


def test_every_plot_is_drawn_from_a_file_that_git_keeps():
    declared = [yaml.safe_load((ROOT / name).read_text()) for name in ("dvc.yaml", "study/dvc.yaml")]
    plotted = {path.removeprefix("../") for file in declared for each in file["plots"] for plot in each.values()
               for path in plot["y"]}  # fmt: skip
    kept = {
        path
        for file in declared
        for stage in file["stages"].values()
        for kind in ("outs", "metrics")
        for out in stage.get(kind, [])
        if isinstance(out, dict)
        for path, options in out.items()
        if options.get("cache") is False
    }
    assert plotted and plotted <= kept
    assert all(plot["template"] in TEMPLATES for file in declared for each in file["plots"] for plot in each.values())
