"""What a step of DP-SGD costs beside a plain one, on the same batches.

    python benchmarks/dp_step.py [--shapes gpt2-tiny,gpt2-tiny-lora,opt-tiny,llama-tiny] [--steps 24] [--repeats 3]

A step is forward, backward and AdamW on 8 records; DP-SGD makes a backward pass a record, clips, adds up, adds noise.
Random weights at the shapes of families.yaml's teachers; records as long as the embedded corpus's. Seconds are those of
the processor in one thread, so that what else runs on the machine counts little; arms take turns, and the fastest
repeat counts. Target: a DP step at most 1.6 plain ones. JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from distill import make_records
from kdleak.defend.defences.lora import LowRank
from kdleak.defend.registry import Fitting
from kdleak.models.lora import with_lora
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import cross_entropy
from kdleak.training.gradient_rules import ClipAndNoise, GradientRule, PlainSum
from kdleak.training.loop import Recipe, train

FAMILIES = Path(__file__).resolve().parents[1] / "families.yaml"
BATCH, VOCABULARY, TARGET = 8, 2048, 1.6


def make_model(shape: str) -> torch.nn.Module:
    family = shape.removesuffix("-lora")
    spec = yaml.safe_load(FAMILIES.read_text())[family]["teacher"]["scratch"]
    torch.manual_seed(0)
    config = AutoConfig.for_model(**spec, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config)
    if shape.endswith("-lora"):
        fitting = Fitting(model, [], None, 0, {}, lambda: 1.0)
        model = with_lora(model, LowRank(rank=4).teacher(fitting).lora, 0)
    return model


def seconds(shape: str, rule: GradientRule, steps: int) -> float:
    """Processor seconds of a step."""
    model, source = make_model(shape), FixedBatches(make_records(BATCH * steps, VOCABULARY), BATCH, seed=0)
    recipe = Recipe(lr=1e-3, epochs=1, batch_size=BATCH)
    train(model, source, cross_entropy, Recipe(lr=1e-3, epochs=1, batch_size=BATCH, steps=2), seed=0, rule=rule)
    start = time.process_time()
    train(model, source, cross_entropy, recipe, seed=0, rule=rule)
    return (time.process_time() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="gpt2-tiny,gpt2-tiny-lora,opt-tiny,llama-tiny")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rules = {"plain": PlainSum(), "dp": ClipAndNoise(1.0, 0.8, float(BATCH), 45.0)}
    results = {}
    for shape in options.shapes.split(","):
        taken: dict[str, list[float]] = {name: [] for name in rules}
        for _ in range(options.repeats):
            for name, rule in rules.items():
                taken[name].append(seconds(shape, rule, options.steps))
        best = {name: min(values) for name, values in taken.items()}
        ratio = best["dp"] / best["plain"]
        results[shape] = {f"{name}_s": round(s, 4) for name, s in best.items()} | {"ratio": round(ratio, 3)}
    within = all(result["ratio"] <= TARGET for result in results.values())
    print(json.dumps({"target_ratio": TARGET, "within_target": within, "shapes": results}, indent=2))


if __name__ == "__main__":
    main()
