"""docs/measures.md says of every key of the result files what it is and what it is conditional on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from kdleak.attacks import ATTACKS
from kdleak.auditing.blind import SCORERS
from kdleak.auditing.controls import BLIND_MODELS
from kdleak.data.synthetic import TASKS
from kdleak.distill.methods import METHODS
from tests.support.pipeline_project import ROOT

PAGE = (ROOT / "docs" / "measures.md").read_text()
FILES = ("membership.json", "memorization.json", "blocks.json", "utility.json", "findings.json")
RESULTS = [path for name in FILES for path in sorted((ROOT / "results").rglob(name))]
#: Keys that are names of things, not of figures.
NAMES = {*ATTACKS, *SCORERS, *BLIND_MODELS, *TASKS, *METHODS}


def keys(value: object, above: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a result, with the key that it stands under."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield key, above
        yield from keys(inner, key)
    for inner in value if isinstance(value, list) else ():
        yield from keys(inner, above)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: str(path.relative_to(ROOT / "results")))
def test_every_key_of_a_committed_result_has_an_entry(path):
    table = PAGE.split("## Every key of the result files")[1]
    known = set(re.findall(r"`([a-z_0-9]+)`", table)) | NAMES
    found = {key for key, above in keys(json.loads(path.read_text())) if above not in ("kinds", "probability")}
    assert {key for key in found - known if not re.fullmatch(r"[\d.]+", key)} == set()


def test_there_are_results_to_hold_the_page_to():
    assert {path.name for path in RESULTS} == set(FILES)
