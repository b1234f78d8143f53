"""Result files of a small study, as the stages write them, from scores drawn at random: no model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import yaml

from kdleak.auditing.blocks import block_report
from kdleak.auditing.comparisons import against_baseline, exposed_overlap, inherited
from kdleak.auditing.controls import overlap_control, placebo_control
from kdleak.auditing.membership import membership_report
from kdleak.auditing.permutation import permutation_control
from kdleak.config.load import parse_params
from kdleak.config.schema import Params
from kdleak.core.files import write_json, write_parquet
from kdleak.core.paths import Project
from kdleak.core.variants import BASELINE, TEACHER, Variant
from kdleak.data.sides import MEMBER, NONMEMBER, as_roles, as_sides
from kdleak.memorization.report import EXACT, Memorization, memorization_report
from tests.support.pipeline_project import ROOT

TASKS = (
    "brainstorming", "classification", "closed_qa", "creative_writing", "information_extraction", "open_qa",
    "summarization",
)  # fmt: skip
#: How far the members' scores lie above the non-members', in standard deviations.
STRENGTHS = {
    TEACHER: 2.0, BASELINE: 0.0, "kd": 1.3, "seqkd": 0.8, "imitkd": 0.9, "gkd": 0.95, "distillm": 0.6, "minillm": 0.5,
    "rkl": 1.25,
}  # fmt: skip
ATTACKS = {"loss": 1.0, "zlib": 0.5, "ref_external": 1.2, "zlib_published": 0.45, "ez": 0.9}


def params_of(**changes: object) -> Params:
    """params.yaml with the study's methods and attacks those of these results."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["study"]["methods"] = [name for name in STRENGTHS if Variant.of(name).is_distilled]
    content["audit"]["attacks"] = list(ATTACKS)
    for key, value in changes.items():
        section, name = key.split("__")
        content[section][name] = value
    return parse_params(content)


#: Of a technique that wrote text of its own.
REALISED = {
    "student_token_share": 0.5, "replayed_share": 0.25, "rollout_age_steps": 32, "rollout_rounds": 7, "threshold": None,
}  # fmt: skip


class StudyResults:
    """The result files of models with given strengths, `n` records a side."""

    def __init__(self, folder: Path, n: int = 140, strengths: Mapping[str, float] = STRENGTHS):
        self.project = Project(folder)
        self.n = n
        rng = np.random.default_rng(1)
        role = np.repeat([MEMBER, NONMEMBER], n)
        self.keys = pd.DataFrame(
            {"record_id": [f"{i:04x}" for i in range(2 * n)], "role": role, "task": np.resize(TASKS, 2 * n)}
        )
        self._own = rng.normal(size=2 * n)  # what makes a record easy for every model
        self._member = (role == MEMBER).astype(float)
        for name, strength in strengths.items():
            self.add(name, strength)

    def add(self, name: str, strength: float) -> None:
        """All audits of one model."""
        rng = np.random.default_rng([*name.encode()])
        self._training(name)
        self.utility(self.project.utility(name), 20.0 - 4 * strength)
        self._membership(name, strength, rng)
        self._memorization(name, strength, rng)
        self._blocks(name, strength, rng)

    def trial(self, run: Variant, strength: float, perplexity: float = 18.0, **training: object) -> None:
        """A run beside a default one; training: what its training.json says otherwise."""
        self._training(run, **training)
        self.utility(self.project.utility(run), perplexity)
        self._membership(run, strength, np.random.default_rng([*str(run).encode()]))

    def _training(self, name: str | Variant, **changes: object) -> None:
        recipe = {"lr": 0.001, "epochs": 4, "batch_size": 8, "text": "references", "loss": "fkl"}
        content = {**recipe, "records": self.n, "history": [], "realised": REALISED, **changes}
        write_json(content, self.project.training(name))

    def utility(self, path: Path, perplexity: float) -> None:
        figures = {"perplexity": perplexity, "perplexity_of_base": 40.0, "rouge_l": 0.2, "rouge_l_ci95": [0.18, 0.22]}
        write_json({**figures, "records": self.n}, path)

    def _scores(self, strength: float, rng: np.random.Generator) -> pd.DataFrame:
        noise = 0.7 * self._own + 0.7 * rng.normal(size=2 * self.n)
        columns = {
            a: noise + 0.3 * rng.normal(size=2 * self.n) + strength * k * self._member for a, k in ATTACKS.items()
        }
        return self.keys.assign(**columns)

    def _membership(self, name: str | Variant, strength: float, rng: np.random.Generator) -> None:
        scores = self._scores(strength, rng)
        blind = {
            "auc": 0.48,
            "auc_ci95": [0.42, 0.54],
            "p_value": 0.5,
            "state": "passed",
            "verdict": "The text is blind.",
            "scorer": "words",
            "scorers": {"words": {"auc": 0.48, "auc_ci95": [0.42, 0.54]}},
        }
        controls = {
            "blind": blind,
            "permutation": permutation_control(scores, permutations=50),
            "overlap": {"ngram": 13, **overlap_control(scores, {})},
        }
        compared = Variant.of(name).is_distilled
        if compared:
            baseline = as_sides(pd.read_parquet(self.project.scores(BASELINE)))
            controls["no_kd"] = against_baseline(scores, baseline)
            controls["placebo"] = {"teacher_aware": placebo_control(self._own, self._member > 0)}
        report = membership_report(scores, controls=controls)
        if compared:
            teacher = as_sides(pd.read_parquet(self.project.scores(TEACHER)))
            report["teacher"] = {
                "inherited": inherited(scores, teacher),
                "exposed_overlap": exposed_overlap(scores, teacher, baseline),
            }
        write_parquet(as_roles(scores), self.project.scores(name))
        write_json(report, self.project.membership(name), digits=6)

    def _memorization(self, name: str, strength: float, rng: np.random.Generator) -> None:
        n = 2 * self.n
        accuracy = np.clip(0.2 + 0.1 * rng.normal(size=n) + 0.1 * strength * self._member, 0, 1)
        hit = (accuracy > 0.45).astype(float)
        records = self.keys.assign(
            group_id=self.keys["record_id"], length=40, token_accuracy=accuracy,
            token_accuracy_as_published=0.8 * accuracy, correct_prefix=np.round(10 * accuracy), reproduced=hit,
            **{f"exact_{k}": hit for k in EXACT}, rouge_l=accuracy, edit_similarity=accuracy,
            log_p=-5.0 / (accuracy + 0.01),
        )  # fmt: skip
        facts = self.keys.assign(
            fact=0, kind=np.resize(["email", "name"], n), in_prompt=False, extracted=hit, log_p=-3.0 - hit
        )
        canaries = pd.DataFrame(
            {
                "record_id": [f"c{i}" for i in range(66)],
                "repetitions": [1, 1, 4, 4, 16, 16] + [0] * 60,
                "log_perplexity": rng.normal(10, 1, 66) - strength * np.array([0.2, 0.2, 1, 1, 2, 2] + [0] * 60),
            }
        )
        own = Memorization(records, facts, canaries)
        beside = None if name in (TEACHER, BASELINE) else {k: self._tables(k) for k in (TEACHER, BASELINE)}
        report = memorization_report(own, teacher=beside and beside[TEACHER], no_kd=beside and beside[BASELINE])
        for table, path in zip((as_roles(records), as_roles(facts), canaries), self._paths(name), strict=True):
            write_parquet(table, path)
        write_json({"tokens": 32, **report}, self.project.memorization(name), digits=6)

    def _paths(self, name: str) -> tuple[Path, ...]:
        project = self.project
        return project.memorization_table(name), project.facts(name), project.canary_scores(name)

    def _tables(self, name: str) -> Memorization:
        records, facts, canaries = (pd.read_parquet(path) for path in self._paths(name))
        return Memorization(as_sides(records), as_sides(facts), canaries)

    def _blocks(self, name: str, strength: float, rng: np.random.Generator) -> None:
        blocks = 4
        columns = {
            f"block_{i}": self._own + rng.normal(size=2 * self.n) + strength * (i + 1) / blocks * self._member
            for i in range(blocks)
        }
        found = [SimpleNamespace(scores=c, auc_error=lambda member: 0.01) for c in columns.values()]
        noise = SimpleNamespace(sigma=0.2, relative=True, antithetic=True, draws=3, signs=(1, -1))
        baseline = None
        if Variant.of(name).is_distilled:
            baseline = as_sides(pd.read_parquet(self.project.block_scores(BASELINE)))
        write_parquet(as_roles(self.keys.assign(**columns)), self.project.block_scores(name))
        write_json(block_report(self.keys, found, noise, baseline), self.project.blocks(name), digits=6)
