"""The sections of params.yaml as typed, validated, frozen objects; `kdleak.config.load` reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from kdleak.config.data import Canaries, Checks, Data
from kdleak.config.many import Epsilon, Shadow, Study
from kdleak.config.types import MOST, Count, Method, Rate, Section, Seed, Share
from kdleak.core.errors import nearest, shown

#: Texts of the LM loss that are no file, and the files that it may be.
CORPORA = ("none", "general", "auxiliary")
CORPUS_FILES = (".txt", ".jsonl", ".parquet")


class Compute(Section):
    """What a stage may use. No stage depends on it: results agree to rounding whatever it says."""

    device: Literal["auto", "cpu", "cuda"]
    processes: Count
    measure_processes: Annotated[int, Field(ge=0, le=MOST)]
    batch_tokens: Count
    generation_batch: Count
    micro_batch_tokens: Count | None
    workers: Annotated[int, Field(ge=0, le=MOST)]


class Model(Section):
    """Which family and size, and the limits on a record's tokens."""

    family: Annotated[str, Field(min_length=1)]
    student: Annotated[str, Field(min_length=1)]
    max_prompt_tokens: Annotated[int, Field(ge=16, le=MOST)]
    max_tokens: Annotated[int, Field(ge=17, le=MOST)]

    @model_validator(mode="after")
    def _room_for_a_response(self) -> Model:
        if self.max_prompt_tokens >= self.max_tokens:
            raise ValueError("max_prompt_tokens must be below max_tokens; a response needs room")
        return self


class Optimizer(Section):
    """What all trainings share."""

    weight_decay: Annotated[float, Field(ge=0)]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    min_lr: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    precision: Literal["fp32", "bf16"]
    checkpointing: bool


class Training(Section):
    """What a training sets for itself."""

    lr: Rate
    epochs: Count
    batch_size: Count


class TeacherTraining(Training):
    """epochs 0: the teacher is not trained here; the family names one that was fine-tuned elsewhere."""

    epochs: Annotated[int, Field(ge=0, le=MOST)]


class Defence(Section):
    """What keeps the teacher's data private: the name of a defence, and its knobs.

    Which knobs there are, and their bounds, is for `kdleak.defend` to know; one that is None is left to its default.

    grid:      defences and strengths that are compared with each other: `default`, or a list of {name, knob}; []: none.
    seeds:     further ones of teacher and student, each of which has the grid again.
    methods:   what each defended teacher is distilled by.
    on_policy: divergences that learn from the student's own text.
    shadows:   teachers on halves of the records for each point of the grid, to attack it by; 0: none.
    """

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(min_length=1)]
    grid: Literal["default"] | list[dict[str, Any]]
    seeds: list[Seed]
    methods: Annotated[list[Method], Field(min_length=1)]
    on_policy: list[Method]
    shadows: Annotated[int, Field(ge=0, le=MOST)]

    @model_validator(mode="after")
    def _grid(self) -> Defence:
        if self.grid and self.name != "none":
            raise ValueError(
                f"grid: beside '{self.name}' there is no undefended model to compare with; set name to none"
            )
        for key in ("seeds", "methods", "on_policy"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key}: a value stands twice in the list")
        if self.shadows % 2 or 0 < self.shadows < 8:
            raise ValueError("shadows: pairs of teachers, four at least: 0, or an even number from 8 on")
        return self

    @property
    def knobs(self) -> dict[str, Any]:
        """What is set beside the name."""
        return {knob: value for knob, value in (self.model_extra or {}).items() if value is not None}


class Generation(Section):
    """How students and the teacher write responses."""

    max_new_tokens: Count
    temperature: Annotated[float, Field(ge=0)]


class Distillation(Section):
    """Which method under which protocol.

    grid: what the methods have in common under the corrected protocol; `kdleak.distill.recipes` makes it so.
    start, lm_weight, student_fraction: of every method, whatever grid and recipe say; None leaves it to them.
    lm_corpus: the text of the LM loss, one of `CORPORA` or the path of a file; none: no method has an LM loss.
    recipes: by method, what its options set otherwise than their defaults; `kdleak.distill.recipes` checks them.
    """

    method: Method
    protocol: Literal["corrected", "as_published"]
    grid: Literal["controlled", "paper"]
    start: Literal["base", "baseline"] | None
    student_fraction: Share | None
    lm_weight: Annotated[float, Field(ge=0)] | None
    lm_corpus: Annotated[str, Field(min_length=1)]
    recipes: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _corpus(self) -> Distillation:
        if self.lm_corpus not in CORPORA and not self.lm_corpus.endswith(CORPUS_FILES):
            files = f"or a {', '.join(CORPUS_FILES)} file"
            raise ValueError(
                f"lm_corpus: '{shown(self.lm_corpus)}' is no text; {nearest(self.lm_corpus, CORPORA)}, {files}"
            )
        if self.lm_corpus == "none" and self.lm_weight:
            raise ValueError("lm_weight: an LM loss needs a text; set kd.lm_corpus to general")
        return self

    @property
    def corpus_file(self) -> str | None:
        """The path in lm_corpus, where it holds one."""
        return None if self.lm_corpus in CORPORA else self.lm_corpus


class Noise(Section):
    """How weights are perturbed (MoPe)."""

    sigma: Annotated[float, Field(gt=0)]
    draws: Count


class Blocks(Noise):
    """The same, one block at a time. most: blocks perturbed at most, evenly spread."""

    most: Count


class Audit(Section):
    """The attacks."""

    attacks: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    prefix_tokens: Count
    mope: Noise
    blocks: Blocks
    noise: Literal["corrected", "as_published"]
    permutations: Count

    @model_validator(mode="after")
    def _distinct(self) -> Audit:
        if len(set(self.attacks)) < len(self.attacks):
            raise ValueError("attacks: an attack stands twice in the list")
        return self


class Memorization(Section):
    """What counts as giving a record back."""

    tokens: Count
    shortest: Count


class Report(Section):
    """What is told of the results."""

    headline: str


class Params(Section):
    """The whole of params.yaml."""

    seed: Seed
    data: Data
    checks: Checks
    canaries: Canaries
    model: Model
    compute: Compute
    optimizer: Optimizer
    base: Training
    teacher: TeacherTraining
    defence: Defence
    generation: Generation
    kd: Distillation
    study: Study
    shadow: Shadow
    epsilon: Epsilon
    audit: Audit
    memorization: Memorization
    report: Report

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Params:
        if (headline := self.report.headline) not in self.audit.attacks:
            hint = nearest(headline, self.audit.attacks)
            raise ValueError(f"report.headline: '{headline}' is not in audit.attacks; {hint}")
        if self.seed in self.study.seeds:
            raise ValueError(f"study.seeds: {self.seed} is 'seed' itself, which always runs; leave it out")
        if self.seed in self.defence.seeds:
            raise ValueError(f"defence.seeds: {self.seed} is 'seed' itself, which always runs; leave it out")
        if self.study.grids and (self.kd.grid != "controlled" or self.kd.protocol != "corrected"):
            raise ValueError("study.grids: 'paper' stands beside kd.grid controlled, protocol corrected; set these")
        if self.study.lm_weights and self.kd.lm_weight:
            raise ValueError("study.lm_weights: kd.lm_weight gives every run an LM loss already; set that to null")
        if self.memorization.tokens > self.model.max_tokens - self.model.max_prompt_tokens:
            raise ValueError("memorization.tokens: they and a prompt exceed model.max_tokens; lower them")
        for name, training in (("base", self.base), ("teacher", self.teacher)):
            if training.lr < self.optimizer.min_lr:
                raise ValueError(f"lr of '{name}' is below optimizer.min_lr; the schedule would rise")
        return self
