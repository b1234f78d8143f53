"""Where every artifact lives. No other module spells a path of the project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: The model that is audited: the teacher, or a student by the technique that made it.
TEACHER = "teacher"
#: The No-KD baseline: the student fine-tuned on public alone.
BASELINE = "sft"


@dataclass(frozen=True)
class Project:
    """The files of one project folder (the folder that holds params.yaml)."""

    root: Path = Path(".")

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def params_checked(self) -> Path:
        """A constant that says params.yaml was found valid; every stage waits for it."""
        return self.root / "data" / "params.checked"

    @property
    def families(self) -> Path:
        return self.root / "families.yaml"

    @property
    def locks(self) -> tuple[Path, ...]:
        """What DVC wrote down of every stage's last run."""
        return self.root / "dvc.lock", self.root / "study" / "dvc.lock"

    @property
    def records(self) -> Path:
        """Every record that plays a role, with its text."""
        return self.root / "data" / "records.parquet"

    @property
    def canaries(self) -> Path:
        """Secrets that the teacher is trained on beside private, and the references to rank them against."""
        return self.root / "data" / "canaries.parquet"

    @property
    def splits(self) -> Path:
        """record_id, role, task, group_id: no text."""
        return self.root / "data" / "splits.parquet"

    @property
    def checks(self) -> Path:
        return self.root / "results" / "checks" / "report.json"

    @property
    def data_docs(self) -> Path:
        return self.root / "results" / "checks" / "docs"

    @property
    def base_teacher(self) -> Path:
        return self.root / "models" / "base" / "teacher"

    @property
    def base_student(self) -> Path:
        return self.root / "models" / "base" / "student"

    @property
    def base_external(self) -> Path:
        """The reference model of another architecture, trained on auxiliary only."""
        return self.root / "models" / "base" / "external"

    @property
    def metrics(self) -> Path:
        return self.root / "results" / "metrics.json"

    @property
    def report(self) -> Path:
        """The study's report, one self-contained page."""
        return self.root / "results" / "report.html"

    @property
    def findings(self) -> Path:
        """Whether the paper's claims hold."""
        return self.root / "results" / "findings.json"

    @property
    def heatmap(self) -> Path:
        """AUC by technique and attack, for `dvc plots`."""
        return self.root / "results" / "heatmap.csv"

    @property
    def heatmap_figure(self) -> Path:
        return self.root / "results" / "heatmap.svg"

    @property
    def seconds(self) -> Path:
        """How long each stage took when it last ran in this folder; state, not a result."""
        return self.root / ".kdleak" / "seconds"

    @property
    def roc_figure(self) -> Path:
        return self.root / "results" / "roc.svg"

    @property
    def cache(self) -> Path:
        """Intermediate results keyed by content; safe to delete at any time."""
        return self.root / ".kdleak" / "cache"

    @property
    def hidden_states(self) -> Path:
        """Teacher signals, keyed by content; safe to delete at any time."""
        return self.root / ".kdleak" / "teacher"

    def base_training(self, part: str) -> Path:
        return self.root / "results" / "base" / f"{part}.json"

    def model(self, name: str) -> Path:
        """Checkpoint of `teacher`, or of the student made by the technique `name`."""
        return self.root / "models" / _branch(name)

    def training_text(self, method: str) -> Path:
        """The teacher's responses that `method` trains on."""
        return self.root / "data" / "text" / f"{method}.parquet"

    def results(self, name: str) -> Path:
        return self.root / "results" / _branch(name)

    def training(self, name: str) -> Path:
        return self.results(name) / "training.json"

    def membership(self, name: str) -> Path:
        return self.results(name) / "membership.json"

    def utility(self, name: str) -> Path:
        return self.results(name) / "utility.json"

    def scores(self, name: str) -> Path:
        return self.results(name) / "scores.parquet"

    def blocks(self, name: str) -> Path:
        return self.results(name) / "blocks.json"

    def block_scores(self, name: str) -> Path:
        return self.results(name) / "block_scores.parquet"

    def memorization(self, name: str) -> Path:
        return self.results(name) / "memorization.json"

    def memorization_table(self, name: str) -> Path:
        """What the model gives back of each record; ids and numbers only, as in the two tables below."""
        return self.results(name) / "memorization.parquet"

    def facts(self, name: str) -> Path:
        return self.results(name) / "facts.parquet"

    def canary_scores(self, name: str) -> Path:
        return self.results(name) / "canaries.parquet"

    def roc(self, name: str) -> Path:
        return self.results(name) / "roc.csv"

    def resume(self, name: str) -> Path:
        """Where an unfinished training keeps its state, outside the pipeline's outputs."""
        return self.root / ".kdleak" / "resume" / name

    def trial(self, method: str, multiplier: float) -> Trial:
        """The project as a run of `method` at `multiplier` times its recipe's learning rate sees it."""
        return Trial(self.root, method, str(multiplier))


@dataclass(frozen=True)
class Trial(Project):
    """The same project, but for one technique, whose student and results have places of their own."""

    method: str = ""
    rate: str = ""

    def model(self, name: str) -> Path:
        """Of no use once it is audited, so not among the pipeline's outputs. Progress lines show the folder's name."""
        return self.root / ".kdleak" / "rates" / self.rate / name if name == self.method else super().model(name)

    def results(self, name: str) -> Path:
        own = super().results(name)
        return own / "rates" / self.rate if name == self.method else own

    def resume(self, name: str) -> Path:
        return super().resume(f"{name}-{self.rate}")


def _branch(name: str) -> Path:
    return Path(TEACHER) if name == TEACHER else Path("students") / name
