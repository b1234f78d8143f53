"""The two sides of a membership audit, and the roles of the pipeline that take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: Records that the audited training has seen, and records like them that it has not.
MEMBER, NONMEMBER = "member", "nonmember"
_SIDES = {"private": MEMBER, "heldout": NONMEMBER}


def as_sides(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table of the pipeline that are private or heldout, their `role` being member or nonmember."""
    kept = table[table["role"].isin(list(_SIDES))]
    return kept.assign(role=kept["role"].map(_SIDES)).reset_index(drop=True)


def as_roles(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the pipeline's roles again, as its files have them."""
    return table.assign(role=table["role"].map({side: role for role, side in _SIDES.items()}))
