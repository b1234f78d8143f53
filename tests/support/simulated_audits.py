"""Audits of scores and texts that were drawn, not computed: no model is run.

A record has a difficulty that student, baseline and base share; a leak shifts the student's members alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kdleak.auditing.controls import blind_control
from kdleak.auditing.judgement import Judgement, judge
from kdleak.auditing.lists import read_lists

ATTACKS = ("loss", "zlib", "mink", "ref_pretrained", "ez")
_ALPHABETS = {
    "latin": "abcdefghijklmnoprstuvwy",
    "han": "".join(map(chr, range(0x4E00, 0x4E80))),
    "cyrillic": "".join(map(chr, range(0x430, 0x450))),
}
_LINE = "Answer briefly and politely."


def simulated_audit(
    seed: int,
    n: int = 100,
    *,
    leak: float = 0.0,
    script: str = "latin",
    context: str = "",
    nulls: Sequence[str] = ("no_kd", "pretrained"),
    with_texts: bool = True,
) -> Judgement:
    """The judgement on n members and n non-members. leak: standard deviations by which members' scores exceed.

    context: shared by all records. nulls: which models that never met the teacher were given.
    """
    generator = np.random.default_rng(seed)
    rows = [
        {"instruction": _text(generator, script), "context": context, "response": _text(generator, script)}
        for _ in range(2 * n)
    ]
    frame = read_lists(rows[:n], rows[n:], drop_overlap=True).frame
    member = (frame["role"] == "member").to_numpy()
    hardness = generator.normal(size=len(frame))
    keys = frame[["record_id", "role", "task"]]

    def table(shift: float) -> pd.DataFrame:
        own = generator.normal(size=len(frame))
        noise = {name: generator.normal(size=len(frame)) for name in ATTACKS}
        return keys.assign(
            **{
                name: (0.2 if name in ("ref_pretrained", "ez") else 0.8) * hardness
                + 0.5 * own
                + 0.3 * noise[name]
                + shift * member
                for name in ATTACKS
            }
        )

    student, others = table(leak), {name: table(0.0) for name in nulls}
    if "pretrained" in others:
        others["pretrained"] = others["pretrained"].drop(columns=["ref_pretrained", "ez"])
    groups = dict(zip(frame["record_id"], frame["group_id"].astype(str), strict=True))
    losses = {name: other["loss"].to_numpy() for name, other in others.items()}
    if with_texts:
        blind = blind_control(frame, seed=seed, models=losses)
        return judge(student, others, blind.scores, blind.report["state"], 0.01, groups)
    return judge(student, others, generator.random(len(frame)), "passed", 0.01, groups)


def null_settings(seed: int) -> dict[str, object]:
    """One of the kinds of null audit: small lists, other scripts, a context that all records share."""
    return {
        "n": (20, 40, 100, 200)[seed % 4],
        "script": tuple(_ALPHABETS)[seed % 3],
        "context": ("", _LINE)[seed // 2 % 2],
        "nulls": (("no_kd", "pretrained"), ("no_kd",), ())[seed // 4 % 3],
    }


def _text(generator: np.random.Generator, script: str) -> str:
    letters = list(_ALPHABETS[script])
    words = ["".join(generator.choice(letters, int(generator.integers(2, 7)))) for _ in range(8)]
    return "".join(words) if script == "han" else " ".join(words)
