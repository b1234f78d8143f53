"""The sections of params.yaml on data: records, the gate, canaries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kdleak.config.types import MOST, Count, Section, Share


class Sizes(Section):
    """Records in each role."""

    private: Count
    public: Count
    heldout: Count
    auxiliary: Count
    population: Annotated[int, Field(ge=2, le=MOST)]


class Hub(Section):
    """A data set on the Hugging Face hub, pinned."""

    name: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(min_length=1)]
    split: Annotated[str, Field(min_length=1)] = "train"


class Data(Section):
    """Where records come from and how they are shared out among the roles."""

    source: Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_]*\z")]
    path: Annotated[str, Field(min_length=1)]
    hub: Hub
    rows: Count
    roles: Literal["hash", "column"]
    sizes: Sizes
    max_prompt_chars: Count | None
    min_response_chars: Count
    max_response_chars: Count | None

    @model_validator(mode="after")
    def _possible(self) -> Data:
        if self.max_response_chars is not None and self.max_response_chars < self.min_response_chars:
            raise ValueError("max_response_chars is below min_response_chars; no row can pass")
        return self


class Checks(Section):
    """Bounds of the gate on contamination between the roles."""

    ngram: Count
    max_overlap: Share
    max_overlapping_share: Share


class Canaries(Section):
    """Random secrets planted in the teacher's training data."""

    repetitions: Annotated[list[Count], Field(min_length=1)]
    each: Annotated[int, Field(ge=0, le=MOST)]
    references: Count

    @model_validator(mode="after")
    def _distinct(self) -> Canaries:
        if len(set(self.repetitions)) < len(self.repetitions):
            raise ValueError("repetitions: a number stands twice in the list")
        return self
