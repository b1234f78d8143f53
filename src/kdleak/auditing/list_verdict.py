"""Did this student learn from this list? One verdict for all records at once, and what it could not have noticed.

Dataset inference through a student: weights of all attacks are learned on half of both lists and tested on the other
half (`kdleak.stats.list_test`). It answers another question than the verdict on records: many signals that name nobody
may still show that the list was used. The words are one-sided: what a test does not find may be there, since a
paraphrase defeats it (arXiv 2601.12937).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from kdleak import stats
from kdleak.auditing.controls import CROSS_FITTED, NOTICED, PASSED
from kdleak.auditing.judgement import NULLS, SWAPPED, Judgement
from kdleak.auditing.membership import KEYS, LEVEL, attackers, groups_of
from kdleak.data.sides import MEMBER
from kdleak.stats.list_test import CrossFit, ListTest, list_test, normal_scores, standard, without

if TYPE_CHECKING:
    import pandas as pd

#: Outcomes: the student learned from the list; nothing shows it; these lists cannot tell.
LEARNED, NO_EVIDENCE, UNTOLD = "learned", "no_evidence", "cannot_tell"
#: Why nothing is told where the records stand out and no other model shows what the lists alone would give.
NO_NULL = (
    "Either the student learned from it, or the lists differ by less than the blind control can see: no model that "
    "never met the teacher was given (--baseline, --pretrained), and this audit cannot tell which."
)
#: The level of the test: one list in a hundred that was never used is said to be.
ALPHA = 0.01
#: Groups a side that two halves can be made of.
FEWEST = 10
PERMUTATIONS = 1999
#: Relabellings with a planted effect that a power is the share of, and how finely effects are told apart.
_PLANTED, _STEPS = 200, 5
#: By how clearly each attack tells a used record (AUC): what share of the list would have had to be used.
CLEAR = (0.6, 0.75, 0.9)


def list_verdict(
    scores: pd.DataFrame,
    compared: Mapping[str, pd.DataFrame],
    judged: Judgement,
    blind_state: str,
    groups: Mapping[str, str],
    seed: int = 0,
) -> tuple[dict[str, Any], np.ndarray]:
    """The report of the list, and the cross-fitted score (n,) of each record, in the order of `scores`.

    scores, compared, groups, blind_state: as `judge` takes them; judged: what it said of single records. Attacks of an
    auditor, and variants as published, are no signals. A signal is what a linear function of the same attack's scores
    on the models that never met the teacher leaves of it; where the same test finds one of these models to have
    learned from the list, the lists differ and nothing is told.
    """
    table = scores.reset_index(drop=True)
    order = np.argsort(table["record_id"].to_numpy().astype(str), kind="stable")
    table = table.iloc[order].reset_index(drop=True)
    nulls = {name: compared[name].set_index("record_id").loc[table["record_id"]] for name in NULLS if name in compared}
    names, signals = signals_of(table, list(nulls.values()))
    member = (table["role"] == MEMBER).to_numpy()
    owner = groups_of(table, groups)
    assert owner is not None
    sides = [len(np.unique(owner[side])) for side in (member, ~member)]
    if min(sides) < FEWEST:
        return _untold(f"A list of fewer than {FEWEST} groups of records cannot be halved."), _none(table)
    if not names:
        return _untold("Every score is what a model that never met the teacher gives."), _none(table)
    found = list_test(CrossFit(signals, owner, seed), member, PERMUTATIONS, seed, owner)
    placebos = {NULLS[name]: _placebo(other, names, member, owner, seed) for name, other in nulls.items()}
    report = {
        "p_value": found.p_value,
        "alpha": ALPHA,
        "permutations": PERMUTATIONS,
        "attacks": names,
        "placebo": placebos,
        **_separation(found.scores, member, owner),
    }
    why = _refused(blind_state, judged, placebos)
    if why:
        return _untold(why) | report, _back(found.scores, order)
    kind = NO_EVIDENCE if found.p_value > ALPHA else LEARNED if knows_a_null(report) else UNTOLD
    noticed = _Planted(signals, member, owner, found, seed).report(kind, compared.get("teacher"), names)
    return {"kind": kind, "why": NO_NULL if kind == UNTOLD else "", **report, **noticed}, _back(found.scores, order)


def knows_a_null(listed: Mapping[str, Any]) -> bool:
    """Whether the test ran on a model that never met the teacher: without one, lists that differ by less than the blind
    battery can see look as a list that was used does."""
    return any(p is not None for p in listed["placebo"].values())


def signals_of(table: pd.DataFrame, nulls: Sequence[pd.DataFrame]) -> tuple[list[str], np.ndarray]:
    """The attacks that are signals of a list, and the signals (n, k) themselves; nulls: the same records' scores under
    models that never met the teacher, in the same order. No label is read. A signal that does not vary is left out."""
    columns = [c for c in table.columns if c not in KEYS and not c.endswith("_published")]
    names = attackers(columns) if columns else []
    signals = [_beyond(table[name], [null[name] for null in nulls if name in null]) for name in names]
    kept = [(name, signal) for name, signal in zip(names, signals, strict=True) if signal.any()]
    return [name for name, _ in kept], np.column_stack([s for _, s in kept]) if kept else np.zeros((len(table), 0))


def _beyond(column: pd.Series, others: Sequence[pd.Series]) -> np.ndarray:
    """(n,) the signal of one attack."""
    table = np.column_stack([each.to_numpy(np.float64) for each in (column, *others)])
    normal = normal_scores(table)
    return without(normal[:, 0], normal[:, 1:])


def _placebo(other: pd.DataFrame, names: list[str], member: np.ndarray, owner: np.ndarray, seed: int) -> float | None:
    """The p-value of the same test for a model that never met the teacher; None where no attack ran on it."""
    shared = [name for name in names if name in other.columns]
    if not shared:
        return None
    fit = CrossFit(normal_scores(other[shared].to_numpy(np.float64)), owner, seed)
    return list_test(fit, member, PERMUTATIONS, seed, owner).p_value


def _separation(scores: np.ndarray, member: np.ndarray, owner: np.ndarray) -> dict[str, Any]:
    """How well the cross-fitted score tells single records; its interval is widened as a blind classifier's is."""
    area = stats.auc(scores[member], scores[~member], LEVEL, (owner[member], owner[~member]))
    low, high = (area.value + CROSS_FITTED * (end - area.value) for end in (area.low, area.high))
    return {"auc": area.value, "auc_ci95": [max(0.0, low), min(1.0, high)]}


def _refused(blind_state: str, judged: Judgement, placebos: Mapping[str, float | None]) -> str:
    """Why nothing is told of the list; "" where something is."""
    if blind_state != PASSED:
        return f"The control for lists that differ has not passed ({blind_state})."
    failed = [name for name, p in placebos.items() if p is not None and p <= ALPHA]
    if failed:
        return f"The same test finds the {failed[0]}, which never met the teacher, to have learned from the list too."
    if judged.kind == SWAPPED:
        return "The lists look swapped."
    return ""


def _none(table: pd.DataFrame) -> np.ndarray:
    return np.full(len(table), np.nan)


def _untold(why: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("p_value", "auc", "noticeable_auc", "own_share"))
    empty = {"alpha": ALPHA, "permutations": 0, "attacks": [], "placebo": {}, "auc_ci95": [None, None]}
    return {"kind": UNTOLD, "why": why, **nothing, **empty, "shares": {}, "ruled_out": {"auc": None, "share": None}}


def _back(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    placed = np.empty(len(values))
    placed[order] = values
    return placed


class _Planted:
    """What the test says of lists of which a known share was used: these records' signals with the lists' own
    difference taken out, relabelled at random, and an effect planted in some of the members."""

    def __init__(self, signals: np.ndarray, member: np.ndarray, owner: np.ndarray, found: ListTest, seed: int):
        self.gap = signals[member].mean(0) - signals[~member].mean(0)
        self.fit = CrossFit(standard(signals - np.outer(member, self.gap)), owner, seed)
        generator = np.random.default_rng([seed, 2])
        self.labels = stats.relabellings(member, _PLANTED, generator, owner)
        self.place = np.empty(self.labels.shape, np.uint8)  # as finely as shares are told apart
        for row in self.place:
            row[:] = generator.random(len(row)) * 2**_STEPS
        self.found, self.critical = found, float(np.quantile(found.null, 1.0 - ALPHA, method="higher"))

    def statistics(self, shift: np.ndarray, share: float) -> np.ndarray:
        """(p,) with `shift` planted in about `share` of the members."""
        return self.fit.planted(self.labels, self.labels & (self.place < share * 2**_STEPS), shift)

    def alike(self, auc: float) -> np.ndarray:
        """The shift by which each attack alone would tell a used record with this AUC."""
        return np.full(self.fit.signals.shape[1], np.sqrt(2.0) * ndtri(auc))

    def noticed(self, shift: np.ndarray, share: float) -> bool:
        return bool((self.statistics(shift, share) > self.critical).mean() >= NOTICED)

    def ruled_out(self, shift: np.ndarray, share: float) -> bool:
        """Whether a list that was used so would have shown as little as this in at most ALPHA of cases."""
        low = (self.statistics(shift, share) <= self.found.statistic).sum()
        return bool((1 + low) / (1 + _PLANTED) <= ALPHA)

    def report(self, kind: str, teacher: pd.DataFrame | None, names: list[str]) -> dict[str, Any]:
        """Smallest effects and shares that would have been noticed (95 %), and, where nothing was found, those that the
        result speaks against; null where none up to the whole list, or an AUC of .99, would do."""
        own = _least(lambda share: self.noticed(self.gap, share), 0.0, 1.0) if kind != NO_EVIDENCE else None
        against: dict[str, float | None] = {"auc": None, "share": None}
        if kind == NO_EVIDENCE:
            against["auc"] = _least(lambda auc: self.ruled_out(self.alike(auc), 1.0), 0.5, 0.99)
            if teacher is not None:
                shift = _shift_of(teacher, names)
                against["share"] = _least(lambda share: self.ruled_out(shift, share), 0.0, 1.0)
        return {
            "noticeable_auc": _least(lambda auc: self.noticed(self.alike(auc), 1.0), 0.5, 0.99),
            "shares": {
                f"{auc:g}": _least(lambda share, auc=auc: self.noticed(self.alike(auc), share), 0.0, 1.0)
                for auc in CLEAR
            },
            "own_share": own,
            "ruled_out": against,
        }


def _shift_of(teacher: pd.DataFrame, names: list[str]) -> np.ndarray:
    """(k,) by how much the teacher's members exceed, in standard deviations, for each attack; an attack that did not
    run on the teacher is taken as the mean of those that did."""
    member = (teacher["role"] == MEMBER).to_numpy()
    shifts = np.full(len(names), np.nan)
    for i, name in enumerate(names):
        if name in teacher.columns:
            column = teacher[name].to_numpy(np.float64)
            kept = np.isfinite(column)
            area = stats.auc(column[kept & member], column[kept & ~member]).value
            shifts[i] = np.sqrt(2.0) * ndtri(min(0.99, max(0.01, area)))
    return np.where(np.isfinite(shifts), shifts, np.nanmean(shifts) if np.isfinite(shifts).any() else 0.0)


def _least(holds: Callable[[float], bool], low: float, high: float) -> float | None:
    """The smallest value in (low, high] from which `holds` is true, by halving, rounded up; None where it is not at
    `high`."""
    if not holds(high):
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if holds(middle) else (middle, high)
    return float(np.ceil(100 * high) / 100)
