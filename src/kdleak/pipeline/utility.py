"""Utility: perplexity and ROUGE-L on records that no model has been trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdleak.core.files import write_json
from kdleak.data.encoding import EncodedRecord, Encoder, eos_id
from kdleak.data.records import read_role
from kdleak.inference.generation import Sampling, generate
from kdleak.models.checkpoints import load_model, load_tokenizer
from kdleak.training.finetune import evaluate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.core.variants import Variant


def measure_utility(name: str | Variant, params: Params, project: Project) -> None:
    """Write results/<name>/utility.json for `teacher`, or for the student that `name` made:

    {perplexity, perplexity_of_base, rouge_l, rouge_l_ci95, records}. Perplexity is exp of the mean negative
    log-likelihood per response token, EOS included; the base is what the model was before it saw public or private.
    """
    base, folder = project.base(name), project.model(name)
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    heldout = read_role(project.records, "heldout")
    limits = (params.model.max_prompt_tokens, params.model.max_tokens)
    records = Encoder(tokenizer, *limits).encode_frame(heldout)
    sampling = Sampling(
        params.generation.max_new_tokens,
        params.model.max_tokens,
        temperature=0.0,
        batch_size=params.compute.generation_batch,
    )
    scores = rouge_l(model, tokenizer, records, list(heldout["response"]), sampling)
    mean = sum(scores) / len(scores)
    error = math.sqrt(sum((s - mean) ** 2 for s in scores) / max(1, len(scores) - 1) / len(scores))
    figures = {
        "perplexity": perplexity(model, records, params.compute.batch_tokens),
        "perplexity_of_base": perplexity(load_model(base), records, params.compute.batch_tokens),
        "rouge_l": mean,
        "rouge_l_ci95": [max(0.0, mean - 1.96 * error), min(1.0, mean + 1.96 * error)],
        "records": len(records),
    }
    write_json(figures, project.utility(name), digits=6)


def perplexity(model: PreTrainedModel, records: Sequence[EncodedRecord], batch_tokens: int) -> float:
    """exp of the mean negative log-likelihood over all response tokens."""
    return math.exp(evaluate(model, records, batch_tokens))


def rouge_l(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EncodedRecord],
    references: Sequence[str],
    sampling: Sampling,
) -> list[float]:
    """ROUGE-L (F1, stemmed words; Lin 2004) of each record's continuation against its reference, in [0, 1]."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    continuations = generate(model, [r.prompt for r in records], sampling, eos_id(tokenizer))
    texts = tokenizer.batch_decode([list(c) for c in continuations], skip_special_tokens=True)
    return [scorer.score(ref, text)["rougeL"].fmeasure for ref, text in zip(references, texts, strict=True)]
