"""The guarantee of the corrected protocol: no private record reaches a student."""

from __future__ import annotations

from collections.abc import Iterable

from kdleak.core.errors import KdleakError
from kdleak.data.encoding import EncodedRecord


def refuse_members(records: Iterable[EncodedRecord], members: Iterable[EncodedRecord]) -> None:
    """Fail unless `records`, all that a student may learn from or answer to, hold none of the teacher's `members`.

    A record is one of the members if it has a member's id, or a member's prompt together with its response.
    """
    ids, contents = set(), set()
    for member in members:
        ids.add(member.record_id)
        contents.add((member.prompt, member.response))
    leaked = sorted({r.record_id for r in records if r.record_id in ids or (r.prompt, r.response) in contents})
    if leaked:
        raise KdleakError(
            f"{len(leaked)} private records would reach the student (the first is {leaked[0][:12]}); "
            "run 'dvc repro checks' and see which roles share them"
        )
