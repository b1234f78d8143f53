"""How much an attack's scores tell members from non-members, and how sure that is.

Every function takes scores oriented so that higher means member; the orientation is never flipped. An attack that
ranks non-members higher has an AUC below one half, and that is what is reported.
"""

from kdleak.stats.auc import (
    AucDifference,
    AucEstimate,
    AucRatio,
    Scores,
    auc,
    auc_difference,
    holm,
    inheritance,
    mid_ranks,
)
from kdleak.stats.operating_points import (
    FPRS,
    OperatingPoint,
    balanced_accuracy,
    clopper_pearson,
    epsilon_bound,
    epsilon_lower_bound,
    operating_point,
    roc_curve,
)

__all__ = [
    "FPRS",
    "AucDifference",
    "AucEstimate",
    "AucRatio",
    "OperatingPoint",
    "Scores",
    "auc",
    "auc_difference",
    "balanced_accuracy",
    "clopper_pearson",
    "epsilon_bound",
    "epsilon_lower_bound",
    "holm",
    "inheritance",
    "mid_ranks",
    "operating_point",
    "roc_curve",
]
