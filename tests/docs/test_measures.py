"""docs/measures.md says of every key of the result files what it is and what it is conditional on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from kdleak.attacks import ATTACKS
from kdleak.auditing.blind import SCORERS
from kdleak.auditing.controls import BLIND_MODELS
from kdleak.data.synthetic import TASKS
from kdleak.distill.methods import METHODS
from tests.support.pipeline_project import ROOT

PAGE = (ROOT / "docs" / "measures.md").read_text()
#: Of every audited model.
FILES = ("membership.json", "memorization.json", "blocks.json", "utility.json")
#: Keys that are names of things, not of figures.
NAMES = {*ATTACKS, *SCORERS, *BLIND_MODELS, *TASKS, *METHODS}


def keys(value: object, above: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a result, with the key that it stands under."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield key, above
        yield from keys(inner, key)
    for inner in value if isinstance(value, list) else ():
        yield from keys(inner, above)


def without_entry(content: object) -> set[str]:
    """The keys of a result that the page says nothing of."""
    table = PAGE.split("## Every key of the result files")[1]
    known = set(re.findall(r"`([a-z_0-9]+)`", table)) | NAMES
    found = {key for key, above in keys(content) if above not in ("kinds", "probability")}
    return {key for key in found - known if not re.fullmatch(r"[\d.]+", key)}


def test_every_key_of_the_committed_findings_has_an_entry():
    """The other files are no part of git: tests/pipeline holds those of a smoke run to the page."""
    assert without_entry(json.loads((ROOT / "results" / "findings.json").read_text())) == set()
