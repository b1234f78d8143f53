"""How an audit is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.attacks import ATTACKS
from kdleak.core.errors import KdleakError, nearest

if TYPE_CHECKING:
    from kdleak.models.loading import Loading


@dataclass(frozen=True)
class Limits:
    """Tokens of a prompt, and of prompt and response; what exceeds them is cut. None: what the models can read."""

    prompt: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class EngineSettings:
    """How the engine audits one model, whoever calls it.

    attacks:         names, in the order in which tables show them.
    seed:            of controls and of passes that draw noise.
    batch_tokens:    padded tokens of one forward pass; changes speed and memory, no result.
    options:         settings of the attacks' own passes, by name (`kdleak.attacks.registry.PassInput`).
    permutations:    relabellings of the permutation control. ngram: words of the overlap control's n-grams.
    continuations:   tokens of the greedy continuations of target, teacher and no-KD student; 0: none are made.
    text_only:       records have no prompt.
    published:       whether prompts are continued as the published script did too.
    compare:         whether teacher and no-KD student are attacked too.
    drop_failed:     whether an attack whose placebo succeeds is left out of the scores.
    missing_words:   what an attack lacks, as `Needs.missing` names it -> how to provide it.
    cache:           folder that keeps what passes gave; None: nothing is kept.
    device:          one of torch's; None: where the pipeline's models are computed.
    """

    attacks: Sequence[str]
    seed: int
    batch_tokens: int = 4096
    options: Mapping[str, Any] = field(default_factory=dict)
    permutations: int = 1000
    ngram: int = 13
    continuations: int = 0
    text_only: bool = False
    published: bool = True
    compare: bool = False
    drop_failed: bool = False
    missing_words: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None
    device: str | None = None


@dataclass(frozen=True)
class Settings:
    """What `kdleak.api.audit` takes beside models and records, under the same names.

    loading: how models are loaded; None: as in the pipeline. rate: requests a second to an endpoint, at most. learned:
    whether a shadow is trained (`kdleak.auditing.shadow_baseline`). show_text: whether a page with the texts of the
    most exposed records is made (`kdleak.auditing.heat`).
    """

    template: str = "auto"
    attacks: Sequence[str] | None = None
    fpr: float = 0.01
    quick: bool = False
    memorization: bool = True
    drop_overlap: bool = False
    limits: Limits = field(default_factory=Limits)
    batch_tokens: int = 4096
    device: str = "auto"
    seed: int = 0
    cache: Path | None = None
    loading: Loading | None = None
    rate: float | None = None
    learned: bool = False
    show_text: bool = False

    def __post_init__(self) -> None:
        if self.rate is not None and not 0.0 < self.rate < float("inf"):
            raise KdleakError(f"--rate {self.rate:g}: requests a second are more than 0; leave it out for no limit")
        if not 0.0 <= self.fpr < 1.0:
            raise KdleakError(f"--fpr {self.fpr}: a false-positive rate lies between 0 and 1; 0.01 is usual")
        for name in self.attacks or ():
            if name not in ATTACKS:
                raise KdleakError(f"--attacks: '{name}' is unknown; {nearest(name, ATTACKS)}")
        if not self.running:
            named = ", ".join(self.chosen)
            raise KdleakError(f"--quick leaves out all that --attacks names ({named}); take back one of the two")
        if self.learned and "learned" not in self.running:
            raise KdleakError("--learned: --attacks leaves 'learned' out; take back one of the two")
        if self.batch_tokens < 1:
            raise KdleakError(f"--batch-tokens {self.batch_tokens}: a forward pass needs one token at least")
        prompt, total = self.limits.prompt, self.limits.total
        if (prompt is not None and prompt < 1) or (total is not None and (prompt or 1) >= total):
            raise KdleakError("--max-prompt-tokens must lie between 0 and --max-tokens; a response needs room")

    @property
    def chosen(self) -> list[str]:
        """The attacks that are asked for: those named, or all but the study's own deviating variants."""
        return list(self.attacks or (name for name in ATTACKS if not name.endswith("_published")))

    @property
    def running(self) -> list[str]:
        """Those of them that `quick` leaves: attacks without passes of their own."""
        return [name for name in self.chosen if not (self.quick and ATTACKS[name].needs.passes)]
