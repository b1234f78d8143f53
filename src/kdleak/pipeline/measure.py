"""The measure stages: every forward pass and continuation of one model, and no statistic of them (`pipeline.judge`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdleak.attacks import ATTACKS
from kdleak.attacks.mope import PERTURBED_BLOCKS
from kdleak.auditing.passes import ModelRunner, PassRequest, Subject
from kdleak.auditing.settings import EngineSettings
from kdleak.core.distributed import is_main
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_parquet
from kdleak.core.variants import BASELINE, Variant
from kdleak.data.records import read_role
from kdleak.inference.generation import Sampling, generate
from kdleak.pipeline.passes import BASES, ModelPasses, audited_records, pad, subject_of, unpad, write_passes
from kdleak.training.finetune import evaluate

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from kdleak.attacks.registry import ExtraPass
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.inference.token_statistics import TokenStatistics

BASE = "base"


def measure_model(name: str, params: Params, project: Project) -> None:
    """Write data/passes/<name> of `teacher`, or of the student that `name` made; of `base`, of the three bases.

    All passes that any attack declares are made, whichever params.yaml names: another attack costs none. What was made
    is kept in the project's cache, so a stage that was stopped goes on with the passes that it lacks.
    """
    if name == BASE:
        for part in BASES:
            passes = measure_base(project.base_model(part), params, project, known=part == "student")
            _write(passes, project.base_passes(part))
        return
    declared = [each for attack in ATTACKS.values() for each in attack.needs.passes]
    _write(measure_run(Variant.of(name), [*declared, PERTURBED_BLOCKS], params, project), project.passes(name))


def measure_base(folder: Path, params: Params, project: Project, known: bool = False) -> ModelPasses:
    """What a model is compared by: token statistics of the records, and its perplexity. known: whether public and
    population are scored."""
    records = audited_records(project)
    subject, runner = subject_of(folder, records, params, project), ModelRunner(records, _settings(params, project))
    results, nll = runner.run(subject, PassRequest()), _nll(runner, subject)
    return ModelPasses(results, nll, known=_known(runner, subject, project) if known else None)


def measure_run(
    variant: Variant, passes: Collection[ExtraPass], params: Params, project: Project, memorization: bool = True
) -> ModelPasses:
    """The passes over teacher or student. passes: those of attacks, and of blocks; memorization: whether prompts are
    continued and canaries scored.

    Raises KdleakError where blocks are asked for and the model cannot be taken apart.
    """
    records, settings = audited_records(project), _settings(params, project, distilled=variant.is_distilled)
    subject, runner = subject_of(project.model(variant), records, params, project), ModelRunner(records, settings)
    extra = tuple(each for each in dict.fromkeys(passes) if subject.population or not each.needs_population)
    continued = params.memorization.tokens if memorization else 0
    results = runner.run(subject, PassRequest(extra, continuations=continued, choices=True))
    if PERTURBED_BLOCKS.name in results.refused:
        raise KdleakError(results.refused[PERTURBED_BLOCKS.name])
    canaries = None
    if memorization:
        secrets = subject.encoder.encode_frame(read_parquet(project.canaries))
        canaries = runner.statistics(subject, secrets, "canaries")
    known = _known(runner, subject, project) if variant.method == BASELINE else None
    return ModelPasses(results, _nll(runner, subject), _responses(runner, subject, params), canaries, known)


def _settings(params: Params, project: Project, **options: object) -> EngineSettings:
    return EngineSettings(
        (),
        params.seed,
        batch_tokens=params.compute.batch_tokens,
        options=params.audit.model_dump(exclude={"attacks", "permutations"}) | options,
        cache=project.cache,
    )


def _known(runner: ModelRunner, subject: Subject, project: Project) -> TokenStatistics:
    """Token statistics of public and population."""
    records = subject.encoder.encode_frame(read_role(project.records, "public", "population"))
    return runner.statistics(subject, records, "public and population")


def _nll(runner: ModelRunner, subject: Subject) -> float:
    """Mean negative log-likelihood per response token of the population, nats, EOS included: no model was trained on
    it, and no figure of membership speaks of it."""
    records = subject.population

    def compute() -> dict[str, np.ndarray]:
        return {"nll": np.array([evaluate(runner.model(subject), records, runner.settings.batch_tokens)])}

    return runner.cached(subject, records, "mean negative log-likelihood", compute)["nll"].item()


def _responses(runner: ModelRunner, subject: Subject, params: Params) -> list[list[int]]:
    """Greedy responses to the prompts of the population."""
    records = subject.population
    limits = (params.generation.max_new_tokens, params.model.max_tokens)
    sampling = Sampling(*limits, temperature=0.0, batch_size=params.compute.generation_batch)

    def compute() -> dict[str, np.ndarray]:
        prompts = [r.prompt for r in records]
        return {"tokens": pad(generate(runner.model(subject), prompts, sampling, subject.encoder.eos_id))}

    return unpad(runner.cached(subject, records, f"greedy responses, {limits}", compute)["tokens"])


def _write(passes: ModelPasses, path: Path) -> None:
    if is_main():  # the passes are shared, their file is the main process's
        write_passes(passes, path)
