"""What the sections of params.yaml are made of: numbers with bounds, and what all sections have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

#: A method of distillation, by name. Which there are is for `kdleak.distill.recipes.check_methods` to know.
Method = Annotated[str, Field(min_length=1)]
#: No number of anything is larger: what lies beyond would overflow the integers of the libraries that count it.
MOST = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=MOST)]
Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
