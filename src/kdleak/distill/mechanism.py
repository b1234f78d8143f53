"""What a run's text came from, counted as it trained, and whether the mechanism that names its method ran at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Methods that a mechanism beside their objective defines, as their papers call them.
NAMES = {
    "seqkd": "SeqKD",
    "imitkd": "ImitKD",
    "gkd": "GKD",
    "distillm": "DistiLLM",
    "minillm": "MiniLLM",
}


@dataclass
class Tally:
    """Counts over a training, in the unit of what the loss is taken on: response tokens, texts, optimizer steps.

    tokens, student_tokens: trained on; by whom written. texts, replayed: student-written texts trained on, and those
    written at an earlier step. oldest: largest age of such a text, in steps. rounds: times that the student wrote.
    """

    tokens: int = 0
    student_tokens: int = 0
    texts: int = 0
    replayed: int = 0
    oldest: int = 0
    rounds: int = 0

    def add(self, tokens: int, ages: Sequence[int] | None = None) -> None:
        """Count a batch of `tokens`; `ages`: of its texts in steps, where the student wrote them."""
        self.tokens += tokens
        if ages is None:
            return
        self.student_tokens += tokens
        self.texts += len(ages)
        self.replayed += sum(age > 0 for age in ages)
        self.oldest = max(self.oldest, *ages)

    def figures(self) -> dict[str, float | None]:
        """What training.json says of it; see `realised`."""
        return {
            "student_token_share": self.student_tokens / max(1, self.tokens),
            "replayed_share": self.replayed / max(1, self.texts),
            "rollout_age_steps": self.oldest if self.texts else None,
            "rollout_rounds": self.rounds,
        }


def realised(source: Any) -> dict[str, float | None]:
    """What the batches of a finished training were made of.

    student_token_share: of the response tokens trained on, those that the student wrote.
    replayed_share:      of the student's texts trained on, those written at an earlier step.
    rollout_age_steps:   age of the oldest of them in optimizer steps; None where the student wrote nothing.
    rollout_rounds:      times that the student wrote.
    threshold:           DistiLLM's, at the end; None where there is no scheduler.
    """
    return Tally().figures() | {"threshold": None} | source.realised()


def mechanism_ran(training: Mapping[str, Any]) -> str | None:
    """Why the run that this training.json describes is not the method that its name says; None where it is."""
    method, found = training["method"], training["realised"]
    missing = _missing(training["text"], training.get("options", {}), found)
    if method == "seqkd" and training["text"] != "teacher":
        missing = "no text of the teacher"
    if method == "distillm" and training["text"] != "adaptive":
        missing = "no student-written token"
    return None if missing is None else f"not {NAMES.get(method, method)} here: {missing}"


def _missing(text: str, options: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    on_policy = text in ("adaptive", "policy") or (text == "mixed" and options.get("student_fraction", 1) > 0)
    if on_policy and not found["student_token_share"]:
        return "no student-written token"
    if text == "adaptive" and found["threshold"] <= options["threshold"]:
        return "its validation loss never rose, so its scheduler never fired"
    if text == "mixed" and on_policy and options.get("replay_capacity") and not found["replayed_share"]:
        return "no text was replayed"
    if text == "policy" and found["rollout_rounds"] < 2:
        return "it rolled out once, so it never learned from what it had become"
    return None
