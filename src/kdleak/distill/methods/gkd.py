"""GKD (Agarwal et al. 2024): generalised Jensen-Shannon divergence, in part on the student's own text."""

from kdleak.config.schema import Share
from kdleak.distill.methods.plain import JensenShannon
from kdleak.distill.registry import method


@method("gkd", source="Agarwal et al. 2024")
class GKD(JensenShannon):
    """student_fraction: probability that a batch is written by the student."""

    student_fraction: Share = 0.5
