"""The two lists of an audit: records that were in the teacher's private data, and records that were not.

A record is an instruction with a response (and a context), a prompt with a completion, the messages of a chat, or a
text alone. Lists that share a record say nothing of a leak, so they are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.auditing.conversations import Answer, asking, read_messages, transcript
from kdleak.core.errors import KdleakError
from kdleak.core.files import write_csv
from kdleak.data.overlap import group_ids
from kdleak.data.records import Record
from kdleak.data.sides import MEMBER, NONMEMBER
from kdleak.data.sources import field_names, is_blank, raw_rows, task_name, well_formed

if TYPE_CHECKING:
    import pandas as pd

    Records = str | Path | pd.DataFrame | Sequence[Mapping[str, Any]]

#: Fewer records on a side than this show nothing at all.
FEWEST = 10

#: What a row's fields make of it: shape -> the names, in order of preference, of the prompt and of the response.
_SHAPES = {
    "instruction": (("instruction",), ("response", "output")),
    "prompt": (("prompt",), ("completion",)),
    "text": ((), ("text",)),
}
_CONTEXT = ("context", "input")
_TASK = ("category", "task")
#: Columns of chats that only the lists are made with.
_OF_CHAT = ["conversation", "end"]
#: Pairs of overlapping records that an error names in its one line.
_NAMED = 5


class OverlapError(KdleakError):
    """The lists overlap: the text names the first pairs, `pairs` holds all of them (see `overlapping`)."""

    def __init__(self, pairs: pd.DataFrame):
        self.pairs = pairs
        super().__init__(_refusal(pairs))

    def save(self, folder: Path) -> OverlapError:
        """Write overlap.csv into `folder`; the same error, which says so too."""
        write_csv(self.pairs, folder / "overlap.csv")
        self.args = (f"{self}; all of them are in {folder / 'overlap.csv'}",)
        return self


@dataclass(frozen=True)
class Lists:
    """frame: record_id, role (member or nonmember), task, instruction, context, response, place (file and line),
    group_id (records that share a context or are near-duplicates); one row a record, in order of record id. A
    prompt stands in `instruction`, a text in `response`. Each answer of a chat is a record, and all of them are one
    group: the turn that is answered stands in `instruction`, the turns before it in `context`, and the column `turns`
    holds all of it with its roles.

    shape:      instruction, prompt, messages or text.
    duplicates: repeated rows that were left out, by role.
    overlap:    records left out because both lists have them, or near-duplicates of them, by role.
    """

    frame: pd.DataFrame
    shape: str
    duplicates: dict[str, int]
    overlap: dict[str, int]


def read_lists(members: Records, nonmembers: Records, drop_overlap: bool = False) -> Lists:
    """Read both lists, from files (JSONL, Parquet, CSV) or tables.

    Raises KdleakError for a row that is no record, for lists of different shapes and for too few records, OverlapError
    for lists that overlap; with `drop_overlap` the records in question are left out of both.
    """
    import pandas as pd

    (inside, shape), (outside, other) = _read(members, "members", MEMBER), _read(nonmembers, "nonmembers", NONMEMBER)
    if shape != other:
        raise KdleakError(
            f"the members are of shape '{shape}', the non-members of shape '{other}'; what tells the lists apart must "
            "be membership alone: write both the same way"
        )
    rows = pd.concat([inside, outside], ignore_index=True)
    frame = rows.drop_duplicates(["role", "record_id"], ignore_index=True)
    duplicates = _counts(rows) - _counts(frame)
    shared = overlapping(_compared(frame))
    refused = shared[_with_an_end(shared, frame)] if "end" in frame else shared
    if len(refused) and not drop_overlap:
        raise OverlapError(refused)
    kept = frame[~frame["record_id"].isin({*shared["member"], *shared["nonmember"]})]
    if "end" in frame:  # a conversation goes as a whole where its last answer goes
        kept = kept[kept["conversation"].isin(kept.loc[kept["end"], "conversation"])]
    overlap = _counts(frame) - _counts(kept)
    for role, count in _counts(kept).items():
        if count < FEWEST:
            raise KdleakError(f"{count} distinct {role}s: an audit needs {FEWEST} at least, and tells more with 500")
    kept = kept.sort_values("record_id", ignore_index=True)
    kept["group_id"] = _groups(kept)
    kept = kept.drop(columns=_OF_CHAT, errors="ignore")
    return Lists(kept, shape, duplicates.to_dict(), overlap.to_dict())


def _groups(frame: pd.DataFrame) -> np.ndarray:
    """The group of each record; of a chat, that of its last answer: that two begin with a greeting joins them not."""
    if "end" not in frame:
        return group_ids(_compared(frame))
    ends = frame[frame["end"]]
    of_conversation = dict(zip(ends["conversation"], group_ids(_compared(ends)), strict=True))
    return frame["conversation"].map(of_conversation).to_numpy()


def _with_an_end(shared: pd.DataFrame, frame: pd.DataFrame) -> np.ndarray:
    """Which pairs of `overlapping` have the last answer of a conversation on either side. Others are turns that both
    lists may well have, as a greeting: they are left out, and refuse nothing."""
    ends = {(row.role, row.record_id) for row in frame[frame["end"]].itertuples()}
    pairs = zip(shared["member"], shared["nonmember"], strict=True)
    return np.array([(MEMBER, m) in ends or (NONMEMBER, n) in ends for m, n in pairs], bool)


def read_population(source: Records, lists: Lists) -> pd.DataFrame:
    """Records that no model was trained on, of the lists' shape, in order of record id; none of the lists' own."""
    records, shape = _read(source, "population", "population")
    if shape != lists.shape:
        raise KdleakError(
            f"--population is of shape '{shape}', the lists are of shape '{lists.shape}'; write all the same way"
        )
    records = records[~records["record_id"].isin(lists.frame["record_id"])].drop_duplicates("record_id")
    if not len(records):
        raise KdleakError("--population holds no record that the lists do not; give records of their own")
    return records.drop(columns=_OF_CHAT, errors="ignore").sort_values("record_id", ignore_index=True)


def overlapping(frame: pd.DataFrame) -> pd.DataFrame:
    """The records that stand in both lists, or have a near-duplicate in the other (Jaccard similarity of their word
    pairs .8 or more): a row for each member and each non-member concerned, beside its first counterpart.

    Columns member, nonmember (record ids), member_place, nonmember_place, same (whether they are one record).
    """
    import pandas as pd

    # Two questions on one document are two records, and so is one question on two documents: near-duplicates are alike
    # both with the context, as a part of the text, and without it.
    bare = frame.assign(context="")
    full = bare.assign(instruction=frame["instruction"] + "\n" + frame["context"])
    keyed = frame.assign(group=group_ids(bare) + group_ids(full))
    sides = keyed.groupby("group")["role"].nunique()
    pairs = []
    for _, group in keyed[keyed["group"].isin(sides.index[sides == 2])].groupby("group"):
        inside, outside = (group[group["role"] == role].set_index("record_id")["place"] for role in (MEMBER, NONMEMBER))
        matched = {(i, i if i in outside.index else outside.index[0]) for i in inside.index}
        matched |= {(i if i in inside.index else inside.index[0], i) for i in outside.index}
        pairs += [(i, o, inside[i], outside[o], i == o) for i, o in matched]
    columns = ["member", "nonmember", "member_place", "nonmember_place", "same"]
    table = pd.DataFrame(pairs, columns=columns).astype({"same": bool})
    return table.sort_values(["same", "member", "nonmember"], ascending=[False, True, True], ignore_index=True)


def _compared(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` without what says nothing of a record: system turns, and a context that all records share. They make no
    two records near-duplicates, nor one group."""
    if "turns" in frame:
        frame = frame.assign(context=[transcript(asking(turns)[:-1], system=False) for turns in frame["turns"]])
    return frame.assign(context="") if frame["context"].nunique() == 1 else frame


def _refusal(shared: pd.DataFrame) -> str:
    pairs = [
        f"{row.member[:12]} ({row.member_place}) {'=' if row.same else '~'} "
        f"{row.nonmember[:12]} ({row.nonmember_place})"
        for row in shared.head(_NAMED).itertuples()
    ]
    more = f" and {len(shared) - _NAMED} more" if len(shared) > _NAMED else ""
    return (
        f"the lists overlap: {shared['same'].sum()} records stand in both, {(~shared['same']).sum()} have a "
        f"near-duplicate in the other: {'; '.join(pairs)}{more}; remove them, or let --drop-overlap leave them out"
    )


def _counts(frame: pd.DataFrame) -> pd.Series:
    return frame["role"].value_counts().reindex([MEMBER, NONMEMBER], fill_value=0)


def _read(source: Records, option: str, role: str) -> tuple[pd.DataFrame, str]:
    """One list as a table with role and place, and the shape that all of its rows have."""
    import pandas as pd

    origin, rows = _rows(source, option)
    records, shapes = [], {}
    for place, row in rows:
        shape, made = _records(row, f"{origin}, {place}")
        shapes.setdefault(shape, place)
        if len(shapes) > 1:
            (first, here), (second, there) = shapes.items()
            raise KdleakError(f"{origin}: '{first}' at {here}, but '{second}' at {there}; write all rows the same way")
        for record, of_chat in made:
            fields = {"record_id": record.record_id, **asdict(record), "place": f"{Path(origin).name}, {place}"}
            records.append(fields | {"role": role} | of_chat)
    if not records:
        raise KdleakError(f"--{option}: {origin} holds no record; it needs one a line")
    table = pd.DataFrame(records).drop(columns="facts")
    if "message" in table:
        several = [f" (message {number})" if number else "" for number in table.pop("message")]
        table["place"] += several
        table["conversation"] = role + ", " + table["conversation"]
    return table, next(iter(shapes))


def _rows(source: Records, option: str) -> tuple[str, Iterable[tuple[str, Mapping[str, Any]]]]:
    if isinstance(source, str | Path):
        return str(source), raw_rows(Path(source), f"--{option}")
    table: Any = source  # pandas is not imported to ask whether this is one of its tables
    return option, _numbered(table.to_dict("records") if hasattr(table, "to_dict") else table)


def _numbered(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _records(row: Mapping[str, Any], place: str) -> tuple[str, list[tuple[Record, dict[str, Any]]]]:
    """The row's shape, and the records in it: of a chat one an answer, each with further columns."""
    task = task_name(_text(row, _TASK, place))
    if _given(row, ("messages",)):
        answers = read_messages(row["messages"], place)
        return "messages", [(_of_chat(task, each), _columns(answers, each, place)) for each in answers]
    shape = next((s for s, sides in _SHAPES.items() if all(_given(row, names) for names in sides if names)), None)
    if shape is None:
        raise KdleakError(
            f"{place}: it has {field_names(row)}; a record needs instruction and response (and context), "
            "prompt and completion, messages, or text"
        )
    prompts, responses = _SHAPES[shape]
    context = _text(row, _CONTEXT, place) if shape == "instruction" else ""
    record = Record(task, _text(row, prompts, place), context, _text(row, responses, place))
    return shape, [(_with_response(record, responses[0], place), {})]


def _of_chat(task: str, answer: Answer) -> Record:
    asked = asking(answer.turns)
    return Record(task, asked[-1]["content"], transcript(asked[:-1]), answer.response)


def _columns(answers: Sequence[Answer], answer: Answer, place: str) -> dict[str, Any]:
    """turns: before the answer. message: its number, 0 of the only answer. conversation: which it belongs to. end:
    whether it is the last one there."""
    message = answer.message if len(answers) > 1 else 0
    return {"turns": answer.turns, "message": message, "conversation": place, "end": answer is answers[-1]}


def _with_response(record: Record, name: str, place: str) -> Record:
    if is_blank(record.response):
        raise KdleakError(f"{place}: the {name} is empty; give it a text or remove the row")
    return record


def _given(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    return any(not _absent(row.get(name)) for name in names)


def _text(row: Mapping[str, Any], names: Sequence[str], place: str) -> str:
    """The first of the fields `names` that the row has; '' without one."""
    for name in names:
        if not _absent(value := row.get(name)):
            if not isinstance(value, str):
                raise KdleakError(
                    f"{place}: field '{name}' is {type(value).__name__}, not a text; write it as a string"
                )
            return well_formed(value)
    return ""


def _absent(value: object) -> bool:
    """None, or the NaN that a table holds where a row has no value."""
    return value is None or (isinstance(value, float) and bool(np.isnan(value)))
