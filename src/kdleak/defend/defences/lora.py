"""The teacher is fine-tuned through low-rank adapters, which are merged into its weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kdleak.config.schema import Count
from kdleak.core.errors import KdleakError
from kdleak.defend.registry import Acts, Defence, Fitting, defence
from kdleak.models.families import Lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Projections of attention, by what architectures call them: LLaMA and OPT; GPT-2; GPT-NeoX.
_PROJECTIONS = (("q_proj", "v_proj"), ("c_attn",), ("query_key_value",))


@defence("lora", acts_on=Acts.TEACHER, source="Hu et al. 2022 (arXiv 2106.09685)")
class LowRank(Defence):
    """rank: of the adapters on the attention's projections. Scale alpha / rank is 2, or that of the family's own."""

    knob = "rank"
    strengths = (16, 8, 4, 2, 1)
    protects = "passages: fewer parameters are left to hold them word for word"
    does_not_protect = "records that the low rank still fits; no bound for any record"
    rank: Count = 4

    def teacher(self, fitting: Fitting) -> Fitting:
        family = fitting.lora
        scale, dropout = (2.0, 0.0) if family is None else (family.alpha / family.r, family.dropout)
        targets = _projections(fitting.model) if family is None else family.targets
        adapters = Lora(r=self.rank, alpha=max(1, round(scale * self.rank)), dropout=dropout, targets=targets)
        return replace(fitting, lora=adapters)


def _projections(model: PreTrainedModel) -> list[str]:
    names = {name.split(".")[-1] for name, _ in model.named_modules()}
    for projections in _PROJECTIONS:
        if names.issuperset(projections):
            return list(projections)
    raise KdleakError(
        f"defence.name: 'lora' knows no projections of a {type(model).__name__}; "
        "name them in families.yaml under lora.targets"
    )
