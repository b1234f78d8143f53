"""How much an attack's scores tell members from non-members, and how sure that is.

Every function takes scores oriented so that higher means member; the orientation is never flipped. An attack that
ranks non-members higher has an AUC below one half, and that is what is reported.
"""

from kdleak.stats.auc import AucDifference, AucEstimate, AucRatio, auc, auc_difference, holm, inheritance
from kdleak.stats.contrasts import ALPHA, POWER, Contrast, corrected, leaks
from kdleak.stats.correlation import (
    RankCorrelation,
    TopOverlap,
    jaccard_at_top,
    overlap_at_top,
    percentiles,
    record_correlation,
    resampled_overlap,
    resamples,
    spearman,
    technique_correlation,
    weighted_spearman,
)
from kdleak.stats.delong import Groups, Leak, Scores, effective_sizes, mid_ranks, placements
from kdleak.stats.epsilon import epsilon_bound, epsilon_lower_bound
from kdleak.stats.gap import Gap, mean_gap, mean_interval, proportion_gap
from kdleak.stats.operating_points import (
    FPRS,
    OperatingPoint,
    balanced_accuracy,
    clopper_pearson,
    operating_point,
    operating_points,
    roc_curve,
    tpr_interval,
)
from kdleak.stats.permutation import excluded_share, relabellings
from kdleak.stats.simultaneous import Excess, simultaneous_excess
from kdleak.stats.tpr import tpr_leak

__all__ = [
    "ALPHA",
    "FPRS",
    "POWER",
    "AucDifference",
    "AucEstimate",
    "AucRatio",
    "Contrast",
    "Excess",
    "Gap",
    "Groups",
    "Leak",
    "OperatingPoint",
    "RankCorrelation",
    "Scores",
    "TopOverlap",
    "auc",
    "auc_difference",
    "balanced_accuracy",
    "clopper_pearson",
    "corrected",
    "effective_sizes",
    "epsilon_bound",
    "epsilon_lower_bound",
    "excluded_share",
    "holm",
    "inheritance",
    "jaccard_at_top",
    "leaks",
    "mean_gap",
    "mean_interval",
    "mid_ranks",
    "operating_point",
    "operating_points",
    "overlap_at_top",
    "percentiles",
    "placements",
    "proportion_gap",
    "record_correlation",
    "relabellings",
    "resampled_overlap",
    "resamples",
    "roc_curve",
    "simultaneous_excess",
    "spearman",
    "technique_correlation",
    "tpr_interval",
    "tpr_leak",
    "weighted_spearman",
]
