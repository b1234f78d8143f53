"""What must hold of a split before anything is trained on it: one claim a line, the cause before its consequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdleak.data.checks.evidence import COLUMNS, TEXTS
from kdleak.data.records import ROLES

if TYPE_CHECKING:
    from kdleak.config.schema import Checks, Data, Params

_RERUN = "run the data stage again ('dvc repro')"
_SPLIT = "keep such rows in one role (data.roles=hash does) or remove them"


@dataclass(frozen=True)
class Expectation:
    """One claim on one table of evidence.

    name: what holds; table: schema, records, roles or tasks; remedy: what a user does where it does not hold;
    kind, options: the class in great_expectations.expectations and its arguments.
    """

    name: str
    table: str
    remedy: str
    kind: str
    options: Mapping[str, Any]


def expectations(params: Params) -> list[Expectation]:
    """All claims, in the order in which a failure is worth naming."""
    return [*_rows_are_whole(params.data), *_roles_are_disjoint(params.checks), *_roles_are_filled()]


def _rows_are_whole(data: Data) -> list[Expectation]:
    columns = {"column_set": list(COLUMNS), "exact_match": False}
    pair = {"column_A": "record_id", "column_B": "recomputed_id", "ignore_row_if": "either_value_is_missing"}
    return [
        Expectation("columns are complete", "schema", _RERUN, "ExpectTableColumnsToMatchSet", columns),
        *(_not_null(name, f"{name}_chars", "give each row a text") for name in TEXTS),
        *(_not_null(name, name, _RERUN) for name in ("record_id", "task", "group_id", "role")),
        _between("responses are not empty", "response_words_chars", "give the rows a response or remove them", 1),
        _between(
            "response length is within bounds",
            "response_chars",
            "change data.min_response_chars or data.max_response_chars and rerun",
            data.min_response_chars,
            data.max_response_chars,
        ),
        _between(
            "prompt length is within bounds",
            "prompt_chars",
            "change data.max_prompt_chars and rerun",
            0,
            data.max_prompt_chars,
        ),
        Expectation(
            "roles are valid",
            "records",
            f"use {', '.join(ROLES)}",
            "ExpectColumnValuesToBeInSet",
            {"column": "role", "value_set": list(ROLES)},
        ),
        Expectation("record_id is the hash of the text", "records", _RERUN, "ExpectColumnPairValuesToBeEqual", pair),
    ]


def _roles_are_disjoint(checks: Checks) -> list[Expectation]:
    quoting = "remove the rows that quote private ones, or raise checks.max_overlap or checks.max_overlapping_share"
    mostly = round(1 - checks.max_overlapping_share, 12)
    return [
        _between("texts stand in one role", "text_roles", _SPLIT, 0, 1),
        _between("contexts stand in one role", "context_roles", _SPLIT, 0, 1),
        _between("groups of near-duplicates stand in one role", "group_roles", _SPLIT, 0, 1),
        _between("stated groups stand in one role", "stated_group_roles", _RERUN, 0, 1),
        Expectation(
            "record_id is unique",
            "records",
            "remove rows that repeat another but for case and spacing",
            "ExpectColumnValuesToBeUnique",
            {"column": "record_id"},
        ),
        *(
            _between(
                f"{role} repeats few {checks.ngram}-grams of private",
                f"{role}_overlap",
                quoting,
                0,
                checks.max_overlap,
                mostly=mostly,
            )
            for role in ("public", "heldout")
        ),
    ]


def _roles_are_filled() -> list[Expectation]:
    sizes = {"column_A": "n_records", "column_B": "n_asked"}
    return [
        _between("roles are present", "n_records", "give rows of that role", 1, table="roles"),
        Expectation(
            "roles have the size asked for",
            "roles",
            "change data.sizes or give more rows",
            "ExpectColumnPairValuesToBeEqual",
            sizes,
        ),
        _between(
            "tasks are present in every role",
            "n_records",
            "give rows of that task, leave it out, or raise data.sizes",
            1,
            table="tasks",
        ),
    ]


def _not_null(name: str, column: str, remedy: str) -> Expectation:
    return Expectation(f"{name} is not null", "records", remedy, "ExpectColumnValuesToNotBeNull", {"column": column})


def _between(
    name: str,
    column: str,
    remedy: str,
    low: float,
    high: float | None = None,
    mostly: float = 1.0,
    table: str = "records",
) -> Expectation:
    """`low <= value <= high` in at least the share `mostly` of the rows that have a value."""
    options = {"column": column, "min_value": low, "max_value": high, "mostly": mostly}
    return Expectation(name, table, remedy, "ExpectColumnValuesToBeBetween", options)
