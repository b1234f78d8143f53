"""What an attack is given, what it must say about itself, and where attacks are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kdleak.core.errors import KdleakError, nearest
from kdleak.inference.token_statistics import TokenStatistics

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
    variants:     the target's statistics of the same records encoded otherwise: `lowercase`, `prefixed`.
    mope:         (n,) what `kdleak.attacks.perturbation.mope` found for these records under the target.
    population:   statistics of other records that no audited model was trained on, by model: `target`, and references.
    tuning:       records whose membership in a reference model is known, for attacks with a parameter to tune.
    groups:       (n,) what makes records one draw (a shared context, near-duplicates); None: each is its own.
    """

    target: TokenStatistics
    references: Mapping[str, TokenStatistics] = field(default_factory=dict)
    texts: Sequence[str] = ()
    argmax_texts: Sequence[str] = ()
    variants: Mapping[str, TokenStatistics] = field(default_factory=dict)
    population: Mapping[str, TokenStatistics] = field(default_factory=dict)
    mope: np.ndarray | None = None
    tuning: Tuning | None = None
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, other in {**self.references, **self.variants}.items():
            if not np.array_equal(other.record_ids, self.target.record_ids):
                raise KdleakError(f"'{name}' was scored on other records, or in another order, than the target")
        for texts in (self.texts, self.argmax_texts):
            if texts and len(texts) != len(self.target):
                raise KdleakError(f"{len(texts)} texts for {len(self.target)} scored records")

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Needs:
    """What an attack asks of its input beyond the target's statistics."""

    references: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    population: tuple[str, ...] = ()
    texts: bool = False
    argmax_texts: bool = False
    mope: bool = False

    def missing(self, given: AttackInput) -> list[str]:
        """Names of what `given` lacks."""
        lacking = [f"reference '{name}'" for name in self.references if name not in given.references]
        lacking += [f"variant '{name}'" for name in self.variants if name not in given.variants]
        lacking += [f"population under '{name}'" for name in self.population if name not in given.population]
        if self.texts and not given.texts and len(given):
            lacking.append("response texts")
        if self.argmax_texts and not given.argmax_texts and len(given):
            lacking.append("argmax texts")
        if self.mope and given.mope is None:
            lacking.append("perturbed passes")
        return lacking


@dataclass(frozen=True)
class Attack:
    """A scoring rule. `source` is its docstring: the definition, the paper and the equation. `whose`: see ATTACKER."""

    name: str
    needs: Needs
    source: str
    function: Callable[[AttackInput], np.ndarray]
    whose: str = ATTACKER

    def score(self, given: AttackInput) -> np.ndarray:
        """(n,) float64, higher = member; NaN where undefined. Raises KdleakError where `given` lacks a need."""
        missing = self.needs.missing(given)
        if missing:
            raise KdleakError(f"attack '{self.name}' needs {' and '.join(missing)}")
        scores = np.asarray(self.function(given), np.float64)
        return np.where(np.isfinite(scores), scores, np.nan)


#: Every attack, by name, in the order in which tables show them.
ATTACKS: dict[str, Attack] = {}


def attack(name: str, *, whose: str = ATTACKER, **needs: object) -> Callable[[Callable], Callable]:
    """Register the decorated function as the attack `name`; keyword arguments are the fields of `Needs`."""

    def register(function: Callable[[AttackInput], np.ndarray]) -> Callable[[AttackInput], np.ndarray]:
        if name in ATTACKS:
            raise ValueError(f"attack '{name}' is registered twice")
        ATTACKS[name] = Attack(name, Needs(**needs), function.__doc__ or "", function, whose)
        return function

    return register


def attack_scores(given: AttackInput, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Scores (n,) of the attacks `names`, or of every attack whose needs `given` meets.

    Raises KdleakError for an unknown name, or for a named attack whose needs are not met.
    """
    if names is None:
        names = [name for name, attack in ATTACKS.items() if not attack.needs.missing(given)]
    for name in names:
        if name not in ATTACKS:
            raise KdleakError(f"unknown attack '{name}'; {nearest(name, ATTACKS)}")
    return {name: ATTACKS[name].score(given) for name in names}
