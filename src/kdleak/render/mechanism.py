"""A student that is none of its technique, said by name: every page, table and run of it says the same sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdleak.render.palette import label
from kdleak.render.wording import number, percent


def mechanism_absent(method: str, training: Mapping[str, Any]) -> str:
    """Why a student's training.json shows none of the technique whose name it bears, without a full stop; "" where the
    technique's mechanism ran."""
    mechanism = training.get("mechanism") or {"ran": True}
    if mechanism["ran"]:
        return ""
    if method == "distillm" and _never_rose(training):
        found = training["realised"]
        return (
            "DistiLLM's scheduler never fired here: its validation loss never rose, so its threshold stayed at "
            f"{number(found['threshold'], 2)}, with {percent(found['student_token_share'])} of its text its own"
        )
    why = str(mechanism.get("why") or "its defining mechanism did not run").rstrip(".")
    return f"Not {label(method)} here: {why.split(' here: ')[-1]}"


def _never_rose(training: Mapping[str, Any]) -> bool:
    """Whether DistiLLM's threshold is still the one that it started with."""
    threshold, initial = (training.get("realised") or {}).get("threshold"), training.get("options", {}).get("threshold")
    return threshold is not None and initial is not None and threshold <= initial
