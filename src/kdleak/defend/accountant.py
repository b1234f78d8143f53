"""ε of DP-SGD: a Gaussian mechanism on batches drawn by Poisson sampling, composed over steps, by Opacus's accountants.

Neighbouring data sets differ in one record, added or removed. What is reported is PRV (Gopi et al. 2021, arXiv
2106.02848), which is exact to a stated error; RDP stands beside it, because most papers report it, and is looser, at
small noise by far.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.core.errors import KdleakError

if TYPE_CHECKING:
    from opacus.accountants.accountant import IAccountant

#: Error of PRV's ε, nats.
EPSILON_ERROR = 0.01
#: PRV's grid grows with ε; where RDP says more than this, ε protects nobody and RDP's bound is given.
VACUOUS = 2000.0


@dataclass(frozen=True)
class Budget:
    """`steps` steps, each with noise of `sigma` times the clipping bound on a batch that a record is in with
    probability `sample_rate`."""

    sigma: float
    sample_rate: float
    steps: int

    def of_group(self, size: int) -> Budget:
        """The same training as a group of `size` records sees it that come and go together.

        At each step some of the group are in the batch, each by itself; the noise hides least where all of them are.
        With probability 1 − (1 − q)^size at least one is, and what happens then is bounded by the sensitivity of all:
        stochastic dominance of mixtures of Gaussians (Choquette-Choo et al. 2024, arXiv 2310.15526, lemma 4.5).
        """
        return Budget(self.sigma / size, 1 - (1 - self.sample_rate) ** size, self.steps)

    def epsilon(self, delta: float, error: float = EPSILON_ERROR) -> float:
        """ε at `delta`, nats: an upper bound, by PRV at most `error` too large; RDP's where that is less."""
        loose = self.epsilon_rdp(delta)
        if loose > VACUOUS:
            return loose
        with _quiet():
            return min(loose, self._accountant("prv").get_epsilon(delta, eps_error=error, delta_error=delta / 1000))

    def epsilon_rdp(self, delta: float) -> float:
        """The same by Rényi divergences (Mironov et al. 2019, arXiv 1908.10530) of Opacus's default orders."""
        with _quiet():
            return float(self._accountant("rdp").get_epsilon(delta))

    def _accountant(self, mechanism: str) -> IAccountant:
        require_opacus()
        from opacus.accountants import create_accountant

        accountant = create_accountant(mechanism)
        accountant.history = [(self.sigma, self.sample_rate, self.steps)]
        return accountant


def account(budget: Budget, records: int, groups: Mapping[str, int]) -> dict[str, Any]:
    """What is spent on `records` records: ε (None: no bound), δ = records^-1.1, and ε of the groups of these sizes."""
    delta = records**-1.1
    spent: dict[str, Any] = {"epsilon": None, "delta": delta, "neighbours": "one record added or removed"}
    spent |= {"sample_rate": budget.sample_rate, "steps": budget.steps}
    if not budget.sigma:
        return spent
    spent |= {"epsilon": budget.epsilon(delta), "epsilon_rdp": budget.epsilon_rdp(delta), "accountant": "PRV (Opacus)"}
    spent["groups"] = {
        name: {"size": size, "epsilon": _of_group(budget.of_group(size), delta)} for name, size in groups.items()
    }
    return spent


def _of_group(budget: Budget, delta: float) -> float:
    """To a thousandth: a group's ε is large, and PRV's grid as fine as its error."""
    return budget.epsilon(delta, error=max(EPSILON_ERROR, budget.epsilon_rdp(delta) / 1000))


def in_words(spent: Mapping[str, Any]) -> str:
    """One sentence of what a training has spent, and of whose records it speaks."""
    if spent["epsilon"] is None:
        return f"no noise, so no ε for {spent['covers']}; nothing of {spent['does_not_cover']}"
    said = f"ε {spent['epsilon']:.2f} at δ {spent['delta']:.2g} for one record of {spent['covers']}"
    for name, group in spent["groups"].items():
        if group["size"] > 1:
            said += f", {group['epsilon']:.4g} for {name} ({group['size']} records)"
    return f"{said}; it says nothing of {spent['does_not_cover']}"


def require_opacus() -> None:
    """Raise KdleakError where Opacus is not installed."""
    if find_spec("opacus") is None:
        raise KdleakError("a private training needs Opacus for its ε; install it with pip install 'kdleak[dp]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Opacus warns of orders at the end of its list and of infinities that it handles."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
