"""Audits whose texts are real and whose scores are drawn: no model is run.

Texts are the embedded corpus', in their own script or another, split between the lists by chance. A record has a
difficulty that student, baseline and base share, in part common to its group; a leak shifts the student's members
alone. What the audit decides, it decides by the code that `kdleak audit` runs: lists, blind battery, permutation
control, judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import islice

import numpy as np
import pandas as pd

from kdleak.auditing.controls import blind_control
from kdleak.auditing.judgement import Judgement, judge
from kdleak.auditing.lists import read_lists
from kdleak.auditing.permutation import permutation_control
from kdleak.data.synthetic import generate
from kdleak.inference.cache import ArrayCache

ATTACKS = ("loss", "zlib", "mink", "ref_pretrained", "ez")
#: What an attack's score keeps of a record's difficulty: less where a reference knows it.
_KEPT = {"ref_pretrained": 0.2, "ez": 0.2}
_LINE = "Answer briefly and politely."
#: Records that texts are taken from.
_CORPUS = 4000
_ALPHABETS = {
    "cyrillic": "абцдефгхийклмнопярстувжьызё",
    "han": "".join(map(chr, range(0x4E00, 0x4E1B))),
}
#: The kinds of null audit, by name, as the settings of `simulated_audit` that differ from its defaults.
NULLS = {
    "student = baseline": {"n": 100},
    "shared context": {"n": 100, "context": _LINE},
    "small lists": {"n": 20},
    "Cyrillic": {"n": 80, "script": "cyrillic"},
    "Han": {"n": 60, "script": "han"},
    "easier members": {"n": 100, "easier": 0.66, "nulls": ("no_kd", "pretrained")},
    "documents": {"n": 96, "of_a_document": 8},
    "few documents": {"n": 96, "of_a_document": 16},
}
_GIVEN = (("no_kd", "pretrained"), ("no_kd",), ())


def simulated_audit(
    seed: int,
    n: int = 100,
    *,
    leak: float = 0.0,
    script: str = "latin",
    context: str | None = None,
    of_a_document: int = 1,
    easier: float = 0.0,
    nulls: Sequence[str] = ("no_kd", "pretrained"),
    with_texts: bool = True,
    kept: ArrayCache | None = None,
) -> Judgement:
    """The judgement on n members and n non-members.

    leak: standard deviations of a score's own noise and difficulty together by which the student's members exceed.
    context: shared by all records; None: each keeps its own. of_a_document: records that share a context, and with it
    half of their variance. easier: by how much members are likelier under every model. nulls: which models that never
    met the teacher were given. with_texts: whether the blind battery reads the texts. kept: keeps what it found.
    """
    frame = _lists(seed, n, script, context, of_a_document)
    generator = np.random.default_rng([seed, 1, round(1000 * leak)])
    member = (frame["role"] == "member").to_numpy()
    _, owner = np.unique(frame["group_id"].to_numpy().astype(str), return_inverse=True)

    def drawn() -> np.ndarray:
        return np.sqrt(0.5) * (generator.normal(size=owner.max() + 1)[owner] + generator.normal(size=len(frame)))

    hardness = drawn() + easier * member
    keys = frame[["record_id", "role", "task"]]

    def table(shift: float) -> pd.DataFrame:
        own = drawn()
        columns = {
            name: _KEPT.get(name, 0.8) * hardness + 0.5 * own + 0.3 * drawn() + shift * member for name in ATTACKS
        }
        return keys.assign(**columns)

    student, others = table(leak), {name: table(0.0) for name in nulls}
    if "pretrained" in others:
        others["pretrained"] = others["pretrained"].drop(columns=["ref_pretrained", "ez"])
    groups = dict(zip(frame["record_id"], frame["group_id"].astype(str), strict=True))
    losses = {name: other["loss"].to_numpy() for name, other in others.items()}
    state, blind = "passed", generator.random(len(frame))
    if with_texts:
        battery = blind_control(frame, seed=seed, models=losses, cache=kept)
        state, blind = battery.report["state"], battery.scores
    shuffled = permutation_control(student, permutations=400, seed=seed, groups=groups)["state"]
    return judge(student, others, blind, state, 0.01, groups, shuffled)


def null_settings(seed: int) -> tuple[str, dict[str, object]]:
    """The kind of the null audit `seed` and its settings: kinds take turns, and so do the models that were given."""
    kind = tuple(NULLS)[seed % len(NULLS)]
    return kind, {"nulls": _GIVEN[seed // len(NULLS) % len(_GIVEN)], **NULLS[kind]}


@lru_cache(64)
def _lists(seed: int, n: int, script: str, context: str | None, of_a_document: int) -> pd.DataFrame:
    generator = np.random.default_rng([seed, 0])
    chosen = [_corpus()[i] for i in generator.choice(_CORPUS, 2 * n, replace=False)]
    contexts = [r.context if context is None else context for r in chosen]
    if of_a_document > 1:
        longest = sorted({r.context for r in _corpus() if len(r.context) > 100})
        documents = generator.choice(longest, 2 * n // of_a_document, replace=False)
        contexts = list(np.repeat(documents, of_a_document))
    rows = [
        {"instruction": _in_script(r.instruction, script), "context": _in_script(c, script) if c != context else c,
         "response": _in_script(r.response, script), "task": r.task}
        for r, c in zip(chosen, contexts, strict=True)
    ]  # fmt: skip
    return read_lists(rows[:n], rows[n:], drop_overlap=True).frame


@cache
def _corpus() -> list:
    return list(islice(generate(_CORPUS, 20), _CORPUS))


def _in_script(text: str, script: str) -> str:
    """`text` letter by letter in another alphabet; Han without spaces, as it is written."""
    if script == "latin":
        return text
    letters = _ALPHABETS[script]
    lower = dict(zip("abcdefghijklmnopqrstuvwxyz", letters, strict=False))
    upper = {a.upper(): b.upper() for a, b in lower.items()}
    changed = text.translate(str.maketrans(lower | upper))
    return changed.replace(" ", "") if script == "han" else changed
