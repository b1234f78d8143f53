"""What a student prefers among a record's own identifier and others of its format: an audit without non-members.

The true identifier and its alternatives are equally likely to have been in the record; guessed is the one that makes
the record likeliest, less under a model that never met the teacher where one is here. What that bounds is
ε of replacing the record by one with another identifier (docs/theory.md, theorem 6): no record was planted for it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.auditing.controls import COULD_NOT_RUN, FAILED, PASSED
from kdleak.auditing.logprob_file import Answers
from kdleak.auditing.passes import ModelRunner, Subject
from kdleak.core.errors import KdleakError
from kdleak.core.seeds import derive
from kdleak.data.identifiers import own_identifiers, with_identifier
from kdleak.data.sides import MEMBER, NONMEMBER
from kdleak.inference import ragged
from kdleak.stats.f_dp import choice_epsilon

if TYPE_CHECKING:
    import pandas as pd

#: δ of the bound, and its error; the p-value below which the control fails; non-members that it needs at least.
DELTA, SIGNIFICANCE, CONTROL_LEVEL, FEWEST = 1e-5, 0.05, 0.01, 5
#: Others of its format that an identifier may be ranked among.
MOST = 999
#: What a student is compared with, the first of these that is computed here; by option of the audit.
_REFERENCES = ("pretrained", "baseline")


def check_alternatives(number: int) -> None:
    """Refuse a number of others that cannot be drawn, before any pass is made."""
    if not 0 <= number <= MOST:
        raise KdleakError(
            f"--identifiers {number}: others that an identifier is ranked among are 1 to {MOST}; 19 is usual, 0: none"
        )


def audit_identifiers(
    subjects: Mapping[str, Subject | Answers], frame: pd.DataFrame, runner: ModelRunner, alternatives: int, seed: int
) -> dict[str, Any]:
    """The figures `identifiers` of audit.json. subjects: by option; frame: of the lists, in the subjects' order;
    alternatives: others that each identifier is ranked among."""
    student = subjects["student"]
    figures: dict[str, Any] = {"alternatives": alternatives, "delta": DELTA, "confidence": 1 - SIGNIFICANCE}
    if isinstance(student, Answers):
        why = "The student is a log-prob file, which says nothing of other identifiers than the records' own."
        return figures | _nothing(why)
    reference = next((each for each in _REFERENCES if isinstance(subjects.get(each), Subject)), "")
    rows, owners = _candidates(frame, student.encoded.characters, alternatives, seed)
    if not len(owners):
        return figures | _nothing("No record's response has an identifier of its own that the models read whole.")
    scores = _scores(student, rows, runner).reshape(-1, 1 + alternatives)
    if isinstance(beside := subjects.get(reference), Subject):
        scores = scores - _scores(beside, rows, runner).reshape(-1, 1 + alternatives)
    ranks = 1 + (scores[:, 1:] >= scores[:, :1]).sum(axis=1)
    roles = frame["role"].to_numpy()[owners]
    sides = {side: _side(ranks[roles == role], alternatives) for side, role in
             (("members", MEMBER), ("nonmembers", NONMEMBER))}  # fmt: skip
    return figures | {"reference": reference or None, **sides} | _judged(sides, alternatives)


def _nothing(why: str) -> dict[str, Any]:
    sides = {side: {"identifiers": 0, "first": 0, "mean_rank": None, "p_value": None}
             for side in ("members", "nonmembers")}  # fmt: skip
    return {"reference": None, **sides, "control": COULD_NOT_RUN, "epsilon_lower": None, "why": why}


def _candidates(
    frame: pd.DataFrame, characters: np.ndarray, alternatives: int, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """(rows, owners): for each record with an identifier of its own that is read whole, the record and then itself with
    each alternative; and the records' positions. By (seed, record) alone."""
    import pandas as pd

    records = frame.to_dict("records")
    owners, rows = [], []
    for place, (record, found) in enumerate(zip(records, own_identifiers(records), strict=True)):
        if found is None or found.end > characters[place]:
            continue
        rng = random.Random(derive(seed, f"identifiers/{record['record_id']}"))
        texts = [found.text, *found.alternatives(alternatives, rng)]
        owners.append(place)
        rows += [
            with_identifier(record, found.text, text) | {"record_id": f"{record['record_id']}/{number}"}
            for number, text in enumerate(texts)
        ]
    return pd.DataFrame(rows, columns=list(frame.columns)), np.array(owners, int)


def _scores(subject: Subject, rows: pd.DataFrame, runner: ModelRunner) -> np.ndarray:
    """(rows,) log-probs of the responses, nats."""
    statistics = runner.statistics(subject, subject.encoder.encode_frame(rows), "identifiers")
    return ragged.total(statistics.log_prob, statistics.offsets)


def _side(ranks: np.ndarray, alternatives: int) -> dict[str, Any]:
    """first: identifiers ranked before all alternatives, ties being lost. mean_rank: 0 first, 1 last, one half by
    chance. p_value: of all ranks together, by Fisher's method: each is uniform where nothing was met."""
    from scipy.stats import combine_pvalues

    if not len(ranks):
        return {"identifiers": 0, "first": 0, "mean_rank": None, "p_value": None}
    p = combine_pvalues(ranks / (1 + alternatives), method="fisher").pvalue
    return {
        "identifiers": len(ranks),
        "first": int((ranks == 1).sum()),
        "mean_rank": float((ranks - 1).mean() / alternatives),
        "p_value": float(p),
    }


def _judged(sides: Mapping[str, Mapping[str, Any]], alternatives: int) -> dict[str, Any]:
    """The control, which is that non-members' identifiers are told no better than by chance, and the bound if it has
    not failed."""
    members, others = sides["members"], sides["nonmembers"]
    state = COULD_NOT_RUN
    if others["identifiers"] >= FEWEST:
        state = FAILED if others["p_value"] < CONTROL_LEVEL else PASSED
    counts = members["identifiers"], members["identifiers"], members["first"]
    why = ""
    if not members["identifiers"]:
        why = "No member's response has an identifier of its own that the models read whole."
    elif state == FAILED:
        why = "The student ranks non-members' identifiers first too: they are not as random as their format says."
    bound = None if why else choice_epsilon(*counts, DELTA, alternatives, SIGNIFICANCE)
    return {"control": state, "epsilon_lower": bound, "why": why}
