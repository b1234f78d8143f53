"""Distillation against its floor and against TRL, on the same models and tokens.

    python benchmarks/distill.py [--shapes gpt2-tiny,gpt2-small] [--trl FOLDER] [--repeats 2]

(a) off-policy: forward KL with the cached teacher, against the student's own cross-entropy training (the floor) and
    against trl.experimental.gkd.GKDTrainer with lmbda = 0. Targets: at most 1.35 x the floor at GPT-2 small's shape and
    1.6 x on gpt2-tiny, from the second epoch on; at least 3.5 x TRL's tokens a second on gpt2-tiny.
(b) on-policy: GKD with every batch written by the student, against GKDTrainer with lmbda = 1. Target: at least 2 x.

Random weights; prompts and responses as long as the embedded corpus's. Each arm is a process of its own, so that its
peak memory is its own; arms take turns, and the fastest repeat counts. JSON on standard output. TRL (1.16) is no
dependency of kdleak: `pip install --target FOLDER --no-deps trl==1.16.0`; without it its arms are left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: student, teacher, vocabulary, (records, batch size, epochs) of (a), the same of (b), tokens of a rollout, and
#: optimizer.micro_batch_tokens of kdleak's arms, the floor among them: the same gradients with less padding.
SHAPES = {
    "gpt2-tiny": {
        "student": {"n_layer": 2, "n_head": 4, "n_embd": 96},
        "teacher": {"n_layer": 4, "n_head": 4, "n_embd": 192},
        "vocab_size": 2048,
        "offline": (256, 8, 4),
        "online": (64, 8, 2),
        "new_tokens": 60,
        "micro_batch_tokens": None,
    },
    "gpt2-small": {
        "student": {"n_layer": 12, "n_head": 12, "n_embd": 768},
        "teacher": {"n_layer": 12, "n_head": 12, "n_embd": 768},
        "vocab_size": 50257,
        "offline": (8, 4, 2),
        "online": (4, 4, 2),
        "new_tokens": 32,
        "micro_batch_tokens": 400,
    },
}
ARMS = ("floor", "kd_cached", "kd_live", "trl_offline", "on_policy", "trl_on_policy")


def make_models(shape: dict) -> tuple:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    options = {
        "vocab_size": shape["vocab_size"],
        "n_positions": 512,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "activation_function": "gelu_pytorch_tanh",
    }
    made = []
    for seed, part in enumerate(("student", "teacher")):
        torch.manual_seed(seed)
        made.append(GPT2LMHeadModel(GPT2Config(**shape[part], **options)))
    return tuple(made)


def make_records(n: int, vocabulary: int) -> list:
    import numpy as np

    from kdleak.data.encoding import EncodedRecord

    rng = np.random.default_rng(0)
    records = []
    for i in range(n):
        prompt = int(rng.choice([55, 67, 120, 165]))
        response = int(rng.integers(30, 89))
        words = [tuple(rng.integers(1, vocabulary, k).tolist()) for k in (prompt, response)]
        records.append(EncodedRecord(f"{i:064d}", words[0], (*words[1], 0), response))
    return records


class Clock:
    """Seconds, wall and processor, between marks."""

    def __init__(self):
        self.marks = [(time.perf_counter(), time.process_time())]

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def epochs(self) -> list[list[float]]:
        return [[b[0] - a[0], b[1] - a[1]] for a, b in zip(self.marks, self.marks[1:], strict=False)]


def run_ours(arm: str, shape: dict) -> Clock:
    from kdleak.distill.divergences import forward_kl, jensen_shannon
    from kdleak.distill.matching import matching_objective
    from kdleak.distill.rollouts import ConstantShare, RolloutBatches, Rollouts
    from kdleak.distill.teacher_signal import HiddenStateCache, LiveTeacher, cached_teacher
    from kdleak.inference.generation import Sampling
    from kdleak.training.batch_sources import FixedBatches
    from kdleak.training.finetune import cross_entropy
    from kdleak.training.loop import Recipe, train

    n, batch_size, epochs = shape["online" if arm == "on_policy" else "offline"]
    student, teacher = make_models(shape)
    records = make_records(n, shape["vocab_size"])
    source, objective, clock = FixedBatches(records, batch_size, 0), cross_entropy, Clock()
    if arm == "kd_cached":
        cache = HiddenStateCache(Path(tempfile.mkdtemp()))
        # The first epoch pays for the teacher's pass over the records.
        objective = matching_objective(
            cached_teacher(LiveTeacher(teacher), "teacher", records, cache, 4096), forward_kl
        )
    elif arm == "kd_live":
        objective = matching_objective(LiveTeacher(teacher), forward_kl)
    elif arm == "on_policy":
        rollouts = Rollouts(Sampling(shape["new_tokens"]), 0, 0)
        source = RolloutBatches(source, ConstantShare(1.0), rollouts, source.steps_per_epoch * epochs)
        objective = matching_objective(LiveTeacher(teacher), jensen_shannon)

    steps = itertools.count(1)

    def mark(**figures: float) -> None:
        if next(steps) % source.steps_per_epoch == 0:
            clock.mark()

    recipe = Recipe(lr=1e-4, epochs=epochs, batch_size=batch_size, micro_batch_tokens=shape["micro_batch_tokens"])
    train(student, source, objective, recipe, seed=0, progress=mark)
    return clock


def run_trl(arm: str, shape: dict) -> Clock:
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    online = arm == "trl_on_policy"
    n, batch_size, epochs = shape["online" if online else "offline"]
    student, teacher = make_models(shape)
    records = make_records(n, shape["vocab_size"])
    words = WordLevel({"<eos>": 0, "w": 1}, unk_token="w")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="<eos>", pad_token="<eos>")
    clock = Clock()

    class Mark(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            clock.marks = []
            clock.mark()

        def on_epoch_end(self, *args, **kwargs):
            clock.mark()

    def padded(rows: list[list[int]], fill: int, left: bool = False) -> torch.Tensor:
        width = max(map(len, rows))
        pads = [[fill] * (width - len(r)) for r in rows]
        return torch.tensor([p + r if left else r + p for p, r in zip(pads, rows, strict=True)])

    def collate(features: list[dict]) -> dict:
        chosen = [records[f["index"]] for f in features]
        whole = [list(r.prompt + r.response) for r in chosen]
        return {
            "input_ids": padded(whole, 0),
            "attention_mask": padded([[1] * len(w) for w in whole], 0),
            "labels": padded([[-100] * len(r.prompt) + list(r.response) for r in chosen], -100),
            "prompts": padded([list(r.prompt) for r in chosen], 0, left=True),
            "prompt_attention_mask": padded([[1] * len(r.prompt) for r in chosen], 0, left=True),
        }

    config = GKDConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch_size,
        num_train_epochs=epochs,
        learning_rate=1e-4,
        lmbda=1.0 if online else 0.0,
        beta=0.5 if online else 0.0,
        temperature=1.0,
        max_new_tokens=shape["new_tokens"],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = GKDTrainer(
        model=student,
        teacher_model=teacher,
        args=config,
        train_dataset=Dataset.from_dict({"index": list(range(n))}),
        processing_class=tokenizer,
        data_collator=collate,
        callbacks=[Mark()],
    )
    trainer.train()
    return clock


def arm_main(arm: str, shape: dict, trl: str | None) -> None:
    """One arm: seconds of each epoch and the peak resident size, as one line of JSON."""
    if trl:
        sys.path.append(trl)
    clock = (run_trl if arm.startswith("trl") else run_ours)(arm, shape)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("RESULT", json.dumps({"epochs": clock.epochs(), "peak_mib": round(peak)}))


def measure(arm: str, shape: str, trl: str | None) -> dict | None:
    command = [sys.executable, __file__, "--arm", arm, "--shapes", shape, *(["--trl", trl] if trl else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not lines:
        print(f"{shape} {arm}: left out ({(done.stderr.strip().splitlines() or ['?'])[-1][:200]})", file=sys.stderr)
        return None
    return json.loads(lines[0].removeprefix("RESULT "))


def compare(name: str, trl: str | None, repeats: int) -> dict:
    """Every arm of one shape: tokens a second from the second epoch on, peak memory, and the ratios."""
    shape = SHAPES[name]
    runs: dict[str, list[dict]] = {arm: [] for arm in ARMS}
    for _ in range(repeats):
        for arm in ARMS:
            run = measure(arm, name, trl)
            if run:
                runs[arm].append(run)
    arms = {}
    for arm, done in runs.items():
        if not done:
            continue
        online = "policy" in arm
        n = shape["online" if online else "offline"][0]
        tokens = n * shape["new_tokens"] if online else sum(len(r.response) for r in make_records(n, 100))
        best = [min(epoch[clock] for run in done for epoch in run["epochs"][1:]) for clock in (0, 1)]
        arms[arm] = {
            "seconds_per_epoch": round(best[0], 3),
            "cpu_seconds_per_epoch": round(best[1], 3),
            "response_tokens_per_second": round(tokens / best[0]),
            "peak_mib": min(run["peak_mib"] for run in done),
        }
    return {"arms": arms, "ratios": ratios(arms), "cpu_ratios": ratios(arms, "cpu_seconds_per_epoch")}


def ratios(arms: dict, clock: str = "seconds_per_epoch") -> dict:
    """Times of one arm over another's; over 1 the first is slower."""
    pairs = {
        "kd_cached / floor": ("kd_cached", "floor"),
        "kd_live / floor": ("kd_live", "floor"),
        "trl / kd_cached": ("trl_offline", "kd_cached"),
        "trl / on_policy": ("trl_on_policy", "on_policy"),
    }
    return {k: round(arms[a][clock] / arms[b][clock], 2) for k, (a, b) in pairs.items() if a in arms and b in arms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--trl", help="folder that TRL was installed into")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        arm_main(options.arm, SHAPES[options.shapes], options.trl)
        return
    shapes = {name: compare(name, options.trl, options.repeats) for name in options.shapes.split(",")}
    print(json.dumps({"benchmark": "distill", "shapes": shapes}, indent=1))


if __name__ == "__main__":
    main()
