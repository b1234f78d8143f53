"""The data stage: source → filter → groups → roles → data/records.parquet and data/splits.parquet."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.core.files import write_parquet
from kdleak.data.overlap import group_ids
from kdleak.data.roles import assign_roles, choose
from kdleak.data.sources import find_source

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Data
    from kdleak.core.paths import Project


@dataclass(frozen=True)
class Prepared:
    """The chosen records, and how many rows fell away on the way."""

    records: pd.DataFrame
    read: int
    filtered: int
    duplicates: int


def prepare(data: Data, seed: int) -> Prepared:
    """Read the source and give every chosen record its group and role."""
    import pandas as pd

    rows = list(find_source(data).rows(seed))
    kept = [row for row in rows if _passes(row.record.instruction + row.record.context, row.record.response, data)]
    if not kept:
        raise KdleakError(
            f"data: none of the {len(rows)} rows passes the length filters; widen data.max_prompt_chars …"
        )
    frame = pd.DataFrame({"record_id": row.record.record_id, **asdict(row.record), "role": row.role} for row in kept)
    if data.roles == "hash":
        # A user's own split is left as it is: whether it holds duplicates is for the gate to say.
        frame = frame.drop_duplicates("record_id", ignore_index=True)
    frame["facts"] = [list(facts) for facts in frame["facts"]]
    frame["group_id"] = group_ids(frame)
    sizes = dict(data.sizes)
    if data.roles == "hash":
        chosen = assign_roles(frame.drop(columns="role"), sizes, seed)
    else:
        chosen = choose(frame, sizes, seed)
    return Prepared(chosen, len(rows), len(rows) - len(kept), len(kept) - len(frame))


def _passes(prompt: str, response: str, data: Data) -> bool:
    if data.max_prompt_chars is not None and len(prompt) > data.max_prompt_chars:
        return False
    if len(response) < data.min_response_chars:
        return False
    return data.max_response_chars is None or len(response) <= data.max_response_chars


def write_records(data: Data, seed: int, project: Project) -> Prepared:
    """Write data/records.parquet and data/splits.parquet (the same rows without text)."""
    prepared = prepare(data, seed)
    write_parquet(prepared.records, project.records)
    write_parquet(prepared.records[["record_id", "role", "task", "group_id"]], project.splits)
    return prepared
