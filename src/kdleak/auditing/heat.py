"""`--show-text`: the most exposed records with their texts, each token in the colour of what gives it away.

The one page that holds texts of private records: written on request alone, beside the report, for its owner's eyes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from kdleak.attacks.reference import token_shift
from kdleak.core.errors import KdleakError
from kdleak.render.blocks import Callout, Code, Paragraph
from kdleak.render.page import Page, Section

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.auditing.passes import PassResults, Subject
    from kdleak.inference.token_statistics import TokenStatistics

#: Nats at which a token has the full colour, and its opacity there: the text stays legible.
_FULL, _DEEPEST = 4.0, 0.6
#: What a token is compared with, the first that is there: what attacks call the model -> what the page does.
_BESIDE = {"pretrained": "its pretrained base", "no_kd": "the baseline"}
_TOKEN = Markup('<span style="background:rgba({},{:.2f})" title="{}">{}</span>')
_MORE, _LESS = "214,69,41", "41,98,214"


def heat_page(
    exposed: Sequence[Mapping[str, Any]], frame: pd.DataFrame, student: Subject, passes: Mapping[str, PassResults]
) -> str:
    """The HTML page of the records of `exposed` (as audit.json has them); frame: the lists, in the passes' order."""
    statistics = passes["target"].statistics
    if passes["target"].written:
        heat, words = np.zeros(int(statistics.offsets[-1])), "not known, as the endpoint gives text alone"
    else:
        heat, words = token_heat(statistics, {name: each.statistics for name, each in passes.items()})
    place = {record_id: i for i, record_id in enumerate(frame["record_id"])}
    sections = []
    for rank, row in enumerate(exposed, start=1):
        i = place[row["record_id"]]
        own = heat[statistics.offsets[i] : statistics.offsets[i + 1]]
        text, spans = frame["response"].iloc[i], student.encoded.spans[i][: len(own)]
        instruction, context = frame["instruction"].iloc[i], frame["context"].iloc[i]
        prompt = student.encoder.prompt(instruction, context, _turns(frame, i))
        blocks = [Paragraph(_lines(prompt)), Paragraph(Markup("").join(coloured(text, spans, own, words)))]
        sections.append(Section(f"{rank}. {row['place']}", blocks, Code(row["record_id"][:16])))
    summary = [
        Callout("This page holds texts of private records. It is no part of the report; share it with nobody.", "bad"),
        Paragraph(f"The colour of a token is {words}: red more, blue less, full at {_FULL:g} nats."),
    ]
    return Page("Texts of the most exposed records", sections, summary=summary).html()


def token_heat(statistics: TokenStatistics, others: Mapping[str, TokenStatistics]) -> tuple[np.ndarray, str]:
    """(total,) nats, and what they are: by how much likelier the student finds each token than its base, or the
    baseline, does; without one that reads the same tokens, than its own mean token."""
    for name, called in _BESIDE.items():
        if name in others:
            try:
                return token_shift(statistics, others[name]), f"by how much likelier the student finds it than {called}"
            except KdleakError:  # another tokenizer
                continue
    log_prob = statistics.log_prob.astype(np.float64)
    return log_prob - log_prob.mean(), "by how much likelier the student finds it than these lists' mean token"


def coloured(text: str, spans: np.ndarray, heat: np.ndarray, words: str) -> Iterator[Markup]:
    """The response, a piece a token; characters that no token covers stand plain. spans: (m, 2) of its tokens."""
    at = 0
    for (start, end), nats in zip(spans.tolist(), heat.tolist(), strict=True):
        start = max(start, at)  # a token may begin in the prompt, and one character may have several
        if start > at:
            yield _lines(text[at:start])
        strength = _DEEPEST * min(1.0, abs(nats) / _FULL)
        piece = _lines(text[start:end])
        yield _TOKEN.format(_MORE if nats > 0 else _LESS, strength, f"{nats:+.2f} nats, {words}", piece)
        at = max(at, end)
    yield _lines(text[at:])


def _lines(text: str) -> Markup:
    return Markup("<br>").join(text.split("\n"))


def _turns(frame: pd.DataFrame, i: int) -> Sequence[Any]:
    return frame["turns"].iloc[i] if "turns" in frame else ()
