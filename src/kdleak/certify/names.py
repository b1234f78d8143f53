"""What an audit of results/epsilon/report.json is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.defend.choice import acting
from kdleak.defend.registry import Acts

if TYPE_CHECKING:
    from kdleak.config.schema import Params


def defence_key(params: Params) -> str:
    """The defence of params.yaml by name and strength: `none`, `dp_sgd 0.8`."""
    defence = acting(params, *Acts)
    strength = [f"{getattr(defence, defence.knob):g}"] if defence.knob else []
    return " ".join([defence.name, *strength])
