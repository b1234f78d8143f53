"""What a hub answers names no file outside its cache; what a revision is called neither."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from kdleak.core.errors import KdleakError
from kdleak.models.hub import _check_names, model_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HONEST = {"x-repo-commit": COMMIT, "etag": '"60ac3d6dd9"'}


def answer(path: str = "/o/m/resolve/main/config.json", body: bytes = b"", **headers: str) -> SimpleNamespace:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = SimpleNamespace(url=SimpleNamespace(path=path))
    return SimpleNamespace(headers=named, request=request, content=body, read=lambda: body)


def test_honest_answers_pass():
    _check_names(answer(**HONEST))
    _check_names(answer(**HONEST | {"x_linked_etag": '"60ac3d6dd9"', "etag": 'W/"a/b+c="'}))
    _check_names(answer(etag='W/"a/b+c="'))  # of a storage that the file's address leads to
    _check_names(answer("/api/models/o/m", json.dumps({"sha": COMMIT}).encode(), etag='W/"a/b"'))
    _check_names(answer("/api/models/m", b"Temporary Redirect", location="/api/models/o/m"))
    for body in (b"[]", b"<html>", b"{}", b"[" * 100_000):
        _check_names(answer("/api/models/o/m/tree/main", body))


@pytest.mark.parametrize("name", ["../../evil", "..", "/evil", "", "a/b", "a\\b/", '"../x"'])
def test_an_answer_that_leads_out_of_the_cache_is_refused(name):
    hostile = [
        answer(**HONEST | {"x-repo-commit": name}),
        answer(**HONEST | {"x_linked_etag": name or "/"}),
        answer("/api/models/o/m", json.dumps({"sha": name or ["../x"]}).encode()),
        answer("/api/models/o/m", json.dumps({"sha": COMMIT}).encode(), location=f"http://h/{name}"),
    ]
    for each in hostile:
        with pytest.raises(KdleakError, match="its answers name files of the cache that are none"):
            _check_names(each)


@pytest.mark.parametrize("revision", ["../../x", "a/../../x", "/x", "-x", "a\nb", "a b"])
def test_a_revision_is_the_name_of_one(revision):
    with pytest.raises(KdleakError, match=r"o/m: its revision '.*' is no name of a commit, branch or tag; write one"):
        model_folder("o/m", revision)
