"""`kdleak audit` of 10,000 and of 100,000 records: memory bounded, time linear in their number.

    python benchmarks/audit_size.py [--records 10000 100000]

Each size runs in a process of its own: two JSONL files of short records, half of them each, and a tiny random model
through the whole of `kdleak audit --quick` (lists, near-duplicates, passes, attacks, every control, the page). JSON on
standard output. `seconds` is processor time, which other load does not change; `peak_mib` the whole process at its
largest, `by_step` where it stood after each step; `per_record_kib` what a further record adds at the peak; `ratio`
divides a size's seconds by the one before, and `linear` the same of the records.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

_LETTERS = list("bcdfghjklmnpqrstvwxz")
_THINGS = ["apples", "boats", "candles", "drums", "elms", "forks", "gloves", "hats", "inks", "jars", "kites", "lamps"]
#: Steps whose end is a point of `by_step`: module, function.
_STEPS = [
    ("kdleak.auditing.standalone", "read_lists"),
    ("kdleak.auditing.standalone", "read_models"),
    ("kdleak.auditing.engine", "make_passes"),
    ("kdleak.auditing.engine", "judge"),
    ("kdleak.auditing.standalone", "judge"),
    ("kdleak.auditing.standalone", "report_page"),
]


def write_records(path: Path, n: int, seed: int) -> None:
    """n short records of one pool, no two of them alike."""
    generator = np.random.default_rng(seed)
    with path.open("w") as stream:
        for _ in range(n):
            code = "".join(generator.choice(_LETTERS, 16))
            things = generator.choice(_THINGS, 2)
            asked = f"Who owes {things[0]} {code[:8]}?"
            answer = f"{code[8:]} owes {generator.integers(10**6)} {things[1]}."
            stream.write(json.dumps({"instruction": asked, "response": answer}) + "\n")


def make_model(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from kdleak.models.checkpoints import save_checkpoint
    from kdleak.models.tokenizer import train_tokenizer

    write_records(folder / "words.jsonl", 500, 0)
    tokenizer = train_tokenizer((folder / "words.jsonl").read_text().splitlines(), 400)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=128, bos_token_id=0, eos_token_id=0, **sizes
    )
    save_checkpoint(LlamaForCausalLM(config), tokenizer, folder / "model")


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def watched(points: dict[str, dict[str, float]]) -> Iterator[None]:
    """What is resident at the end of each step, the peak so far, and its seconds."""
    from importlib import import_module

    def watch(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def step(*given: Any, **options: Any) -> Any:
            start = time.process_time()
            result = function(*given, **options)
            seconds = round(time.process_time() - start, 2)
            points[name] = {"resident_mib": round(resident_mib()), "peak_mib": round(peak_mib()), "seconds": seconds}
            return result

        return step

    for module_name, name in _STEPS:
        module = import_module(module_name)
        setattr(module, name, watch(getattr(module, name), f"{module_name.rpartition('.')[2]}.{name}"))
    yield


def measure(n: int) -> dict[str, Any]:
    """One audit of n records in this process."""
    from kdleak import audit

    points: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as place, watched(points):
        folder = Path(place)
        make_model(folder)
        for name, seed in (("members", 1), ("nonmembers", 2)):
            write_records(folder / f"{name}.jsonl", n // 2, seed)
        before, start = resident_mib(), time.process_time()
        lists = folder / "members.jsonl", folder / "nonmembers.jsonl"
        audit(folder / "model", *lists, quick=True, template="{instruction}\n", device="cpu", out=folder / "out")
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "records": n,
            "seconds": round(time.process_time() - start + children.ru_utime + children.ru_stime, 1),
            "before_mib": round(before),
            "peak_mib": round(peak_mib()),
            "child_peak_mib": round(children.ru_maxrss / 1024),
            "by_step": points,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--one", type=int, help="measure this size in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    command = [sys.executable, __file__, "--one"]
    done = [subprocess.run([*command, str(n)], capture_output=True, text=True, check=True) for n in options.records]
    sizes = [json.loads(each.stdout.splitlines()[-1]) for each in done]
    added = [
        {
            "linear": b["records"] / a["records"],
            "ratio": round(b["seconds"] / a["seconds"], 2),
            "per_record_kib": round(1024 * (b["peak_mib"] - a["peak_mib"]) / (b["records"] - a["records"]), 2),
        }
        for a, b in pairwise(sizes)
    ]
    print(json.dumps({"benchmark": "audit_size", "sizes": sizes, "added": added}, indent=1))


if __name__ == "__main__":
    main()
