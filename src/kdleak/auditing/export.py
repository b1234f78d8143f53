"""`kdleak logprobs`: a model's log-prob file, from which `kdleak audit --logprobs` gives the scores of the model.

What an attack does with the weights themselves (mope) and what decoding repeats is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks import ATTACKS
from kdleak.attacks.registry import TextPass
from kdleak.auditing.lists import read_lists, read_population
from kdleak.auditing.logprob_file import write_logprobs
from kdleak.auditing.passes import PassRequest, PassResults
from kdleak.auditing.served import AnyRunner
from kdleak.auditing.settings import EngineSettings, Settings
from kdleak.auditing.sources import find_sources, read_models
from kdleak.auditing.standalone import CONTINUED
from kdleak.core.version import __version__
from kdleak.models.device import resolve_device

if TYPE_CHECKING:
    from kdleak.auditing.lists import Records
    from kdleak.auditing.passes import Subject
    from kdleak.inference.token_statistics import TokenStatistics

#: Digits of a number in the file: enough for the same float32.
_DIGITS = 9


def export_logprobs(
    model: str | Path, members: Records, nonmembers: Records, population: Records | None, settings: Settings, out: Path
) -> int:
    """Write the log-prob file of `model` to `out`; the number of records in it.

    It holds the passes over texts that attacks ask for beside; with `settings.quick` none of them.
    """
    sources = find_sources({"student": model}, {}, {}, settings)
    lists = read_lists(members, nonmembers, settings.drop_overlap)
    others = None if population is None else read_population(population, lists)
    subject: Any = read_models(sources, lists.frame, others, lists.shape, settings, CONTINUED).subjects["student"]
    how = EngineSettings(
        settings.running,
        settings.seed,
        batch_tokens=settings.batch_tokens,
        cache=settings.cache,
        device=resolve_device(settings.device),
    )
    passes = {each for name in settings.running for each in ATTACKS[name].needs.passes if isinstance(each, TextPass)}
    extra = tuple(sorted((p for p in passes if others is not None or not p.needs_population), key=lambda p: p.name))
    results = AnyRunner(lists.frame, how).run(subject, PassRequest(extra))
    write_logprobs(out, _about(subject), _lines(subject, results, list(lists.frame["role"])))
    return len(lists.frame)


def _about(subject: Subject) -> dict[str, Any]:
    return {
        "model": subject.folder.name,
        "sha256": subject.digest,
        "template": subject.encoder.template,
        "made_by": f"kdleak {__version__}",
    }


def _lines(subject: Subject, results: PassResults, sides: list[str]) -> Iterator[dict[str, Any]]:
    for i, side in enumerate(sides):
        line = {"id": subject.records[i].record_id, "side": side, "characters": int(subject.encoded.characters[i])}
        line |= {"prompt_cut": True} if subject.encoded.shortened[i] else {}
        variants = {name: _own(statistics, "log_prob", i) for name, statistics in results.variants.items()}
        yield line | _columns(results.statistics, i) | ({"variants": variants} if variants else {})


def _columns(statistics: TokenStatistics, i: int) -> dict[str, Any]:
    names = {"logprobs": "log_prob", "mean": "mean", "std": "std"}
    missed = statistics.missed[statistics.offsets[i] : statistics.offsets[i + 1]]
    return {**{key: _own(statistics, name, i) for key, name in names.items()}, "top1": (~missed).tolist()}


def _own(statistics: TokenStatistics, name: str, i: int) -> list[float]:
    values: np.ndarray = getattr(statistics, name)[statistics.offsets[i] : statistics.offsets[i + 1]]
    return [float(f"{v:.{_DIGITS}g}") for v in values.tolist()]
