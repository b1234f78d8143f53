"""Who may see which record: roles drawn by hash, so that adding rows never moves a record from one role to another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kdleak.core.errors import KdleakError
from kdleak.data.records import ROLES

#: The roles that groups are drawn for; `population` is then taken out of what `auxiliary` was given.
_DRAWN = tuple(role for role in ROLES if role != "population")

if TYPE_CHECKING:
    import pandas as pd


def _uniform(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def draw_role(seed: int, group_id: str, sizes: Mapping[str, int]) -> str:
    """The role of a group: its hash falls in one of the intervals proportional to `sizes`."""
    shares = _with_population(sizes)
    point = _uniform(seed, "role", group_id) * sum(shares.values())
    for role in _DRAWN:
        point -= shares[role]
        if point < 0:
            return role
    return _DRAWN[-1]


def _with_population(sizes: Mapping[str, int]) -> dict[str, int]:
    """`sizes` of the drawn roles: `auxiliary` with the population in it."""
    return {role: sizes[role] + (sizes["population"] if role == "auxiliary" else 0) for role in _DRAWN}


def assign_roles(frame: pd.DataFrame, sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
    """Draw roles for a table with record_id, task and group_id; returns the chosen rows with a column `role`.

    A group goes to one role as a whole. Every role holds `sizes[role]` records in the same mixture of tasks, as near
    to the source's own as the rows allow; inside (role, task) the records are taken in hash order. Raises
    KdleakError where the rows do not suffice.
    """
    drawn = frame.assign(role=[draw_role(seed, g, sizes) for g in frame["group_id"]])
    return choose(drawn, sizes, seed)


def choose(frame: pd.DataFrame, sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
    """From a table whose records have roles, take `sizes[role]` of each, all roles in one mixture of tasks.

    Where the table names no `population`, that is the first `auxiliary` records by record id, a hash, in whole groups.
    """
    if (frame["role"] == "population").any():
        return _choose(frame, sizes, ROLES, seed)
    chosen = _choose(frame, _with_population(sizes), _DRAWN, seed)
    chosen.loc[_first_groups(chosen[chosen["role"] == "auxiliary"], sizes["population"]), "role"] = "population"
    return chosen


def _first_groups(frame: pd.DataFrame, size: int) -> list[int]:
    """The index of `size` rows in whole groups, in the order of the rows; a group that is too large is passed over."""
    taken: list[int] = []
    for _, group in frame.groupby("group_id", sort=False):
        if len(taken) + len(group) <= size:
            taken += group.index.tolist()
    if len(taken) < size:
        raise KdleakError(
            f"data.sizes.population: {size} records are asked for, but whole groups of near-duplicates make "
            f"{len(taken)}; ask for so many"
        )
    return taken


def _choose(frame: pd.DataFrame, sizes: Mapping[str, int], roles: Sequence[str], seed: int) -> pd.DataFrame:
    tasks = sorted(frame["task"].unique())
    available = {
        role: np.array([int(((frame["role"] == role) & (frame["task"] == t)).sum()) for t in tasks]) for role in roles
    }
    natural = np.array([(frame["task"] == t).mean() for t in tasks])
    mixture = _common_mixture(natural, available, sizes)
    order = frame.assign(_order=[_uniform(seed, "order", r) for r in frame["record_id"]]).sort_values("_order")
    taken = []
    for role in roles:
        quotas = _apportion(mixture, sizes[role], available[role])
        for task, quota in zip(tasks, quotas, strict=True):
            taken.append(order[(order["role"] == role) & (order["task"] == task)].head(quota))
    import pandas as pd

    return pd.concat(taken).drop(columns="_order").sort_values("record_id", ignore_index=True)


def _common_mixture(natural: np.ndarray, available: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> np.ndarray:
    """Shares of the tasks that every role can supply, nearest to `natural`: min(limit, c * natural), summing to 1."""
    limit = np.min([available[role] / sizes[role] for role in available], axis=0)
    if limit.sum() < 1 - 1e-9:  # 7 * (9 / 63) is a little less than 1, and no shortage
        short = min(available, key=lambda role: available[role].sum() / sizes[role])
        have = int(available[short].sum())
        reach = int(sizes[short] * limit.sum())
        raise KdleakError(
            f"data.sizes: {sizes[short]} {short} records are asked for, but the source has {have} of that role"
            f" ({reach} in a mixture of tasks that all roles can have); lower data.sizes.{short} or give more rows"
        )
    goal = min(1.0, limit.sum())
    low, high = 1.0, 1.0
    while np.minimum(limit, high * natural).sum() < goal:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if np.minimum(limit, middle * natural).sum() >= goal else (middle, high)
    return np.minimum(limit, high * natural)


def _apportion(mixture: np.ndarray, size: int, available: np.ndarray) -> np.ndarray:
    """Whole numbers near `mixture * size` that sum to `size` (largest remainder), none above what is available."""
    exact = mixture / mixture.sum() * size
    quotas = np.minimum(np.floor(exact + 1e-9).astype(int), available)
    for i in np.argsort(-(exact - quotas), kind="stable").tolist() * 2:
        if quotas.sum() == size:
            break
        if quotas[i] < available[i]:
            quotas[i] += 1
    return quotas
