"""ε of tokens that are sampled from a mean of projected distributions (PMixED, arXiv 2410.02016)."""

from __future__ import annotations

import math

from kdleak.defend.accountant import require_opacus


def renyi_of_token(teachers: int, radius: float, order: float) -> float:
    """Rényi divergence of one sampled token's distribution, nats, where one of `teachers` was trained on other records.

    Both of its projections lie within `radius` nats of the public base at every token, so within 2·radius of each
    other; of such a pair the largest divergence is randomised response's (Mironov 2017, arXiv 1702.07476, prop. 5).
    The other teachers are the same, and exp((α − 1)·D_α) is jointly convex: their share of the mean counts with 1.
    """
    pure = 2 * radius
    log_moment = math.log(math.exp(order * pure) + math.exp((1 - order) * pure)) - math.log1p(math.exp(pure))
    return math.log1p(math.expm1(log_moment) / teachers) / (order - 1)


def epsilon_of_tokens(teachers: int, radius: float, tokens: int, delta: float) -> float:
    """ε at `delta`, nats, of `tokens` sampled tokens, each of which may depend on those before it.

    Orders and conversion are Opacus's; high orders of a large radius, which overflow and help nobody, are left out.
    """
    require_opacus()
    from opacus.accountants.analysis.rdp import get_privacy_spent
    from opacus.accountants.rdp import RDPAccountant

    orders = [1.0 + 10.0**k for k in range(-6, -1)] + [a for a in RDPAccountant.DEFAULT_ALPHAS if a * radius < 300]
    spent = [tokens * renyi_of_token(teachers, radius, order) for order in orders]
    return float(get_privacy_spent(orders=orders, rdp=spent, delta=delta)[0])
