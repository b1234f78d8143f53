"""The params stage, which always runs: refuse a wrong params.yaml, and fingerprint the code of every other stage.

A stage of dvc.yaml depends on one file of .code/, so DVC runs it again when code that it runs has changed, and not
when a comment has. The file also names the defence that acts on the stage, with its knobs: another defence runs those
stages anew that it or the one before acts on. The files are written anew before DVC looks at any other stage: none is
kept by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.attacks import ATTACKS
from kdleak.core.errors import KdleakError, nearest
from kdleak.core.files import replacing_folder
from kdleak.core.fingerprint import Entries, Module, SourceTree
from kdleak.core.variants import BASELINE, CONTROL
from kdleak.data.corpus_files import check_corpus_file, file_digest
from kdleak.data.sources import find_source
from kdleak.defend.choice import acting, check_defence
from kdleak.defend.grid import check_grid, grid_of
from kdleak.defend.registry import Acts
from kdleak.distill.methods import METHODS
from kdleak.distill.recipes import check_methods
from kdleak.models.families import load_family
from kdleak.models.hub import folder_digest
from kdleak.pipeline.shadow_arms import of_arm

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.defend.registry import Defence
    from kdleak.models.families import Family

#: The module that each stage of dvc.yaml enters.
ENTRIES = {
    "data": "kdleak.pipeline.data",
    "checks": "kdleak.pipeline.checks",
    "base": "kdleak.pipeline.base",
    "canaries": "kdleak.data.canaries",
    "control": "kdleak.pipeline.control",
    "teacher": "kdleak.pipeline.teacher",
    "text": "kdleak.pipeline.text",
    "distill": "kdleak.pipeline.distill",
    "measure": "kdleak.pipeline.measure",
    "judge": "kdleak.pipeline.judge",
    "trial": "kdleak.pipeline.trial",
    "shadow": "kdleak.pipeline.shadow",
    "defences": "kdleak.pipeline.defences",
    "epsilon": "kdleak.pipeline.epsilon",
    "summary": "kdleak.report.headline",
    "report": "kdleak.report.study.report",
}
#: Stages that run one method, whose fingerprint leaves the files of the others out.
BY_METHOD = ("text", "distill", "trial")
#: Stages that run what others do, and their methods.
MADE_OF = {"control": {"teacher": None, "distill": CONTROL.method, "measure": None}}
#: Where methods register; one file need not know of another.
METHODS_PACKAGE = "kdleak.distill.methods"
#: Where defences register; a stage runs the one that acts there.
DEFENCES_PACKAGE = "kdleak.defend.defences"
_STUDENT = (Acts.SIGNAL, Acts.TRANSFER_SET, Acts.STUDENT, Acts.ENSEMBLE)
#: The stages that a defence may act on, by where it acts.
DEFENDED = {
    "teacher": (Acts.TEACHER, Acts.ENSEMBLE),
    "text": (Acts.SIGNAL, Acts.TRANSFER_SET, Acts.ENSEMBLE),
    "distill": _STUDENT,
    "trial": _STUDENT,
    "control": (Acts.TEACHER, *_STUDENT),
    "shadow": (Acts.TEACHER, *_STUDENT),
    "epsilon": (Acts.TEACHER, *_STUDENT),
}
#: Where attacks register. Of those files, the measure stages run the ones that make a pass.
ATTACKS_PACKAGE = "kdleak.attacks"
#: Code that a stage imports and makes no figure with.
IDLE = {stage: ("kdleak.stats", "kdleak.memorization") for stage in ("measure", "control")}
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
    "kdleak.pipeline.provenance",
    "kdleak.tracking",
)


def validate(params: Params, project: Project) -> None:
    """Raise KdleakError for what params.yaml names and there is not; write .code/<stage>[/<method>].txt and
    .code/lm_corpus.txt."""
    check_methods(params, str(project.params))
    check_defence(params, str(project.params))
    check_grid(params, str(project.params))
    check_environment(params, project)
    source = SourceTree(Path(__file__).parents[2])
    methods = dict.fromkeys([BASELINE, *params.study.methods])
    with replacing_folder(project.code) as fresh:
        for stage in ENTRIES:
            for method in methods if stage in BY_METHOD else (None,):
                path = fresh / stage / f"{method}.txt" if method else fresh / f"{stage}.txt"
                path.parent.mkdir(exist_ok=True)
                defence = acting(params, *(() if method == BASELINE else DEFENDED.get(stage, ())))
                acting_on = [defence, *(_arms(params) if stage == "shadow" else ())]
                lines = [fingerprint(source, stage, method, each) for each in acting_on]
                path.write_text("".join(lines) + local_models(stage, params, project), encoding="utf-8")
        (fresh / "defences.txt").write_text(grid_code(source, params), encoding="utf-8")
        (fresh / "lm_corpus.txt").write_text(corpus_content(params, project), encoding="utf-8")


def _arms(params: Params) -> list[Defence]:
    """The defences that the control arms' teachers are trained under."""
    return [acting(of_arm(name, params), Acts.TEACHER) for name in params.shadow.arms]


def check_environment(params: Params, project: Project) -> None:
    """Refuse what params.yaml names and there is not: a family, a size, a file, an attack, a method."""
    for name in params.audit.attacks:
        if name not in ATTACKS:
            raise KdleakError(f"{project.params}: audit.attacks: unknown attack '{name}'; {nearest(name, ATTACKS)}")
    for key, names in (("shadow.methods", params.shadow.methods), ("epsilon.methods", params.epsilon.methods)):
        for name in names:
            if name not in METHODS:
                raise KdleakError(f"{project.params}: {key}: unknown method '{name}'; {nearest(name, METHODS)}")
    for name in params.shadow.arms:
        of_arm(name, params)
    if {"teacher", "no_kd"} & set(ATTACKS[params.report.headline].needs.references):
        headline = params.report.headline
        raise KdleakError(f"{project.params}: report.headline: '{headline}' has no score for the teacher; name another")
    family = load_family(project.families, params.model.family)
    family.student(params.model.student)
    try:
        check_fine_tuned(family, params)
        find_source(params.data).check()
        if params.kd.corpus_file is not None:
            check_corpus_file(project.root / params.kd.corpus_file)
    except KdleakError as error:
        raise KdleakError(f"{project.params}: {error}") from None


def local_models(stage: str, params: Params, project: Project) -> str:
    """What lies in the local folders that the family names and `stage` copies, a line each: a model that is changed
    there is another one. "" of a family without."""
    family = load_family(project.families, params.model.family)
    student = family.student(params.model.student)
    copied = {"base": {"teacher": family.teacher, "student": student, "external": family.external}}
    if params.teacher.epochs == 0 and family.fine_tuned is not None:
        copied["teacher"] = {"fine_tuned": family.fine_tuned}
    folders = {part: origin.folder for part, origin in copied.get(stage, {}).items()}
    return "".join(f"model {folder_digest(folder)} {part}\n" for part, folder in folders.items() if folder is not None)


def check_fine_tuned(family: Family, params: Params) -> None:
    """Refuse teacher.epochs 0 where the teacher would have to be trained."""
    if params.teacher.epochs:
        return
    if family.fine_tuned is None:
        raise KdleakError(
            f"teacher.epochs: 0 trains no teacher, and families.yaml names none that is: {params.model.family}."
            "fine_tuned; add it, or raise teacher.epochs"
        )
    wants = {
        "shadow.models": params.shadow.models > 0,
        "epsilon.canaries": params.epsilon.canaries > 0,
        f"defence.name '{params.defence.name}'": acting(params, Acts.TEACHER).acts_on is not None,
    }
    if what := next((each for each, wanted in wants.items() if wanted), None):
        raise KdleakError(f"teacher.epochs: 0 trains no teacher, and {what} needs one that is; leave one of them out")


def corpus_content(params: Params, project: Project) -> str:
    """What kd.lm_corpus holds where that is a file; a dependency of its own, since DVC knows no path that may be none.

    The other texts follow from code, seed and records, which are dependencies as they are.
    """
    path = params.kd.corpus_file
    return "no file\n" if path is None else f"{file_digest(project.root / path)}\n"


def grid_code(source: SourceTree, params: Params) -> str:
    """What the code of the stage `defences` is, with the modules of the defences in defence.grid."""
    names = dict.fromkeys(["none", *(point.defence.name for point in grid_of(params))])
    closures = (
        source.closure(ENTRIES["defences"], PLUMBING, [Entries(DEFENCES_PACKAGE, "defence", name)]) for name in names
    )
    modules = {module.name: module for closure in closures for module in closure}
    return source.fingerprint([modules[name] for name in sorted(modules)])


def fingerprint(source: SourceTree, stage: str, method: str | None = None, defence: Defence | None = None) -> str:
    """What the code of `stage` is, a line a module; of a stage that runs one method, with that method's module; where a
    defence acts on it, with that defence's module and a line of its knobs."""
    modules = {module.name: module for module in _modules(source, stage, method, defence)}
    code = source.fingerprint([modules[name] for name in sorted(modules)])
    knobs = "" if defence is None or defence.acts_on is None else f"defence {defence.name} {defence!r}\n"
    return code + knobs


def _modules(source: SourceTree, stage: str, method: str | None, defence: Defence | None) -> list[Module]:
    if stage in MADE_OF:
        parts = [module for part, its in MADE_OF[stage].items() for module in _modules(source, part, its, defence)]
        return [source.modules[ENTRIES[stage]], *parts]
    entries = [Entries(DEFENCES_PACKAGE, "defence", "none" if defence is None else defence.name)]
    if method:
        entries.append(Entries(METHODS_PACKAGE, "method", method))
    if stage == "measure":
        entries.append(Entries(ATTACKS_PACKAGE, "attack", makers=("TextPass", "ModelPass")))
    return source.closure(ENTRIES[stage], (*PLUMBING, *IDLE.get(stage, ())), entries)
