"""What the attacks on one model are given: forward passes over the model and its references, each made once.

Results are kept in the project's cache under the content of model and records, so that another attack, interval or
control costs no pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdleak.attacks import ATTACKS, AttackInput, Needs
from kdleak.attacks.likelihood import mean_log_prob
from kdleak.attacks.perturbation import Noise, PerturbationScores, block_mope, mope
from kdleak.attacks.variants import argmax_texts, lowercased, prefixed
from kdleak.core.progress import counting, progress
from kdleak.core.seeds import derive
from kdleak.core.variants import Variant
from kdleak.data.encoding import EncodedRecord, Encoder
from kdleak.data.records import read_role
from kdleak.inference.cache import ArrayCache, StatisticsCache, content_key, model_digest
from kdleak.inference.scoring import token_statistics
from kdleak.models.checkpoints import load_model, load_tokenizer, position_limit

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.inference.token_statistics import TokenStatistics


def reference_folders(name: str | Variant, project: Project) -> dict[str, Path]:
    """The models that an attack on `name` may compare it with, by what they are to it."""
    variant = Variant.of(name)
    folders = {"pretrained": project.base(variant), "external": project.base_external}
    if variant.is_distilled:
        folders |= {"teacher": project.model(variant.teacher), "no_kd": project.model(variant.baseline)}
    return folders


class Scorer:
    """Forward passes with the models of a project, through its cache."""

    def __init__(self, params: Params, project: Project):
        self.params = params
        self.cache = ArrayCache(project.cache, together=True)
        self._encoders: dict[object, Encoder] = {}

    def encoder(self, folder: Path) -> Encoder:
        """The encoder of the model in `folder`; models with the same tokenizer have the same one."""
        file = folder / "tokenizer.json"
        key = file.read_bytes() if file.is_file() else folder
        if key not in self._encoders:
            limits = self.params.model.max_prompt_tokens, self.params.model.max_tokens
            self._encoders[key] = Encoder(load_tokenizer(folder), *limits)
        return self._encoders[key]

    def statistics(self, folder: Path, records: Sequence[EncodedRecord]) -> TokenStatistics:
        """Token statistics of `records` under the model in `folder`."""

        def compute() -> TokenStatistics:
            with progress(f"scoring with {folder.name}") as show:
                return token_statistics(
                    load_model(folder),
                    records,
                    max_tokens=self.params.compute.batch_tokens,
                    progress=counting(show, len(records)),
                )

        return StatisticsCache(self.cache).get_or_compute(content_key(model_digest(folder), records), compute)

    def mope(self, folder: Path, records: Sequence[EncodedRecord], clean: TokenStatistics) -> PerturbationScores:
        """MoPe of `records`; clean: their statistics under the model as it is."""
        noise = self._noise("mope")

        def compute() -> dict[str, np.ndarray]:
            with progress(f"disturbing {folder.name}") as show:
                options = {"max_tokens": self.params.compute.batch_tokens, "clean": mean_log_prob(clean)}
                found = mope(load_model(folder), records, noise, **options, progress=lambda i, n: show(i, n, {}))
            return {"drops": found.drops}

        key = content_key(model_digest(folder), records, f"mope, {noise}")
        return PerturbationScores(self.cache.get_or_compute(key, compute)["drops"])

    def block_mope(
        self, folder: Path, records: Sequence[EncodedRecord], clean: TokenStatistics
    ) -> list[PerturbationScores]:
        """MoPe of `records` block by block; clean: their statistics under the model as it is."""
        noise = self._noise("blocks")

        def compute() -> dict[str, np.ndarray]:
            with progress(f"disturbing blocks of {folder.name}") as show:
                options = {"max_tokens": self.params.compute.batch_tokens, "clean": mean_log_prob(clean)}
                found = block_mope(load_model(folder), records, noise, **options, progress=lambda i, n: show(i, n, {}))
            return {"drops": np.stack([block.drops for block in found])}

        key = content_key(model_digest(folder), records, f"block mope, {noise}")
        return [PerturbationScores(drops) for drops in self.cache.get_or_compute(key, compute)["drops"]]

    def _noise(self, purpose: str) -> Noise:
        return noise_of(self.params, purpose)


def noise_of(params: Params, purpose: str) -> Noise:
    """The noise of params.audit.mope or params.audit.blocks."""
    chosen = getattr(params.audit, purpose)
    corrected = params.audit.noise == "corrected"
    seed = derive(params.seed, f"noise/{purpose}")
    return Noise(chosen.sigma, chosen.draws, relative=corrected, antithetic=corrected, seed=seed)


def gather(
    name: str | Variant, records: pd.DataFrame, scorer: Scorer, project: Project
) -> tuple[AttackInput, PerturbationScores | None]:
    """Everything that the attacks of params.yaml need to score `records` under the model `name`, and no pass more."""
    needs = [ATTACKS[attack].needs for attack in scorer.params.audit.attacks]
    folder, folders = project.model(name), reference_folders(name, project)
    frames = {"records": records, "held": read_role(project.records, "population")}

    @functools.cache
    def encode(encoder: Encoder, which: str) -> list[EncodedRecord]:
        return encoder.encode_frame(frames[which])

    encoder = scorer.encoder(folder)
    encoded = encode(encoder, "records")
    target = scorer.statistics(folder, encoded)
    references = {
        role: scorer.statistics(path, encode(scorer.encoder(path), "records"))
        for role, path in folders.items()
        if any(role in n.references for n in needs)
    }
    found = {
        role: scorer.statistics(path, encode(scorer.encoder(path), "held"))
        for role, path in {"target": folder, **folders}.items()
        if any(role in n.population for n in needs)
    }
    disturbed = scorer.mope(folder, encoded, target) if _any(needs, "mope") else None
    given = AttackInput(
        target,
        references,
        texts=list(records["response"]),
        argmax_texts=argmax_texts(encoder.tokenizer, target) if _any(needs, "argmax_texts") else (),
        variants=_variants(needs, folder, records, encoded, lambda: encode(encoder, "held"), scorer),
        population=found,
        mope=None if disturbed is None else disturbed.scores,
    )
    return given, disturbed


def _variants(
    needs: Sequence[Needs],
    folder: Path,
    records: pd.DataFrame,
    encoded: Sequence[EncodedRecord],
    shots: Callable[[], Sequence[EncodedRecord]],
    scorer: Scorer,
) -> dict[str, TokenStatistics]:
    wanted = {variant for n in needs for variant in n.variants}
    found = {}
    if "lowercase" in wanted:
        found["lowercase"] = scorer.statistics(folder, lowercased(scorer.encoder(folder), records))
    if "prefixed" in wanted:
        limits = {"max_prefix": scorer.params.audit.prefix_tokens, "max_positions": position_limit(folder)}
        found["prefixed"] = scorer.statistics(folder, prefixed(encoded, shots(), **limits))
    return found


def _any(needs: Sequence[Needs], field: str) -> bool:
    return any(getattr(n, field) for n in needs)
