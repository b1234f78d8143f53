"""A record of the corpus, the roles it can play, and the table that holds them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: Who sees a record: `private` the teacher alone (the members), `public` the student alone,
#: `heldout` nobody (the non-members), `auxiliary` the attacker's world, `population` the part of that world which no
#: model is trained on (perplexity and ROUGE-L, ReCaLL's prefix, what RMIA is tuned on).
ROLES = ("private", "public", "heldout", "auxiliary", "population")

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Fact:
    """A private fact stated in a response: `value` stands verbatim in it."""

    kind: str
    value: str


@dataclass(frozen=True)
class Record:
    """One instruction-following example. `context` may be empty, `response` may not."""

    task: str
    instruction: str
    context: str
    response: str
    facts: tuple[Fact, ...] = field(default=())

    @property
    def record_id(self) -> str:
        return record_id(self.instruction, self.context, self.response)


def normalise(text: str) -> str:
    """Unicode NFKC, case folded, white space collapsed: texts that differ in nothing a reader sees are equal."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def record_id(instruction: str, context: str, response: str) -> str:
    """sha256 over the normalised fields, separated by a byte that normalisation removes."""
    joined = "\x1f".join(normalise(part) for part in (instruction, context, response))
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()


def iterate(frame: pd.DataFrame) -> Iterator[Record]:
    """The rows of a records table as `Record`s (facts left out)."""
    for row in frame[["task", "instruction", "context", "response"]].itertuples(index=False):
        yield Record(*row)


def read_role(path: Path, *roles: str) -> pd.DataFrame:
    """Rows of `data/records.parquet` with one of `roles`, in order of record id.

    Columns: record_id, task, instruction, context, response, facts, group_id, role.
    """
    from kdleak.core.files import read_parquet

    frame = read_parquet(path, filters=[("role", "in", list(roles))])
    return frame.sort_values("record_id", ignore_index=True)
