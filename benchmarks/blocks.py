"""Block-wise MoPe on 12 blocks, starting at the perturbed block, against full forward passes.

    python benchmarks/blocks.py [--records 16] [--draws 1]

Same model (GPT-2 small's shape, random weights), same noise, same records, one run; JSON on standard output. Target:
at most .6 times the same passes run in full. Two yardsticks: passes that produce the logits of every position, as a
plain loss does, and passes whose head runs on response positions only. `peak_mib` is the memory that it adds to the
process on the gpt2-tiny shape, for 128 records and for four times as many, with room for a shard of 8 MiB.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from scoring import MAX_TOKENS, SHAPES, make_model, make_records, peak_mib

from kdleak.attacks.block_perturbation import block_mope
from kdleak.attacks.perturbation import Noise, perturbed, record_log_probs, shifts
from kdleak.data.batching import collate, scoring_batches
from kdleak.inference.block_forward import transformer_blocks
from kdleak.inference.forward import hidden_states
from kdleak.inference.scoring import evaluating, scored_only

IN_SHARDS = "block_mope(model, records, Noise(0.1, 1), max_tokens=MAX_TOKENS, cache_bytes=8 * 2**20)"


def full_passes(model: torch.nn.Module, records: list, noise: Noise, every_position: bool) -> list[np.ndarray]:
    """Block-wise MoPe by complete forward passes: one for the model as it is, one for each block, draw and sign."""
    batches = [scored_only(collate(records, indices)) for indices in scoring_batches(records, MAX_TOKENS)]

    def likelihoods() -> np.ndarray:
        found = np.empty(len(records))
        for batch in batches:
            if every_position:
                logits = model(input_ids=batch.input_ids, use_cache=False).logits
                chosen = logits.flatten(0, 1)[batch.positions].log_softmax(-1)
                log_probs = chosen.gather(-1, batch.targets[:, None])[:, 0].double().numpy()
                rows = batch.rows.numpy()
                found[list(batch.indices)] = np.bincount(rows, log_probs) / np.bincount(rows)
            else:
                found[list(batch.indices)] = record_log_probs(model, batch, hidden_states(model, batch))
        return found

    scores = []
    with evaluating(model):
        clean = likelihoods()
        for index, block in enumerate(transformer_blocks(model)):
            weights = [(f"block.{index}.{name}", p) for name, p in block.named_parameters()]
            falls = []
            for draw in range(noise.draws):
                both = list(shifts(weights, noise, draw))
                for sign in noise.signs:
                    with perturbed(weights, both, sign):
                        falls.append(clean - likelihoods())
            scores.append(np.mean(falls, 0))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=16)
    parser.add_argument("--draws", type=int, default=1)
    options = parser.parse_args()
    shape = "gpt2-small-shaped"
    model, noise = make_model(shape, 0), Noise(sigma=0.1, draws=options.draws)
    records = make_records(options.records, SHAPES[shape]["vocab_size"])
    seconds, scores = {}, {}
    for name, run in {
        "from_the_block": lambda: [s.scores for s in block_mope(model, records, noise, max_tokens=MAX_TOKENS)],
        "full_response_head": lambda: full_passes(model, records, noise, every_position=False),
        "full_logits": lambda: full_passes(model, records, noise, every_position=True),
    }.items():
        start = time.perf_counter()
        scores[name] = run()
        seconds[name] = time.perf_counter() - start
    for name in ("full_response_head", "full_logits"):
        np.testing.assert_allclose(scores["from_the_block"], scores[name], atol=1e-4)
    print(
        json.dumps(
            {
                "benchmark": "blocks",
                "blocks": len(transformer_blocks(model)),
                "records": len(records),
                "passes": options.draws * len(noise.signs),
                "seconds": {k: round(v, 2) for k, v in seconds.items()},
                "peak_mib": {str(n): round(peak_mib("gpt2-tiny", n, IN_SHARDS), 1) for n in (128, 512)},
                "over_full_logits": round(seconds["from_the_block"] / seconds["full_logits"], 3),
                "over_full_response_head": round(seconds["from_the_block"] / seconds["full_response_head"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
