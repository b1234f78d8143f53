"""Numbers as a report writes them: the same figure is written the same way everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

UNKNOWN = "–"
#: No smaller p-value is stated: it would be one of the normal approximation's tail.
SMALLEST_P = 1e-6
#: What training.json says of a technique's realised mechanism, in words; COUNTS: those that are no shares.
REALISED = {
    "student_token_share": "student-written",
    "replayed_share": "replayed",
    "rollout_rounds": "rollout rounds",
    "rollout_age_steps": "oldest text, steps",
    "threshold": "threshold",
}
COUNTS = ("rollout rounds", "oldest text, steps")


def number(value: float | None, digits: int = 3) -> str:
    """A figure below one without its leading zero, as the field writes an AUC: .824, -.012, 1.250."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign."""
    text = number(value, digits)
    return text if text == UNKNOWN or text.startswith("-") else f"+{text}"


def interval(ends: Sequence[float | None] | None, digits: int = 3, *, sign: bool = False) -> str:
    if not ends or any(end is None or not math.isfinite(end) for end in ends):
        return ""
    write = signed if sign else number
    return f"[{write(ends[0], digits)}, {write(ends[1], digits)}]"


def with_interval(
    value: float | None, ends: Sequence[float | None] | None, digits: int = 3, *, sign: bool = False
) -> str:
    """A figure and its interval: .824 [.797, .848]."""
    write = signed if sign else number
    return f"{write(value, digits)} {interval(ends, digits, sign=sign)}".strip()


def percent(value: float | None, digits: int = 1) -> str:
    return UNKNOWN if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def p_value(p: float | None) -> str:
    if p is None or not math.isfinite(p):
        return "p unknown"
    if p < SMALLEST_P:
        return "p < 1e-6"
    return f"p = {p:.0e}" if p < 0.001 else f"p = {number(p)}"


def task_name(task: str) -> str:
    """open_qa as open QA."""
    return " ".join("QA" if word == "qa" else word for word in task.split("_"))


def in_words(count: int) -> str:
    """A small count as a word: seven."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return words[count] if count < len(words) else str(count)


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)
