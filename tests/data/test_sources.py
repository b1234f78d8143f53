"""A row that cannot be a record is an error that names the file, the row and the remedy."""

import json

import pandas as pd
import pytest

from kdleak.core.errors import KdleakError
from kdleak.data.sources import read_file

ROW = {"instruction": "Who?", "context": "", "response": "Ada.", "category": "open_qa"}


def refused(path, **options) -> str:
    with pytest.raises(KdleakError) as caught:
        list(read_file(path, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(tmp_path, *lines: str | dict):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_dolly_and_alpaca_fields_give_the_same_record(tmp_path):
    alpaca = {"instruction": "Who?", "input": "", "output": "Ada.", "task": "open_qa"}
    first, second = (row.record for row in read_file(write(tmp_path, ROW, alpaca)))
    assert first == second


def test_parquet_gives_the_same_record_as_jsonl(tmp_path):
    pd.DataFrame([ROW]).to_parquet(tmp_path / "rows.parquet")
    assert list(read_file(tmp_path / "rows.parquet")) == list(read_file(write(tmp_path, ROW)))


def test_csv_gives_the_same_record_as_jsonl_commas_and_lines_in_it_too(tmp_path):
    row = {**ROW, "response": 'Ada, "the first".\nAnd Grace.'}
    pd.DataFrame([row]).to_csv(tmp_path / "rows.csv", index=False)
    assert list(read_file(tmp_path / "rows.csv")) == list(read_file(write(tmp_path, row)))


def test_a_csv_row_of_too_many_or_too_few_fields_is_named(tmp_path):
    for line in ("Who?,,Ada, the first", "Who?"):
        (tmp_path / "rows.csv").write_text(f"instruction,context,response\nA?,,B\n{line}\n")
        assert "line 3: not as many fields" in refused(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([ROW, '{"instruction": "a", "resp'], "line 2: not valid JSON (the line is cut off)"),
        ([ROW, {"instruction": "a"}], "line 2: no 'response'; it has 'instruction'"),
        ([{"prompt": "a", "completion": "b"}], "line 1: no 'response'; it has 'prompt', 'completion'"),
        ([{**ROW, "response": "  "}], "line 1: the response is empty"),
        ([{**ROW, "response": 3}], "line 1: field 'response' is int, not a text"),
        (["[1, 2]"], "line 1: not a JSON object"),
        (["", ""], "no record in it"),
    ],
)
def test_a_bad_row_is_named(tmp_path, lines, words):
    assert words in refused(write(tmp_path, *lines))


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b'\n{"instruction": "\xff"}\n')
    assert "line 2: byte 18 is not UTF-8" in refused(path)


def test_a_missing_file_a_folder_an_empty_file_and_an_unknown_format_are_told_apart(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.jsonl")
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    assert "is empty" in refused(tmp_path / "empty.jsonl")
    (tmp_path / "rows.xlsx").write_text("a,b\n")
    assert "unknown format '.xlsx'" in refused(tmp_path / "rows.xlsx")
    (tmp_path / "rows.parquet").write_text("no parquet")
    assert "not a readable Parquet file" in refused(tmp_path / "rows.parquet")


def test_a_given_split_needs_a_known_role_in_every_row(tmp_path):
    good, bad = {**ROW, "role": "private"}, {**ROW, "role": "train"}
    assert next(iter(read_file(write(tmp_path, good), needs_role=True))).role == "private"
    assert "line 2: its role is none" in refused(write(tmp_path, good, bad), needs_role=True)


def test_a_fact_must_stand_in_the_response(tmp_path):
    rows = write(tmp_path, {**ROW, "facts": [{"kind": "phone", "value": "555"}]})
    assert "a fact does not stand in the response" in refused(rows)
