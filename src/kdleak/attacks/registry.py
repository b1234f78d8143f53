"""What an attack is given, what it must say about itself, and where attacks are found.

An attack that needs a forward pass of its own over the audited model declares it (`TextPass`, `ModelPass`); the
engine makes the passes that attacks declare, without knowing any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.core.errors import KdleakError, nearest
from kdleak.data.encoding import EncodedRecord, Encoder
from kdleak.inference.token_statistics import TokenStatistics

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PassInput:
    """What a pass of an attack's own is made from.

    frame:         the records' texts (record_id, instruction, context, response; of chats, turns), in their order.
    records:       the same, as the target's `encoder` encodes them.
    population:    encoded records that no model was trained on; may be empty.
    statistics:    token statistics of `records` under the target as it is.
    max_positions: the longest sequence that the target has positions for.
    options:       settings by name (the section `audit` of params.yaml); each pass has defaults for those it reads.
    seed:          of everything random.
    """

    frame: pd.DataFrame
    records: Sequence[EncodedRecord]
    population: Sequence[EncodedRecord]
    encoder: Encoder
    statistics: TokenStatistics
    max_positions: int
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class TextPass:
    """Token statistics of the same records encoded otherwise: `AttackInput.variants[name]`.

    encode: the records, in the same order and with the same ids. needs_population: whether it reads the population.
    """

    name: str
    encode: Callable[[PassInput], Sequence[EncodedRecord]]
    needs_population: bool = False


@dataclass(frozen=True)
class ModelPass:
    """An array that is computed with the model itself: `AttackInput.computed[name]`.

    settings: everything that the result depends on beside model and records; its repr is a part of the cache key.
    compute:  (model, pass input, settings, max_tokens, label of its progress) -> array. Several processes may share it.
    """

    name: str
    settings: Callable[[PassInput], Any]
    compute: Callable[[PreTrainedModel, PassInput, Any, int, str], np.ndarray]
    needs_population: bool = False


ExtraPass = TextPass | ModelPass

#: Whose an attack is: anyone's who has the student and public data, or only the auditor's, who also has the teacher.
ATTACKER, AUDITOR = "attacker", "auditor"


@dataclass(frozen=True)
class Tuning:
    """Records whose membership in a model is known to an attacker who trained it: the no-KD student, on public data.

    model, reference: statistics of the same records under that model and under one that saw none of them (its
    pretrained base). is_member: (k,) bool; False for records of the population.
    """

    model: TokenStatistics
    reference: TokenStatistics
    is_member: np.ndarray


@dataclass(frozen=True)
class AttackInput:
    """Everything that is known about the same `n` records, in the same order.

    target:       the audited model's statistics.
    references:   other models' statistics, by what the model is: `pretrained` (a base of the audited model's family
                  before any fine-tuning), `external` (another architecture that saw auxiliary only), `teacher`,
                  `no_kd` (the student trained without a teacher). A reference may use a tokenizer of its own.
    texts:        (n,) response texts.
    argmax_texts: (n,) the texts that the target's greedy choices spell.
    continued:    (n,) the text that the target continues each prompt with, and as many tokens of the record's own.
    variants:     the target's statistics of the same records encoded otherwise, by the `TextPass` that made them.
    computed:     arrays by the `ModelPass` that computed them.
    tuning:       records whose membership in a reference model is known, for attacks with a parameter to tune.
    groups:       (n,) what makes records one draw (a shared context, near-duplicates); None: each is its own.
    """

    target: TokenStatistics
    references: Mapping[str, TokenStatistics] = field(default_factory=dict)
    texts: Sequence[str] = ()
    argmax_texts: Sequence[str] = ()
    continued: Sequence[tuple[str, str]] = ()
    variants: Mapping[str, TokenStatistics] = field(default_factory=dict)
    computed: Mapping[str, np.ndarray] = field(default_factory=dict)
    tuning: Tuning | None = None
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, other in {**self.references, **self.variants}.items():
            if not np.array_equal(other.record_ids, self.target.record_ids):
                raise KdleakError(f"'{name}' was scored on other records, or in another order, than the target")
        for texts in (self.texts, self.argmax_texts, self.continued):
            if texts and len(texts) != len(self.target):
                raise KdleakError(f"{len(texts)} texts for {len(self.target)} scored records")

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Needs:
    """What an attack asks of its input beyond the target's statistics."""

    references: tuple[str, ...] = ()
    passes: tuple[ExtraPass, ...] = ()
    texts: bool = False
    argmax_texts: bool = False
    continued: bool = False
    tuning: bool = False

    def missing(self, inputs: AttackInput) -> list[str]:
        """Names of what `inputs` lacks."""
        lacking = [f"reference '{name}'" for name in self.references if name not in inputs.references]
        lacking += [
            f"pass '{each.name}'" for each in self.passes if each.name not in {*inputs.variants, *inputs.computed}
        ]
        if self.texts and not inputs.texts and len(inputs):
            lacking.append("response texts")
        if self.argmax_texts and not inputs.argmax_texts and len(inputs):
            lacking.append("argmax texts")
        if self.continued and not inputs.continued and len(inputs):
            lacking.append("continuations of the prompts")
        if self.tuning and inputs.tuning is None:
            lacking.append("records whose membership in the no-KD student is known")
        return lacking


@dataclass(frozen=True)
class Attack:
    """A scoring rule. `source` is its docstring: the definition, the paper and the equation.

    draws:   where the score is a mean over independent draws, what each of them gave: (draws, n).
    whose:   ATTACKER or AUDITOR.
    chosen:  what the attack has tuned on its input, by name, for the report.
    placebo: an input in which no model has what the attack looks for, for its negative control.
    """

    name: str
    needs: Needs
    source: str
    function: Callable[[AttackInput], np.ndarray]
    draws: Callable[[AttackInput], np.ndarray] | None = None
    placebo: Callable[[AttackInput], AttackInput] | None = None
    whose: str = ATTACKER
    chosen: Callable[[AttackInput], dict[str, float]] | None = None

    def score(self, inputs: AttackInput) -> np.ndarray:
        """(n,) float64, higher = member; NaN where undefined. Raises KdleakError where `inputs` lacks a need."""
        missing = self.needs.missing(inputs)
        if missing:
            raise KdleakError(f"attack '{self.name}' needs {' and '.join(missing)}")
        scores = np.asarray(self.function(inputs), np.float64)
        return np.where(np.isfinite(scores), scores, np.nan)


#: Every attack, by name, in the order in which tables show them.
ATTACKS: dict[str, Attack] = {}


def is_auditors(name: str) -> bool:
    """Whether an attack is the auditor's alone: no outsider can run it, and it is nobody's "best" attack."""
    return name in ATTACKS and ATTACKS[name].whose == AUDITOR


def attack(
    name: str,
    *,
    whose: str = ATTACKER,
    draws: Callable[[AttackInput], np.ndarray] | None = None,
    placebo: Callable[[AttackInput], AttackInput] | None = None,
    chosen: Callable[[AttackInput], dict[str, float]] | None = None,
    **needs: Any,
) -> Callable[[Callable], Callable]:
    """Register the decorated function as the attack `name`; further keyword arguments are the fields of `Needs`."""

    def register(function: Callable[[AttackInput], np.ndarray]) -> Callable[[AttackInput], np.ndarray]:
        if name in ATTACKS:
            raise ValueError(f"attack '{name}' is registered twice")
        ATTACKS[name] = Attack(name, Needs(**needs), function.__doc__ or "", function, draws, placebo, whose, chosen)
        return function

    return register


def attack_scores(inputs: AttackInput, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Scores (n,) of the attacks `names`, or of every attack whose needs `inputs` meets.

    Raises KdleakError for an unknown name, or for a named attack whose needs are not met.
    """
    if names is None:
        names = [name for name, attack in ATTACKS.items() if not attack.needs.missing(inputs)]
    for name in names:
        if name not in ATTACKS:
            raise KdleakError(f"unknown attack '{name}'; {nearest(name, ATTACKS)}")
    return {name: ATTACKS[name].score(inputs) for name in names}
