"""A classifier of token-level shifts, trained where labels are free: on a model whose training data the attacker knows.

The no-KD student was trained by whoever attacks, on public records. How that training moved the log-probs of these
records away from the base, and those of records that it never saw, is what a member looks like; no label of an audited
record is used.
"""

from __future__ import annotations

import numpy as np

from kdleak.attacks.recent import up_share
from kdleak.attacks.reference import token_shift
from kdleak.attacks.registry import AttackInput, attack
from kdleak.attacks.teacher_aware import TAIL, without_teacher
from kdleak.inference import ragged
from kdleak.inference.token_statistics import TokenStatistics

#: Inverse of the ridge penalty on standardised features.
C = 0.1


@attack("learned", references=("pretrained", "no_kd"), tuning=True, placebo=without_teacher)
def learned(inputs: AttackInput) -> np.ndarray:
    """Log-odds of membership by a logistic regression on features of the shifts delta_t = log p_target - log
    p_reference, the sum of those against the base and against the no-KD student. Features: the means of delta_t and
    tanh(delta_t), the means of the lowest and highest 20 % of delta_t, and EZ's share of upward shifts. Trained on the
    no-KD student against the base, its public records as members. After LT-MIA (arXiv 2604.03199), which trains a
    transformer on shadow models; a linear classifier is what a few hundred known records can carry (this project)."""
    known = inputs.tuning
    assert known is not None  # Needs.tuning
    mean, width, weights, intercept = fitted(shift_shape(known.model, known.reference), known.is_member)
    odds = [
        ((shift_shape(inputs.target, inputs.references[name]) - mean) / width * weights).sum(1) + intercept
        for name in ("pretrained", "no_kd")
    ]
    return odds[0] + odds[1]


def fitted(features: np.ndarray, is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean and width of features (n, k), weights (k,) of the standardised ones and intercept; undefined rows do not
    count."""
    from sklearn.linear_model import LogisticRegression

    defined = np.isfinite(features).all(1)
    mean, width = features[defined].mean(0), features[defined].std(0)
    width = np.where(width > 0, width, 1.0)
    model = LogisticRegression(C=C).fit((features[defined] - mean) / width, is_member[defined])
    return mean, width, model.coef_[0], float(model.intercept_[0])


def shift_shape(target: TokenStatistics, reference: TokenStatistics) -> np.ndarray:
    """(n, 5) float64 features of each record's shifts; NaN without tokens."""
    delta, offsets = token_shift(target, reference), target.offsets
    columns = (
        ragged.mean(delta, offsets),
        ragged.mean(np.tanh(delta), offsets),
        ragged.lowest_mean(delta, offsets, TAIL),
        -ragged.lowest_mean(-delta, offsets, TAIL),
        up_share(delta, target.missed, offsets),
    )
    return np.column_stack(columns)
