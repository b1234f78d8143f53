"""Token statistics against bare forward passes and against one pass an attack with a Python loop over tokens.

    python benchmarks/scoring.py [--records 48] [--repeats 3]

Same models, same records, one run; JSON with ratios on standard output. Targets: all statistics of target and one
reference, and every token-statistic attack on them, in at most 1.2 times the two bare passes that produce full
logits; at least 5 times faster than one pass an attack that loops over tokens in Python, as the published code does.
`five_by_loop_over_ours` has the study's five attacks alone on the loop's side, still all of them on ours. `peak_mib`
is the memory that scoring adds to the process, for the records and for four times as many.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from kdleak.attacks import ATTACKS, AttackInput, attack_scores
from kdleak.data.batching import Batch, collate, scoring_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.scoring import token_statistics

SHAPES = {
    "gpt2-tiny": {"n_layer": 4, "n_head": 4, "n_embd": 192, "vocab_size": 2048},
    "gpt2-small-shaped": {"n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50257},
}
MAX_TOKENS = 4096
#: The study's attacks on token statistics: what the published code runs one after the other.
ATTACKS_OF_THE_STUDY = ("loss", "zlib", "mink", "minkpp", "ref_pretrained")
#: Attacks that the published code's way needs no loop over tokens for.
BY_CROSS_ENTROPY = ("loss", "ref_pretrained", "zlib", "zlib_published", "wbc")


def make_model(shape: str, seed: int) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(n_positions=512, bos_token_id=0, eos_token_id=0, **SHAPES[shape])).eval()


def make_records(n: int, vocabulary: int, seed: int = 0) -> list[EncodedRecord]:
    """Prompts and responses as long as Dolly's are under the study's template: about 60 and 70 tokens."""
    generator = np.random.default_rng(seed)
    records = []
    for i in range(n):
        prompt, response = (np.clip(generator.lognormal(4.0, 0.6, 2), 8, 250)).astype(int)
        tokens = generator.integers(1, vocabulary, prompt + response).tolist()
        records.append(EncodedRecord(f"{i:06d}", tuple(tokens[:prompt]), (*tokens[prompt:], 0), int(response)))
    return records


def bare_passes(models: list[GPT2LMHeadModel], records: list[EncodedRecord]) -> None:
    """Full logits of every position under each model, in the same batches; nothing is done with them."""
    with torch.inference_mode():
        for model in models:
            for indices in scoring_batches(records, MAX_TOKENS):
                model(input_ids=collate(records, indices).input_ids, use_cache=False)


def one_pass_an_attack(models: list[GPT2LMHeadModel], records: list[EncodedRecord], names: Sequence[str]) -> None:
    """What the published code does: each attack runs the model again (an attack with a reference: two models) on
    batches of 8 in file order, under an attention mask, takes cross-entropy or softmax and log-softmax of the logits
    of every position, and picks the confidences of the response tokens in a Python loop. (It also pads every batch to
    512 tokens; that is left out.)"""
    with torch.inference_mode():
        for name in names:
            for model in models if ATTACKS[name].needs.references else models[:1]:
                for start in range(0, len(records), 8):
                    chosen = range(start, min(start + 8, len(records)))
                    batch = collate(records, chosen)
                    lengths = torch.tensor([len(records[i].prompt) + len(records[i].response) - 1 for i in chosen])
                    mask = (torch.arange(batch.input_ids.shape[1]) < lengths[:, None]).long()
                    positions = (mask.cumsum(-1) - 1) * mask
                    logits = model(input_ids=batch.input_ids, attention_mask=mask, position_ids=positions).logits
                    one_attack(name, logits.flatten(0, 1), batch)


def one_attack(name: str, logits: torch.Tensor, batch: Batch) -> None:
    """From the logits (n * t, vocabulary) to what the attack needs of them."""
    if name in BY_CROSS_ENTROPY:
        labels = torch.zeros(len(logits), dtype=torch.long).index_copy(0, batch.positions, batch.targets)
        torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        if name.startswith("zlib"):
            words = logits.softmax(-1).max(-1).indices
            for row in range(len(batch.indices)):
                text = " ".join(map(str, words[batch.positions[batch.rows == row]].tolist()))
                len(zlib.compress(text.encode()))
    else:
        token_loop(logits.softmax(-1), logits.log_softmax(-1), batch, standardise=name.startswith("minkpp"))


def token_loop(p: torch.Tensor, log_p: torch.Tensor, batch: Batch, standardise: bool) -> None:
    """Min-K% and Min-K%++ of one batch, a token at a time."""
    for row in range(len(batch.indices)):
        own = batch.rows == row
        where, targets = batch.positions[own], batch.targets[own]
        mine, log_mine = p[where], log_p[where]
        confidence = torch.stack([mine[j][targets[j]] for j in range(len(targets))])
        if standardise:
            mean = (mine * log_mine).sum(-1)
            confidence = (confidence - mean) / ((mine * log_mine.square()).sum(-1) - mean.square()).sqrt()
        confidence.sort()[0][: len(targets) // 5].mean()


def ours(models: list[GPT2LMHeadModel], records: list[EncodedRecord], texts: list[str]) -> dict[str, np.ndarray]:
    """Statistics of target and one reference, and every attack that they and the texts allow."""
    target, reference = (token_statistics(model, records, max_tokens=MAX_TOKENS) for model in models)
    return attack_scores(AttackInput(target, {"pretrained": reference}, texts, argmax_texts=texts))


def best_of(repeats: int, tasks: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds, the best of `repeats` rounds in which the tasks take turns (so that a slow spell hits all of them)."""
    seconds = {name: float("inf") for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def peak_mib(shape: str, n: int, task: str = "token_statistics(model, records, max_tokens=MAX_TOKENS)") -> float:
    """Memory that `task` on `n` records adds at its peak, measured in a process of its own (Linux)."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[3]); from scoring import *\n"
        "from kdleak.attacks.block_perturbation import block_mope\n"
        "from kdleak.attacks.perturbation import Noise\n"
        "shape, n = sys.argv[1], int(sys.argv[2]); model = make_model(shape, 0)\n"
        "records = make_records(n, SHAPES[shape]['vocab_size'])\n"
        "status = lambda key: int(open('/proc/self/status').read().split(key + ':')[1].split()[0])\n"
        "before = status('VmRSS'); open('/proc/self/clear_refs', 'w').write('5')\n"
        f"{task}; print((status('VmHWM') - before) / 1024)"
    )
    command = [sys.executable, "-c", code, shape, str(n), os.path.dirname(os.path.abspath(__file__))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(shape: str, n: int, repeats: int) -> dict[str, object]:
    models = [make_model(shape, seed) for seed in (0, 1)]
    records = make_records(n, SHAPES[shape]["vocab_size"])
    texts = [" ".join(map(str, r.response)) for r in records]
    seconds = best_of(
        repeats, {"bare_passes": lambda: bare_passes(models, records), "ours": lambda: ours(models, records, texts)}
    )
    part = records[: max(16, n // 8)]
    names = list(ours(models, part, texts[: len(part)]))
    others = [name for name in names if name not in ATTACKS_OF_THE_STUDY]
    slow = best_of(
        1,
        {
            "five": lambda: one_pass_an_attack(models, part, ATTACKS_OF_THE_STUDY),
            "ours": lambda: ours(models, part, texts[: len(part)]),
            "others": lambda: one_pass_an_attack(models, part, others),
        },
    )
    return {
        "records": n,
        "tokens": sum(len(r.prompt) + len(r.response) for r in records),
        "scored_tokens": sum(r.n_scored for r in records),
        "attacks": names,
        "seconds": {k: round(v, 3) for k, v in seconds.items()},
        "ours_over_bare_passes": round(seconds["ours"] / seconds["bare_passes"], 3),
        "loop_over_ours": round((slow["five"] + slow["others"]) / slow["ours"], 2),
        "five_by_loop_over_ours": round(slow["five"] / slow["ours"], 2),
        "peak_mib": {"records": round(peak_mib(shape, n), 1), "four_times": round(peak_mib(shape, 4 * n), 1)},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=48, help="of the larger model; 16 times as many of the tiny one")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    sizes = {"gpt2-tiny": 16 * options.records, "gpt2-small-shaped": options.records}
    results = {shape: measure(shape, n, options.repeats) for shape, n in sizes.items()}
    print(json.dumps({"benchmark": "scoring", "threads": torch.get_num_threads()} | results))
