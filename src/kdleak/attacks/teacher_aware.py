"""What only a distillation auditor can do: let the teacher teach the attack what its own memory looks like.

The auditor holds the teacher, the student's base and the no-KD student. The teacher alone tells members from
non-members better than any student does, so an attack that lets it speak about the record at hand would accuse a
student that gives nothing away. Here the teacher speaks of other records only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdleak.attacks.recent import up_share
from kdleak.attacks.reference import token_shift
from kdleak.attacks.registry import AUDITOR, AttackInput, attack
from kdleak.inference import ragged
from kdleak.stats import mid_ranks

FOLDS = 5
#: Ridge penalty on standardised features.
PENALTY = 10.0
#: The share of a record's tokens whose shift is looked at by itself, at either end.
TAIL = 0.2


def without_teacher(inputs: AttackInput) -> AttackInput:
    """A negative control: in the student's place a student of a teacher that saw no member (`control`), all else as it
    is. An attack which beats chance here hears the teacher itself.

    Where there is none (an audit that trains nothing), the no-KD student stands there, and its base in the no-KD
    student's: neither has met any teacher, so that the way in which students move is no part of this control."""
    if "control" in inputs.references:
        return replace(inputs, target=inputs.references["control"])
    base, baseline = inputs.references["pretrained"], inputs.references["no_kd"]
    return replace(inputs, target=baseline, references={**inputs.references, "no_kd": base})


@attack("teacher_aware", whose=AUDITOR, references=("teacher", "no_kd", "pretrained"), placebo=without_teacher)
def teacher_aware(inputs: AttackInput) -> np.ndarray:
    """How far the student has moved from the no-KD student and from its base in the way that goes with what the teacher
    memorised: w' z(x), with z(x) the standardised features of the shifts delta_t = log p_student - log p_reference,
    for both references the mean of tanh(delta_t) and the means of the lowest and the highest 20 % of delta_t; w the
    ridge regression (penalty 10), over the other folds' records, of the rank of the teacher's EZ score against the
    no-KD student on z. A record's score thus contains nothing that the teacher says of that record (this project)."""
    features = np.hstack([shift_features(inputs, name) for name in ("no_kd", "pretrained")])
    teacher, baseline = inputs.references["teacher"], inputs.references["no_kd"]
    signature = up_share(token_shift(teacher, baseline), teacher.missed, teacher.offsets)
    scores = np.full(len(inputs), np.nan)
    defined = np.isfinite(features).all(1)
    if defined.any():
        groups = None if inputs.groups is None else inputs.groups[defined]
        folds = _folds(inputs.target.record_ids[defined], groups)
        scores[defined] = cross_fitted(features[defined], mid_ranks(signature[defined]) / defined.sum(), folds)
    return scores


def shift_features(inputs: AttackInput, reference: str) -> np.ndarray:
    """(n, 3) float64: what each record's shifts from `reference` look like; NaN without tokens."""
    delta, offsets = token_shift(inputs.target, inputs.references[reference]), inputs.target.offsets
    low, high = ragged.lowest_mean(delta, offsets, TAIL), -ragged.lowest_mean(-delta, offsets, TAIL)
    return np.column_stack([ragged.mean(np.tanh(delta), offsets), low, high])


def cross_fitted(features: np.ndarray, signature: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(n,) what `features` (n, k) say of `signature` (n,), each record by a ridge regression on the other folds; NaN
    where there is no other fold.

    Without intercept: the mean over the other folds would tell of a fold's own mean, that is, of its own members.
    """
    scores = np.full(len(features), np.nan)
    for fold in np.unique(folds):
        held, others = folds == fold, folds != fold
        if others.any():
            mean, width = features[others].mean(0), features[others].std(0)
            z = (features - mean) / np.where(width > 0, width, 1.0)
            gram = z[others].T @ z[others] + PENALTY * np.eye(z.shape[1])
            weights = np.linalg.solve(gram, z[others].T @ (signature[others] - signature[others].mean()))
            scores[held] = z[held] @ weights
    return scores


def _folds(record_ids: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """(n,) the fold of each record: records of a group share one. Groups go by the place of their first id among the
    sorted ids, so that the order of the records decides nothing."""
    place = np.empty(len(record_ids), int)
    place[np.argsort(record_ids, kind="stable")] = np.arange(len(record_ids))
    if groups is not None:
        _, owner = np.unique(groups, return_inverse=True)
        first = np.full(owner.max() + 1, len(place))
        np.minimum.at(first, owner, place)
        place = np.unique(first[owner], return_inverse=True)[1]
    return place % FOLDS
