"""The utility part of the judge stage: perplexity and ROUGE-L on the population, which no model has been trained on.

They are not the audit's non-members: what utility costs in membership is read off two sets of records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdleak.core.files import write_json
from kdleak.data.encoding import decoded
from kdleak.data.records import read_role
from kdleak.memorization import verbatim
from kdleak.pipeline.passes import read_passes, reference_files
from kdleak.stats import mean_interval

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from kdleak.core.paths import Project
    from kdleak.core.variants import Variant
    from kdleak.pipeline.passes import ModelPasses


def judge_utility(variant: Variant, passes: ModelPasses, tokenizer: PreTrainedTokenizerBase, project: Project) -> None:
    """Write results/<name>/utility.json: {perplexity, perplexity_of_base, rouge_l, rouge_l_ci95, records}.

    Perplexity is exp of the mean negative log-likelihood per response token, EOS included; the base is what the model
    was before it saw public or private. Records of a group are one draw of ROUGE-L's interval.
    """
    population = read_role(project.records, "population")
    scores = rouge_l(tokenizer, passes.responses, list(population["response"]))
    mean, low, high = mean_interval(scores, population["group_id"].to_numpy())
    base = read_passes(reference_files(variant, project)["pretrained"])
    figures = {
        "perplexity": math.exp(passes.nll),
        "perplexity_of_base": math.exp(base.nll),
        "rouge_l": mean,
        "rouge_l_ci95": [low, high],
        "records": len(population),
    }
    write_json(figures, project.utility(variant), digits=6)


def rouge_l(
    tokenizer: PreTrainedTokenizerBase, responses: Sequence[Sequence[int]], references: Sequence[str]
) -> np.ndarray:
    """(n,) `verbatim.rouge_l` of each response (token ids) against its reference."""
    return verbatim.rouge_l(decoded(tokenizer, responses, skip_special_tokens=True), references)
