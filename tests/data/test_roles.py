"""Roles are drawn by hash: stable when rows are added, whole groups at a time, one mixture of tasks in all roles."""

import hashlib

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdleak.core.errors import KdleakError
from kdleak.data.records import ROLES
from kdleak.data.roles import assign_roles, choose, draw_role

SIZES = {"private": 40, "public": 30, "heldout": 40, "auxiliary": 40, "population": 20}


def table(n: int, tasks: tuple[str, ...] = ("a", "b", "c"), group: int = 1) -> pd.DataFrame:
    ids = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]
    return pd.DataFrame(
        {
            "record_id": ids,
            "task": [tasks[i % len(tasks)] for i in range(n)],
            "group_id": [ids[i - i % group] for i in range(n)],
        }
    )


def role_of(frame: pd.DataFrame) -> dict[str, str]:
    return dict(zip(frame["record_id"], frame["role"], strict=True))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), extra=st.integers(1, 300))
def test_adding_rows_never_moves_a_record_to_another_role(seed, extra):
    before = role_of(assign_roles(table(400), SIZES, seed))
    after = role_of(assign_roles(table(400 + extra), SIZES, seed))
    # A new record of the attacker's world may take the place of one in its population, not of one in another role.
    world = {"population": "auxiliary"}
    assert all(world.get(after[r], after[r]) == world.get(role, role) for r, role in before.items() if r in after)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_sizes_are_exact_and_every_role_has_the_same_mixture_of_tasks(seed):
    chosen = assign_roles(table(450), SIZES, seed)
    assert chosen["role"].value_counts().to_dict() == SIZES
    worlds = chosen["role"].replace("population", "auxiliary")
    shares = pd.crosstab(chosen["task"], worlds, normalize="columns")
    assert (shares.max(axis=1) - shares.min(axis=1) <= 2 / min(SIZES.values())).all()


def test_a_group_never_spans_two_roles():
    chosen = assign_roles(table(600, group=4), SIZES, seed=1)
    assert (chosen.groupby("group_id")["role"].nunique() == 1).all()
    assert (chosen["group_id"].value_counts() > 1).any()


def test_row_order_changes_nothing():
    frame = table(400)
    pd.testing.assert_frame_equal(
        assign_roles(frame, SIZES, 3), assign_roles(frame.sample(frac=1, random_state=0), SIZES, 3)
    )


def test_roles_are_drawn_in_proportion_to_their_sizes():
    drawn = pd.Series([draw_role(0, str(i), SIZES) for i in range(17_000)]).value_counts()
    assert "population" not in drawn
    for role in drawn.index:
        expected = 100 * (SIZES[role] + (SIZES["population"] if role == "auxiliary" else 0))
        assert abs(drawn[role] - expected) < 5 * expected**0.5


def test_more_records_than_the_source_has_is_an_error_that_counts():
    with pytest.raises(KdleakError, match=r"data.sizes: \d+ \w+ records are asked for, but the source has \d+"):
        assign_roles(table(100), SIZES, seed=0)


@pytest.mark.parametrize("records", range(1, 30))
def test_a_source_can_be_used_to_its_last_record(records):
    frame = table(7 * 5 * records, tasks=tuple("abcdefg"))
    frame["role"] = [ROLES[i // 7 % 5] for i in range(len(frame))]
    chosen = choose(frame, dict.fromkeys(ROLES, 7 * records), seed=0)
    assert set(chosen["record_id"]) == set(frame["record_id"])


def test_the_population_is_the_first_of_the_attackers_world_in_whole_groups():
    chosen = assign_roles(table(450), SIZES, seed=2)
    world = chosen[chosen["role"].isin(["auxiliary", "population"])]
    assert list(world["role"]) == ["population"] * 20 + ["auxiliary"] * 40
    other = assign_roles(table(450), SIZES | {"auxiliary": 59, "population": 1}, seed=2)
    assert set(other["record_id"]) == set(chosen["record_id"])  # the draw of the others does not depend on it
    pairs = assign_roles(table(600, group=4), SIZES, seed=1)
    assert (pairs["role"] == "population").sum() == 20


def test_a_population_that_no_whole_groups_make_is_refused():
    frame = table(600, group=4)
    frame["role"] = [("private", "public", "heldout", "auxiliary")[i // 4 % 4] for i in range(len(frame))]
    with pytest.raises(
        KdleakError, match=r"population: 3 records are asked for, but whole groups of near-duplicates make [012]; ask"
    ):
        choose(frame, {"private": 100, "public": 100, "heldout": 100, "auxiliary": 117, "population": 3}, seed=0)


def test_a_population_of_the_users_own_is_kept():
    frame = table(7 * 5 * 4, tasks=tuple("abcdefg"))
    frame["role"] = [ROLES[i // 7 % 5] for i in range(len(frame))]
    chosen = choose(frame, dict.fromkeys(ROLES, 14), seed=0)
    assert set(chosen.loc[chosen["role"] == "population", "record_id"]) <= set(
        frame.loc[frame["role"] == "population", "record_id"]
    )
