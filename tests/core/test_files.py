"""Equal results are equal files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kdleak.core.files import json_text, write_json


def test_keys_are_sorted_and_text_is_itself(tmp_path):
    write_json({"b": 1, "a": "é"}, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_bytes() == '{\n "a": "é",\n "b": 1\n}\n'.encode()


def test_digits_round_and_make_plain_what_numpy_holds():
    content = {
        1: np.float32(0.1),
        "array": np.array([[1.23456789, np.nan]]),
        "bool": np.bool_(True),
        "int": np.int64(12345678),
        "tuple": (1e-9 / 3, float("inf"), None, "x"),
    }
    assert json.loads(json_text(content, digits=6)) == {
        "1": 0.1,
        "array": [[1.23457, None]],
        "bool": True,
        "int": 12345678,
        "tuple": [3.33333e-10, None, None, "x"],
    }


def test_without_digits_what_is_no_figure_is_refused():
    with pytest.raises(ValueError):
        json_text({"auc": float("nan")})
