"""Every forward pass of an audit: one model in memory at a time, through a cache where there is one.

What a model gave is kept under the content of model and records, so that another attack, interval or control costs no
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdleak.attacks.registry import ExtraPass, ModelPass, PassInput, TextPass
from kdleak.auditing.settings import EngineSettings
from kdleak.core.errors import KdleakError
from kdleak.core.progress import progress
from kdleak.data.encoding import Encoded, EncodedRecord, Encoder
from kdleak.inference.cache import ArrayCache, StatisticsCache, content_key
from kdleak.inference.decoding import AS_PUBLISHED, PLAIN
from kdleak.inference.greedy import continuations_under, known_starts
from kdleak.inference.scoring import token_statistics
from kdleak.memorization.tables import Continuations, continued_texts
from kdleak.models.checkpoints import load_model, position_limit
from kdleak.models.model_files import content_hash

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

    from kdleak.inference.token_statistics import TokenStatistics


@dataclass(frozen=True)
class Subject:
    """One model of an audit, with the texts as its own tokenizer encodes them.

    encoded: the members and nonmembers. population: records that no model was trained on; may be empty.
    """

    folder: Path
    encoder: Encoder
    encoded: Encoded
    population: Sequence[EncodedRecord] = ()

    @property
    def records(self) -> list[EncodedRecord]:
        return self.encoded.records

    @cached_property
    def digest(self) -> str:
        """sha256 of the model's content."""
        return content_hash(self.folder)


@dataclass(frozen=True)
class PassRequest:
    """The passes over one model, beside the token statistics of its records.

    extra:         passes that attacks declare.
    population:    whether the population is scored.
    continuations: tokens of a greedy continuation of every prompt; 0: none.
    text_only:     records have no prompt; their first tokens are continued.
    published:     whether they are continued as the published script did too.
    """

    extra: tuple[ExtraPass, ...] = ()
    population: bool = False
    continuations: int = 0
    text_only: bool = False
    published: bool = True


@dataclass(frozen=True)
class PassResults:
    """What the passes gave. variants, computed: by name of the extra pass. refused: name -> why it was not made."""

    statistics: TokenStatistics
    population: TokenStatistics | None = None
    variants: Mapping[str, TokenStatistics] = field(default_factory=dict)
    computed: Mapping[str, np.ndarray] = field(default_factory=dict)
    continuations: Continuations | None = None
    refused: Mapping[str, str] = field(default_factory=dict)


class ModelRunner:
    """Makes passes over models. frame: the texts of the records, in the order in which every subject has them."""

    def __init__(self, frame: pd.DataFrame, settings: EngineSettings):
        self.frame = frame
        self.settings = settings
        self.cache = None if settings.cache is None else ArrayCache(settings.cache, together=True)
        self._loaded: tuple[Path, PreTrainedModel] | None = None

    def run(self, subject: Subject, request: PassRequest) -> PassResults:
        """The passes of `request` over `subject`. Several processes share them, and each returns all results."""
        statistics = self.statistics(subject, subject.records)
        population = self.statistics(subject, subject.population, "population") if request.population else None
        variants, computed, refused = {}, {}, {}
        limit = position_limit(subject.folder)
        texts = (self.frame, subject.records, subject.population, subject.encoder, statistics)
        inputs = PassInput(*texts, limit, self.settings.options, self.settings.seed)
        for extra in request.extra:
            try:
                if isinstance(extra, TextPass):
                    variants[extra.name] = self.statistics(subject, extra.encode(inputs), extra.name)
                else:
                    computed[extra.name] = self._compute(subject, extra, inputs)
            except KdleakError as error:
                refused[extra.name] = str(error)
        continued = None
        if request.continuations:
            how = request.text_only, request.published
            continued = self.continuations(subject, statistics, request.continuations, *how)
        return PassResults(statistics, population, variants, computed, continued, refused)

    def statistics(self, subject: Subject, records: Sequence[EncodedRecord], label: str = "records") -> TokenStatistics:
        """Token statistics of `records` under the subject's model."""

        def compute() -> TokenStatistics:
            model = self._model(subject)
            check_vocabulary(records, model, subject)
            with progress(f"{subject.folder.name}: {label}", len(records)) as advance:
                options = {"max_tokens": self.settings.batch_tokens, "progress": advance}
                return token_statistics(model, records, **options)

        if self.cache is None:
            return compute()
        return StatisticsCache(self.cache).get_or_compute(content_key(subject.digest, records), compute)

    def continuations(
        self,
        subject: Subject,
        statistics: TokenStatistics,
        k: int,
        text_only: bool = False,
        published: bool = True,
    ) -> Continuations:
        """Greedy continuations of k tokens of every record of `subject`; statistics: of the same records."""
        records, decodings = subject.records, {"plain": PLAIN} | ({"published": AS_PUBLISHED} if published else {})
        if text_only:
            records, statistics = continued_texts(records, statistics)

        def compute() -> dict[str, np.ndarray]:
            with progress(f"{subject.folder.name}: continuations", len(decodings) * len(records)) as advance:
                tokens = continuations_under(
                    list(decodings.values()),
                    self._model(subject),
                    records,
                    subject.encoder.eos_id,
                    k,
                    known=known_starts(statistics, records),
                    max_tokens=self.settings.batch_tokens,
                    progress=advance,
                )
            return dict(zip(decodings, tokens, strict=True))

        what = f"continuations, {k}" if published else f"plain continuations, {k}"
        return Continuations(records, statistics, **self._cached(subject, records, what, compute))

    def _compute(self, subject: Subject, extra: ModelPass, inputs: PassInput) -> np.ndarray:
        settings = extra.settings(inputs)

        def compute() -> dict[str, np.ndarray]:
            label = f"{subject.folder.name}: {extra.name}"
            tokens = self.settings.batch_tokens
            return {"values": extra.compute(self._model(subject), inputs, settings, tokens, label)}

        return self._cached(subject, subject.records, f"{extra.name}, {settings}", compute)["values"]

    def _cached(
        self,
        subject: Subject,
        records: Sequence[EncodedRecord],
        what: str,
        compute: Callable[[], dict[str, np.ndarray]],
    ) -> dict[str, np.ndarray]:
        if self.cache is None:
            return compute()
        return self.cache.get_or_compute(content_key(subject.digest, records, what), compute)

    def _model(self, subject: Subject) -> PreTrainedModel:
        """The subject's model, loaded when it is first needed; the one before it is let go."""
        if self._loaded is None or self._loaded[0] != subject.folder:
            self._loaded = None
            self._loaded = subject.folder, load_model(subject.folder, self.settings.device)
        return self._loaded[1]


def check_vocabulary(records: Sequence[EncodedRecord], model: PreTrainedModel, subject: Subject) -> None:
    """Refuse a tokenizer with token ids that the model has no embedding for."""
    size = model.get_input_embeddings().weight.shape[0]
    highest = max((max(r.prompt + r.response) for r in records), default=0)
    if highest >= size:
        tokenizer = subject.encoder.tokenizer
        raise KdleakError(
            f"{subject.folder}: its tokenizer ({type(tokenizer).__name__}, {len(tokenizer)} tokens) gives token id "
            f"{highest}, its model ({type(model).__name__}) has a vocabulary of {size}; they do not belong together"
        )
