"""What a study has measured, read from its result files. What has not been run yet is None, not an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json, read_parquet
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.core.variants import Variant
from kdleak.render.mechanism import mechanism_absent
from kdleak.stats.contrasts import Name

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

#: The techniques that the paper compares; the others of a study are objectives alone.
PAPER_TECHNIQUES = ("kd", "seqkd", "imitkd", "gkd", "distillm", "minillm")


#: A result file as JSON gives it: keys that no type knows; None where its stage has not been run.
Figures = Any


@dataclass(frozen=True)
class Model:
    """The results of one model."""

    name: str
    membership: Figures = None
    memorization: Figures = None
    blocks: Figures = None
    utility: Figures = None
    training: Figures = None
    scores: pd.DataFrame | None = None
    block_scores: pd.DataFrame | None = None
    memorized: pd.DataFrame | None = None

    @property
    def mechanism_absent(self) -> str:
        """Why the student is none of its technique, where what defines the technique never ran; else ""."""
        return mechanism_absent(self.name, self.training or {})


@dataclass(frozen=True)
class Study:
    """A study's parameters and results. trials: of the runs beside the default ones that params.yaml asks for; shadow:
    what shadow models say; frontier: what defences cost and keep; epsilon: what canaries planted by a coin each say."""

    params: Params
    models: Mapping[str, Model]
    trials: Mapping[Variant, Model] = field(default_factory=dict)
    gate: Mapping[str, Any] | None = None
    shadow: Figures = None
    frontier: Figures = None
    epsilon: Figures = None

    @property
    def attack(self) -> str:
        """The attack by which models are compared."""
        return self.params.report.headline

    @property
    def teacher(self) -> Model:
        return self.models[TEACHER]

    @property
    def baseline(self) -> Model:
        return self.models[BASELINE]

    @cached_property
    def techniques(self) -> list[str]:
        """The techniques whose students have been attacked, in the order of study.methods."""
        return self.with_("membership", self.params.study.methods)

    @cached_property
    def claimed(self) -> list[str]:
        """Those of the techniques that the paper's claims are about; all of them where none of the paper's has run."""
        return [name for name in self.techniques if name in PAPER_TECHNIQUES] or self.techniques

    def with_(self, kind: str, names: list[str] | None = None) -> list[str]:
        """The models, teacher and no-KD student first, that have results of this kind."""
        names = list(self.models) if names is None else names
        return [name for name in names if name in self.models and getattr(self.models[name], kind) is not None]

    def auc(self, name: str, attack: str | None = None) -> Figures:
        """An attack's figures for a model; None where the model has none."""
        membership = self.models[name].membership
        return membership["attacks"].get(attack or self.attack) if membership else None

    def grouped(self, tables: Mapping[Name, pd.DataFrame | None]) -> dict[Name, pd.DataFrame]:
        """The tables that are there; with a column group_id, records that count as one draw, where a model's
        memorization says which."""
        known = [model.memorized for model in self.models.values() if model.memorized is not None]
        there = {name: table for name, table in tables.items() if table is not None}
        if not known:
            return there
        groups = known[0].set_index("record_id")["group_id"]
        return {name: table.assign(group_id=table["record_id"].map(groups)) for name, table in there.items()}


def read_study(params: Params, project: Project) -> Study:
    """Everything that there is of the study's models. KdleakError where no model has been attacked yet."""
    names = [TEACHER, BASELINE, *params.study.methods]
    models = {name: _model(name, project) for name in names}
    if not any(model.membership for model in models.values()):
        raise KdleakError("no model has been attacked yet; run 'dvc repro -P', or 'dvc repro' for kd.method alone")
    return Study(
        params,
        models,
        {run: _trial(run, project) for run in params.study.variants if project.utility(run).is_file()},
        _if_there(project.checks, read_json),
        _if_there(project.shadow_report, read_json),
        _if_there(project.frontier, read_json),
        _if_there(project.epsilon_report, read_json),
    )


def _model(name: str, project: Project) -> Model:
    return Model(
        name,
        _if_there(project.membership(name), read_json),
        _if_there(project.memorization(name), read_json),
        _if_there(project.blocks(name), read_json),
        _if_there(project.utility(name), read_json),
        _if_there(project.training(name), read_json),
        _if_there(project.scores(name), read_parquet),
        _if_there(project.block_scores(name), read_parquet),
        _if_there(project.memorization_table(name), read_parquet),
    )


def _trial(run: Variant, project: Project) -> Model:
    return Model(
        run.method,
        membership=read_json(project.membership(run)),
        utility=read_json(project.utility(run)),
        training=read_json(project.training(run)),
        scores=read_parquet(project.scores(run)),
    )


def _if_there(path: Path, read: Callable[[Path], Any]) -> Any:
    return read(path) if path.is_file() else None
