"""What the gate looks at instead of text: hashes, lengths and counts derived from the records table.

The results of Great Expectations carry samples of the values they reject, and Data Docs print them; so nothing that
could hold private text goes in. Every figure is recomputed from the text, whatever the table says of itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from kdleak.data.overlap import group_ids, ngram_overlap
from kdleak.data.records import ROLES, normalise, record_id

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params

TEXTS = ("instruction", "context", "response")
#: The columns that a records table must have.
COLUMNS = ("record_id", "task", *TEXTS, "group_id", "role")
#: An optional column: the row's number in the source, by which a message then names it.
SOURCE_ROW = "source_row"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LABEL = re.compile(r"[\w .,:+/-]{1,40}")


def record_evidence(records: pd.DataFrame, params: Params) -> pd.DataFrame:
    """One row a record, in order. Columns, apart from the ids and labels of the table itself:

    row                            number in the source, or else in the table, from 0
    <text>_chars                   length of instruction, context, response; null where the text is missing
    prompt_chars, response_words_chars   length of instruction and context; of the response without white space around
    recomputed_id                  sha256 of the normalised text
    text_roles, context_roles, group_roles, stated_group_roles
                                   how many roles hold this normalised text, this non-empty context, this group of
                                   near-duplicates and shared contexts, this group by the table's own group_id
    public_overlap, heldout_overlap   share of the record's n-grams that stand in private; null in other roles
    """
    import pandas as pd

    text = {name: records[name].map(_text_or_empty).tolist() for name in TEXTS}
    filled = pd.DataFrame({**text, "role": records["role"].to_numpy()})
    context_keys = [normalise(c) or f"\x00{i}" for i, c in enumerate(text["context"])]
    recomputed = [record_id(*parts) for parts in zip(*text.values(), strict=True)]
    roles = records["role"]
    evidence = pd.DataFrame(
        {
            "row": records[SOURCE_ROW].to_numpy() if SOURCE_ROW in records else np.arange(len(records)),
            "record_id": records["record_id"].map(_sha256_only).to_numpy(object),
            "role": roles.map(_label_only).to_numpy(object),
            "task": records["task"].map(_label_only).to_numpy(object),
            "group_id": records["group_id"].map(_sha256_only).to_numpy(object),
            "recomputed_id": recomputed,
            "prompt_chars": [len(i) + len(c) for i, c in zip(text["instruction"], text["context"], strict=True)],
            "response_words_chars": [len(r.strip()) for r in text["response"]],
            "text_roles": _roles_per_key(recomputed, roles),
            "context_roles": _roles_per_key(context_keys, roles),
            "group_roles": _roles_per_key(group_ids(filled), roles),
            "stated_group_roles": _roles_per_key(records["group_id"], roles),
        }
    )
    for name in TEXTS:
        is_text = records[name].map(lambda value: isinstance(value, str)).to_numpy(bool)
        evidence[f"{name}_chars"] = np.where(is_text, [len(t) for t in text[name]], np.nan)
    overlap = np.nan_to_num(ngram_overlap(filled, params.checks.ngram))  # too short for an n-gram: repeats none
    for role in ("public", "heldout"):
        evidence[f"{role}_overlap"] = np.where(roles == role, overlap, np.nan)
    return evidence


def role_evidence(records: pd.DataFrame, params: Params) -> pd.DataFrame:
    """One row a role: role, n_records, n_asked."""
    import pandas as pd

    counts = records["role"].value_counts()
    sizes = dict(params.data.sizes)
    return pd.DataFrame([{"role": r, "n_records": int(counts.get(r, 0)), "n_asked": sizes[r]} for r in ROLES])


def task_evidence(records: pd.DataFrame) -> pd.DataFrame:
    """One row a role and task: role, task, n_records. The population, a part of the attacker's world that no model
    learns from and no member is compared with, counts as `auxiliary`: it may be too small for every task."""
    import pandas as pd

    roles = records["role"].where(records["role"] != "population", "auxiliary")
    labels = records["task"].map(_label_only)
    counts = records.groupby([roles, labels]).size()
    return pd.DataFrame(
        [
            {"role": role, "task": task, "n_records": int(counts.get((role, task), 0))}
            for role in ROLES
            if role != "population"
            for task in sorted(labels.dropna().unique())
        ],
        columns=["role", "task", "n_records"],
    )


def _roles_per_key(keys: object, roles: pd.Series) -> np.ndarray:
    """(n,) in how many different roles each row's key stands."""
    import pandas as pd

    by_key = pd.Series(roles.to_numpy(object)).groupby(pd.Series(np.asarray(keys, dtype=object)), dropna=False)
    return by_key.transform("nunique").to_numpy(int) if len(roles) else np.zeros(0, int)


def _text_or_empty(value: object) -> str:
    return value if isinstance(value, str) else ""


def _sha256_only(value: object) -> str | None:
    if value is None or value != value:
        return None
    return value if isinstance(value, str) and _SHA256.fullmatch(value) else "malformed"


def _label_only(value: object) -> str | None:
    """A label as it is; anything longer might be text that strayed into the wrong column."""
    if value is None or value != value:
        return None
    return value if isinstance(value, str) and _LABEL.fullmatch(value) else "malformed"
