"""The params stage, which always runs: refuse a wrong params.yaml, and fingerprint the code of every other stage.

A stage of dvc.yaml depends on one file of .code/, so DVC runs it again when code that it runs has changed, and not
when a comment has. The files are written anew before DVC looks at any other stage: none is kept by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.attacks import ATTACKS
from kdleak.core.errors import KdleakError, nearest
from kdleak.core.files import replacing_folder
from kdleak.core.fingerprint import Entries, SourceTree
from kdleak.core.variants import BASELINE
from kdleak.data.sources import find_source
from kdleak.distill.recipes import check_methods
from kdleak.models.families import load_family

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

#: The module that each stage of dvc.yaml enters.
ENTRIES = {
    "data": "kdleak.pipeline.data",
    "checks": "kdleak.pipeline.checks",
    "base": "kdleak.pipeline.base",
    "canaries": "kdleak.data.canaries",
    "teacher": "kdleak.pipeline.teacher",
    "text": "kdleak.pipeline.text",
    "distill": "kdleak.pipeline.distill",
    "measure": "kdleak.pipeline.measure",
    "judge": "kdleak.pipeline.judge",
    "rates": "kdleak.pipeline.trial",
    "shadow": "kdleak.pipeline.shadow",
    "summary": "kdleak.report.headline",
    "report": "kdleak.report.study.report",
}
#: Stages that run one method, whose fingerprint leaves the files of the others out.
BY_METHOD = ("text", "distill", "rates")
#: Where methods register; one file need not know of another.
METHODS_PACKAGE = "kdleak.distill.methods"
#: Where attacks register. Of those files, the measure stages run the ones that make a pass.
ATTACKS_PACKAGE = "kdleak.attacks"
#: Code that a stage imports and makes no figure with.
IDLE = {"measure": ("kdleak.stats", "kdleak.memorization")}
#: Code that no figure passes through: the command line, MLflow, what is shown on a terminal or said of an error, and
#: the settings and paths, which dvc.yaml declares by name.
PLUMBING = (
    "kdleak.api",
    "kdleak.cli",
    "kdleak.config",
    "kdleak.core.errors",
    "kdleak.core.launch",
    "kdleak.core.paths",
    "kdleak.core.progress",
    "kdleak.core.times",
    "kdleak.core.variants",
    "kdleak.core.version",
    "kdleak.tracking",
)


def validate(params: Params, project: Project) -> None:
    """Raise KdleakError for what params.yaml names and there is not; write .code/<stage>[/<method>].txt."""
    check_methods(params, str(project.params))
    check_environment(params, project)
    source = SourceTree(Path(__file__).parents[2])
    methods = dict.fromkeys([BASELINE, *params.study.methods])
    with replacing_folder(project.code) as fresh:
        for stage in ENTRIES:
            for method in methods if stage in BY_METHOD else (None,):
                path = fresh / stage / f"{method}.txt" if method else fresh / f"{stage}.txt"
                path.parent.mkdir(exist_ok=True)
                path.write_text(fingerprint(source, stage, method), encoding="utf-8")


def check_environment(params: Params, project: Project) -> None:
    """Refuse what params.yaml names and there is not: a family, a size, a file, an attack."""
    for name in params.audit.attacks:
        if name not in ATTACKS:
            raise KdleakError(f"{project.params}: audit.attacks: unknown attack '{name}'; {nearest(name, ATTACKS)}")
    if {"teacher", "no_kd"} & set(ATTACKS[params.report.headline].needs.references):
        headline = params.report.headline
        raise KdleakError(f"{project.params}: report.headline: '{headline}' has no score for the teacher; name another")
    load_family(project.families, params.model.family).student(params.model.student)
    try:
        find_source(params.data).check()
    except KdleakError as error:
        raise KdleakError(f"{project.params}: {error}") from None


def fingerprint(source: SourceTree, stage: str, method: str | None = None) -> str:
    """What the code of `stage` is, a line a module; of a stage that runs one method, with that method's module."""
    entries = Entries(METHODS_PACKAGE, "method", method) if method else None
    if stage == "measure":
        entries = Entries(ATTACKS_PACKAGE, "attack", makers=("TextPass", "ModelPass"))
    return source.fingerprint(source.closure(ENTRIES[stage], (*PLUMBING, *IDLE.get(stage, ())), entries))
