"""Where every artifact lives. No other module spells a path of the project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdleak.core.variants import BASELINE, TEACHER, Variant

__all__ = ["BASELINE", "TEACHER", "Project", "Variant"]

#: A run, or the method of the default run.
Name = str | Variant


@dataclass(frozen=True)
class Project:
    """The files of one project folder (the folder that holds params.yaml)."""

    root: Path = Path(".")

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def code(self) -> Path:
        """Fingerprints of the code of every stage, written once params.yaml was found valid; every stage waits."""
        return self.root / ".code"

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
    def shadow(self) -> Path:
        """Scores of the shadow models, and what they say: ids and numbers only."""
        return self.root / "results" / "shadow"

    @property
    def shadow_report(self) -> Path:
        return self.shadow / "report.json"

    @property
    def defended(self) -> Path:
        """Figures of the models of the frontier, a folder for each point: ids and numbers only."""
        return self.root / "results" / "defences" / "points"

    @property
    def frontier(self) -> Path:
        """Utility against leak of every defence and strength, and what may be said of them."""
        return self.root / "results" / "defences" / "frontier.json"

    @property
    def frontier_table(self) -> Path:
        return self.root / "results" / "defences" / "frontier.csv"

    @property
    def frontier_figure(self) -> Path:
        return self.root / "results" / "defences" / "frontier.svg"

    @property
    def epsilon_report(self) -> Path:
        """Lower bounds on ε of teachers and students, by defence."""
        return self.root / "results" / "epsilon" / "report.json"

    @property
    def report(self) -> Path:
        """The study's report, one self-contained page."""
        return self.root / "results" / "report.html"

    @property
    def findings(self) -> Path:
        """Whether the paper's claims hold."""
        return self.root / "results" / "findings.json"

    @property
    def comparisons(self) -> Path:
        """Every test behind the findings."""
        return self.root / "results" / "comparisons.json"

    @property
    def attacks_table(self) -> Path:
        """A row for each model and attack: what git keeps of membership, and the heatmap of `dvc plots`."""
        return self.root / "results" / "attacks.csv"

    @property
    def models_table(self) -> Path:
        """A row for each model: what git keeps of utility and memorization."""
        return self.root / "results" / "models.csv"

    @property
    def heatmap_figure(self) -> Path:
        return self.root / "results" / "heatmap.svg"

    @property
    def roc_table(self) -> Path:
        """The curves of roc_figure, for `dvc plots`."""
        return self.root / "results" / "roc.csv"

    @property
    def training_table(self) -> Path:
        """Training curves of the models of roc_figure, for `dvc plots`."""
        return self.root / "results" / "training.csv"

    @property
    def roc_figure(self) -> Path:
        return self.root / "results" / "roc.svg"

    @property
    def cache(self) -> Path:
        """Intermediate results keyed by content; safe to delete at any time."""
        return self.root / ".kdleak" / "cache"

    @property
    def corpora(self) -> Path:
        """Tokens of the corpora of LM losses, keyed by content; safe to delete at any time."""
        return self.root / ".kdleak" / "corpus"

    @property
    def hidden_states(self) -> Path:
        """Teacher signals, keyed by content; safe to delete at any time."""
        return self.root / ".kdleak" / "teacher"

    @property
    def converted(self) -> Path:
        """Models out of packages, converted, keyed by content; safe to delete at any time."""
        return self.root / ".kdleak" / "models"

    def converted_from(self, name: str) -> Path:
        """What `kdleak convert` made of the hub's model `name`, an id@revision."""
        return self.converted / name.replace("/", "--")

    def times(self, stage: str, name: str) -> Path:
        """When a command last ran in this folder; state, not a result."""
        return self.root / ".kdleak" / "times" / f"{stage}-{name}.json"

    def base_training(self, part: str) -> Path:
        return self.root / "results" / "base" / f"{part}.json"

    def base(self, name: Name) -> Path:
        """What the model was before it was fine-tuned or distilled."""
        return self.base_teacher if Variant.of(name).is_teacher else self.base_student

    def model(self, name: Name) -> Path:
        """Checkpoint of a run; one that is no default run's has its place beside those of dvc.yaml."""
        variant = Variant.of(name)
        return self.root / "models" / (variant.path if variant.is_default else f"variants/{variant}")

    def training_text(self, method: str) -> Path:
        """The teacher's responses that `method` trains on."""
        return self.root / "data" / "text" / f"{method}.parquet"

    def base_model(self, part: str) -> Path:
        """part: teacher, student or external."""
        return self.root / "models" / "base" / part

    def base_passes(self, part: str) -> Path:
        """What forward passes over a base gave; private, as all that lies below data/."""
        return self.root / "data" / "passes" / "base" / part / "passes.safetensors"

    def passes(self, name: Name) -> Path:
        """What forward passes over the model gave, and its continuations."""
        return self.root / "data" / "passes" / Variant.of(name).path / "passes.safetensors"

    def results(self, name: Name) -> Path:
        return self.root / "results" / Variant.of(name).path

    def training(self, name: Name) -> Path:
        return self.results(name) / "training.json"

    def membership(self, name: Name) -> Path:
        return self.results(name) / "membership.json"

    def utility(self, name: Name) -> Path:
        return self.results(name) / "utility.json"

    def scores(self, name: Name) -> Path:
        return self.results(name) / "scores.parquet"

    def blocks(self, name: Name) -> Path:
        return self.results(name) / "blocks.json"

    def block_scores(self, name: Name) -> Path:
        return self.results(name) / "block_scores.parquet"

    def memorization(self, name: Name) -> Path:
        return self.results(name) / "memorization.json"

    def memorization_table(self, name: Name) -> Path:
        """Memorization of each record; ids and numbers only, as in the two tables below."""
        return self.results(name) / "memorization.parquet"

    def facts(self, name: Name) -> Path:
        return self.results(name) / "facts.parquet"

    def canary_scores(self, name: Name) -> Path:
        return self.results(name) / "canaries.parquet"

    def roc(self, name: Name) -> Path:
        return self.results(name) / "roc.csv"

    def resume(self, name: Name) -> Path:
        """Where an unfinished training keeps its state, outside the pipeline's outputs."""
        return self.root / ".kdleak" / "resume" / str(name)
