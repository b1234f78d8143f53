"""The gate: every planted failure is found, located and explained; a sound split passes."""

from __future__ import annotations

import errno
import json
import random
from pathlib import Path

import pandas as pd
import pytest

from kdleak.config.load import load_params
from kdleak.core.errors import KdleakError
from kdleak.data.checks.validation import failure_message, run_checks
from kdleak.data.overlap import group_ids
from kdleak.data.records import ROLES, record_id

REPOSITORY = Path(__file__).resolve().parents[2]
SIZES = {"private": 8, "public": 8, "heldout": 8, "auxiliary": 12, "population": 4}
WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lim", "dor")]


@pytest.fixture(scope="module")
def params():
    params = load_params(REPOSITORY / "params.yaml")
    sizes = params.data.sizes.model_copy(update=SIZES)
    return params.model_copy(
        update={"data": params.data.model_copy(update={"sizes": sizes, "max_response_chars": 900})}
    )


def sentence(rng: random.Random, n: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(n))


@pytest.fixture
def split() -> pd.DataFrame:
    rng = random.Random(0)
    rows = [
        {
            "task": ("open_qa", "summarization")[i % 2],
            "instruction": sentence(rng, 8),
            "context": sentence(rng, 30) if i % 2 else "",
            "response": sentence(rng, 40),
            "role": role,
        }
        for role in ROLES
        for i in range(SIZES[role])
    ]
    return refreshed(pd.DataFrame(rows))


def refreshed(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as the data stage would write it: ids and groups of its texts."""
    ids = [record_id(*texts) for texts in zip(frame["instruction"], frame["context"], frame["response"], strict=True)]
    frame = frame.assign(record_id=ids)
    return frame.assign(group_id=group_ids(frame))


def row_of(frame: pd.DataFrame, role: str, at: int = 1) -> int:
    return frame.index[frame["role"] == role][at]


def broken(report: dict) -> dict[str, int]:
    return {e["name"]: e["unexpected"] for e in report["expectations"] if not e["success"]}


def test_a_sound_split_passes_with_counts(split, params):
    report = run_checks(split, params, None)
    assert report["success"], broken(report)
    assert report["roles"] == SIZES
    assert all(e["unexpected"] == 0 for e in report["expectations"])
    assert {e["checked"] for e in report["expectations"]} == {7, 40, 8, 5}


def test_the_report_is_the_same_twice_and_holds_plain_json(split, params):
    first, second = (json.dumps(run_checks(split, params, None)) for _ in range(2))
    assert first == second


def exact_duplicate(frame):
    source, target = row_of(frame, "private"), row_of(frame, "heldout")
    frame.loc[target, ["instruction", "context", "response"]] = frame.loc[
        source, ["instruction", "context", "response"]
    ]


def duplicate_in_case_and_spacing(frame):
    exact_duplicate(frame)
    target = row_of(frame, "heldout")
    frame.loc[target, "response"] = frame.loc[target, "response"].upper().replace(" ", " \n ")


def near_duplicate(frame):
    source, target = row_of(frame, "private", 2), row_of(frame, "public", 2)
    frame.loc[target, "instruction"] = frame.loc[source, "instruction"]
    frame.loc[target, "response"] = frame.loc[source, "response"].rsplit(" ", 1)[0] + " otherwise"


def shared_context(frame):
    source, target = row_of(frame, "public"), row_of(frame, "heldout")
    frame.loc[target, "context"] = " " + frame.loc[source, "context"].title()


@pytest.mark.parametrize(
    ("plant", "name", "roles", "groups"),
    [
        (exact_duplicate, "texts stand in one role", {"private", "heldout"}, "true"),
        (duplicate_in_case_and_spacing, "texts stand in one role", {"private", "heldout"}, "lying"),
        (near_duplicate, "groups of near-duplicates stand in one role", {"private", "public"}, "true"),
        (near_duplicate, "groups of near-duplicates stand in one role", {"private", "public"}, "lying"),
        (shared_context, "contexts stand in one role", {"public", "heldout"}, "lying"),
    ],
)
def test_a_repetition_across_roles_breaks_the_gate_and_is_located(split, params, plant, name, roles, groups):
    plant(split)
    split = refreshed(split)
    if groups == "lying":
        split["group_id"] = [record_id(str(i), "", "") for i in range(len(split))]
    report = run_checks(split, params, None)
    entry = next(e for e in report["expectations"] if e["name"] == name)
    assert not report["success"]
    assert entry["unexpected"] == 2
    assert {row["role"] for row in entry["rows"]} == roles
    message = failure_message(report)
    assert message.startswith(f"checks: '{name}' does not hold for 2 of 40")
    assert "\n" not in message
    assert all(row["record_id"][:12] in message and f"row {row['row']}: " in message for row in entry["rows"])
    assert ("stated groups stand in one role" in broken(report)) == (groups == "true")


def test_a_quoted_response_breaks_the_ngram_bound(split, params):
    source, target = row_of(split, "private", 0), row_of(split, "heldout", 0)
    split.loc[target, "response"] = split.loc[source, "response"].rsplit(" ", 12)[0]
    split.loc[target, "context"] = " ".join(reversed(split.loc[target, "instruction"].split()))
    report = run_checks(refreshed(split), params, None)
    assert broken(report) == {"heldout repeats few 13-grams of private": 1}
    assert "of 8 (" in failure_message(report)


def test_the_ngram_bound_is_a_share_of_the_role(split, params):
    source, target = row_of(split, "private", 0), row_of(split, "heldout", 0)
    split.loc[target, "response"] = split.loc[source, "response"].rsplit(" ", 12)[0]
    lenient = params.model_copy(update={"checks": params.checks.model_copy(update={"max_overlapping_share": 1 / 8})})
    report = run_checks(refreshed(split), lenient, None)
    assert report["success"]
    assert sum(e["unexpected"] for e in report["expectations"]) == 1


def test_an_empty_response_breaks_the_gate(split, params):
    split.loc[[3, 9], "response"] = ["", " \n\t"]
    report = run_checks(refreshed(split), params, None)
    assert broken(report)["responses are not empty"] == 2
    assert "row 3: " in failure_message(report)
    assert "row 9: " in failure_message(report)


def test_a_null_in_any_column_breaks_the_gate(split, params):
    columns = ["record_id", "task", "instruction", "context", "response", "group_id", "role"]
    for row, column in enumerate(columns):
        split.loc[row, column] = None
    report = run_checks(split, params, None)
    for row, column in enumerate(columns):
        entry = next(e for e in report["expectations"] if e["name"] == f"{column} is not null")
        assert not entry["success"]
        assert [r["row"] for r in entry["rows"]] == [row]


def test_lengths_beyond_the_bounds_break_the_gate(split, params):
    rng = random.Random(9)
    split.loc[[4, 6], "response"] = [sentence(rng, 300), sentence(rng, 310)]
    assert broken(run_checks(refreshed(split), params, None)) == {"response length is within bounds": 2}


def test_an_unknown_role_breaks_the_gate(split, params):
    split.loc[[0, 1], "role"] = "train"
    report = run_checks(split, params, None)
    assert broken(report)["roles are valid"] == 2
    assert "row 0: " in failure_message(report)
    assert " train" in failure_message(report)


def test_a_missing_task_breaks_the_gate(split, params):
    split.loc[(split["role"] == "heldout") & (split["task"] == "open_qa"), "task"] = "summarization"
    report = run_checks(split, params, None)
    assert broken(report) == {"tasks are present in every role": 1}
    assert "heldout open_qa: 0 rows" in failure_message(report)


def test_a_role_of_another_size_breaks_the_gate(split, params):
    report = run_checks(split.drop(index=row_of(split, "public", 3)), params, None)
    assert broken(report) == {"roles have the size asked for": 1}
    assert "public: 7 of 8 rows" in failure_message(report)


def test_an_absent_role_breaks_the_gate(split, params):
    report = run_checks(split[split["role"] != "heldout"], params, None)
    assert broken(report)["roles are present"] == 1


def test_a_table_without_rows_breaks_the_gate(split, params):
    assert broken(run_checks(split.iloc[:0], params, None))["roles are present"] == 5


def test_a_missing_column_breaks_the_gate(split, params):
    report = run_checks(split.drop(columns="group_id"), params, None)
    assert broken(report) == {"columns are complete": 1}
    assert "no column 'group_id'" in failure_message(report)


def test_an_id_that_is_not_the_hash_of_the_text_breaks_the_gate(split, params):
    split.loc[2, "record_id"] = "0" * 64
    assert broken(run_checks(split, params, None)) == {"record_id is the hash of the text": 1}


def test_a_duplicate_inside_a_role_breaks_the_gate(split, params):
    split = pd.concat([split.drop(index=row_of(split, "public", 3)), split[split["role"] == "public"].head(1)])
    assert broken(run_checks(split, params, None)) == {"record_id is unique": 2}


def test_rows_are_named_by_their_number_in_the_source_where_it_is_known(split, params):
    exact_duplicate(split)
    split["source_row"] = range(100, 140)
    report = run_checks(refreshed(split), params, None)
    assert f"row {100 + row_of(split, 'heldout')}: " in failure_message(report)


def test_data_docs_hold_the_verdict_and_no_text(split, params, tmp_path):
    near_duplicate(split)
    split.loc[7, "role"] = sentence(random.Random(3), 30)  # a text that strayed into another column
    split = refreshed(split)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "stale.html").write_text("of an earlier run")
    report = run_checks(split, params, docs)
    pages = {p: p.read_text(encoding="utf-8") for p in docs.rglob("*.html")}
    assert docs / "index.html" in pages
    assert docs / "stale.html" not in pages
    assert [p.name for p in tmp_path.iterdir()] == ["docs"]
    everything = "\n".join([*pages.values(), json.dumps(report)])
    assert "group_roles" in everything
    for column in ("instruction", "context", "response"):
        for text in split[column]:
            assert not text or " ".join(text.split()[:3]) not in everything
    assert split.loc[7, "role"].split()[0] + " " not in everything


def test_a_page_of_data_docs_that_the_disk_refuses_is_an_error_and_the_earlier_ones_stay(
    split, params, tmp_path, monkeypatch, capfd
):
    from great_expectations.data_context.store import tuple_store_backend as backend

    write, refused = backend.TupleFilesystemStoreBackend._set, []

    def first_refused(store, key, value, **options):
        if not refused and "<html" in str(value):
            refused.append(key)
            raise OSError(errno.EIO, "input/output error")
        return write(store, key, value, **options)

    (docs := tmp_path / "docs").mkdir()
    (docs / "index.html").write_text("of an earlier run")
    monkeypatch.setattr(backend.TupleFilesystemStoreBackend, "_set", first_refused)
    with pytest.raises(KdleakError, match="docs: the disk fails"):
        run_checks(split, params, docs)
    assert refused and "Traceback" not in "".join(capfd.readouterr())
    assert (docs / "index.html").read_text() == "of an earlier run" and list(tmp_path.iterdir()) == [docs]
