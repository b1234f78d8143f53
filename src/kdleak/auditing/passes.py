"""Every forward pass of an audit: one model in memory at a time, through a cache where there is one.

What a model gave is kept under the content of model and records, so that another attack, interval or control costs no
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kdleak.attacks.registry import ExtraPass, ModelPass, PassInput, TextPass
from kdleak.auditing.conversations import ChatEncoder
from kdleak.auditing.settings import EngineSettings
from kdleak.core.errors import KdleakError
from kdleak.core.progress import progress
from kdleak.data.encoding import Encoded, EncodedRecord, Encoder
from kdleak.inference.cache import ArrayCache, StatisticsCache, content_key
from kdleak.inference.decoding import AS_PUBLISHED, PLAIN
from kdleak.inference.greedy import continuations_under, known_starts
from kdleak.inference.scoring import token_statistics
from kdleak.memorization.tables import Continuations, continued_texts
from kdleak.models.checkpoints import load_model, load_tokenizer, position_limit
from kdleak.models.model_files import content_hash

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kdleak.inference.token_statistics import TokenStatistics


class AuditedModel(Protocol):
    """What the engine asks of a model, whoever computes it.

    population: records that no model was trained on; may be empty. tokenizer: the model's own; None where it is not
    here and its token ids are never turned into text.
    """

    @property
    def population(self) -> Sequence[Any]: ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None: ...


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

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.encoder.tokenizer

    @property
    def positions(self) -> int:
        """The longest sequence, in tokens, that the model reads."""
        return position_limit(self.folder)

    @cached_property
    def digest(self) -> str:
        """sha256 of the model's content."""
        return content_hash(self.folder)

    def load(self, device: str | None) -> PreTrainedModel:
        """The model itself."""
        return load_model(self.folder, device)


@dataclass(frozen=True)
class PassRequest:
    """The passes over one model, beside the token statistics of its records.

    extra:         passes that attacks declare.
    continuations: tokens of a greedy continuation of every prompt; 0: none.
    choices:       whether the greedy choices at the response tokens are kept (token ids).
    text_only:     records have no prompt; their first tokens are continued.
    published:     whether they are continued as the published script did too.
    """

    extra: tuple[ExtraPass, ...] = ()
    continuations: int = 0
    choices: bool = False
    text_only: bool = False
    published: bool = True


@dataclass(frozen=True)
class PassResults:
    """What the passes gave. variants, computed: by name of the extra pass. refused: name -> why it was not made.
    written: of a model that gives text alone, what it continues each prompt with, and as much of the record's own."""

    statistics: TokenStatistics
    variants: Mapping[str, TokenStatistics] = field(default_factory=dict)
    computed: Mapping[str, np.ndarray] = field(default_factory=dict)
    continuations: Continuations | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    written: Sequence[tuple[str, str]] = ()


class ModelRunner:
    """Makes passes over models. frame: the texts of the records, in the order in which every subject has them."""

    def __init__(self, frame: pd.DataFrame, settings: EngineSettings):
        self.frame = frame
        self.settings = settings
        self.cache = None if settings.cache is None else ArrayCache(settings.cache, together=True)
        self._loaded: tuple[Path, PreTrainedModel] | None = None

    def run(self, subject: Subject, request: PassRequest) -> PassResults:
        """The passes of `request` over `subject`. Several processes share them, and each returns all results."""
        statistics = self.statistics(subject, subject.records, choices=request.choices)
        variants, computed, refused = {}, {}, {}
        texts = (self.frame, subject.records, subject.population, subject.encoder, statistics)
        inputs = PassInput(*texts, subject.positions, self.settings.options, self.settings.seed)
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
        return PassResults(statistics, variants, computed, continued, refused)

    def statistics(
        self, subject: Subject, records: Sequence[EncodedRecord], label: str = "records", choices: bool = False
    ) -> TokenStatistics:
        """Token statistics of `records` under the subject's model; choices: with its greedy choices."""

        def compute() -> TokenStatistics:
            model = self.model(subject)
            check_vocabulary(records, model, subject)
            with progress(f"{subject.folder.name}: {label}", len(records)) as advance:
                options = {"max_tokens": self.settings.batch_tokens, "progress": advance}
                found = token_statistics(model, records, **options)
                return found if choices else replace(found, argmax=None)

        if self.cache is None:
            return compute()
        what = "token statistics, float32" + (", choices" if choices else "")
        return StatisticsCache(self.cache).get_or_compute(content_key(subject.digest, records, what), compute)

    def continuations(
        self,
        subject: Subject,
        statistics: TokenStatistics,
        k: int,
        text_only: bool = False,
        published: bool = True,
    ) -> Continuations | None:
        """Greedy continuations of k tokens of every record of `subject`; statistics: of the same records. None where
        the model cannot be asked for any."""
        records, decodings = subject.records, {"plain": PLAIN} | ({"published": AS_PUBLISHED} if published else {})
        if text_only:
            records, statistics = continued_texts(records, statistics)

        def compute() -> dict[str, np.ndarray]:
            with progress(f"{subject.folder.name}: continuations", len(decodings) * len(records)) as advance:
                tokens = continuations_under(
                    list(decodings.values()),
                    self.model(subject),
                    records,
                    subject.encoder.eos_id,
                    k,
                    known=known_starts(statistics, records),
                    max_tokens=self.settings.batch_tokens,
                    progress=advance,
                )
            return dict(zip(decodings, tokens, strict=True))

        what = f"continuations, {k}" if published else f"plain continuations, {k}"
        return Continuations(records, statistics, **self.cached(subject, records, what, compute))

    def _compute(self, subject: Subject, extra: ModelPass, inputs: PassInput) -> np.ndarray:
        settings = extra.settings(inputs)

        def compute() -> dict[str, np.ndarray]:
            label = f"{subject.folder.name}: {extra.name}"
            tokens = self.settings.batch_tokens
            return {"values": extra.compute(self.model(subject), inputs, settings, tokens, label)}

        return self.cached(subject, subject.records, f"{extra.name}, {settings}", compute)["values"]

    def cached(
        self,
        subject: Subject,
        records: Sequence[EncodedRecord],
        what: str,
        compute: Callable[[], dict[str, np.ndarray]],
    ) -> dict[str, np.ndarray]:
        """The arrays of `compute`; what: names them and all that they depend on beside model and records."""
        if self.cache is None:
            return compute()
        return self.cache.get_or_compute(content_key(subject.digest, records, what), compute)

    def model(self, subject: Subject) -> PreTrainedModel:
        """The subject's model, loaded when it is first needed; the one before it is let go."""
        if self._loaded is None or self._loaded[0] != subject.folder:
            self._loaded = None
            self._loaded = subject.folder, subject.load(self.settings.device)
        return self._loaded[1]


def make_subjects(
    folders: Mapping[str, Path],
    encoders: Mapping[str, Encoder],
    records: pd.DataFrame,
    population: pd.DataFrame | None = None,
) -> tuple[dict[str, Subject], dict[str, int]]:
    """The models with the texts as each encodes them, and how many `prompts` and `responses` had to be cut.

    The text is the same for every model: a response that one of them cuts is cut for all, at the same character.
    """
    different = {id(encoder): encoder for encoder in encoders.values()}
    encoded = {key: encoder.encode_with_spans(records) for key, encoder in different.items()}
    shortest = np.min([each.characters for each in encoded.values()], axis=0)
    cut = {
        "prompts": int(np.any([each.shortened for each in encoded.values()], axis=0).sum()),
        "responses": int((shortest < records["response"].str.len().to_numpy()).sum()),
    }
    texts = [text[:n] for text, n in zip(records["response"], shortest, strict=True)]
    for key, encoder in different.items():
        if (encoded[key].characters != shortest).any():
            encoded[key] = encoder.encode_with_spans(records.assign(response=texts))
    others = {key: [] if population is None else e.encode_frame(population) for key, e in different.items()}
    subjects = {
        name: Subject(folders[name], encoder, encoded[id(encoder)], others[id(encoder)])
        for name, encoder in encoders.items()
    }
    return subjects, cut


def make_encoders(
    folders: Mapping[str, Path], max_prompt_tokens: int, max_tokens: int, template: str = "alpaca"
) -> dict[str, Encoder]:
    """An encoder a model; models with the same tokenizer share one.

    A model without a chat template of its own takes the study's in place of `chat`.
    """
    made: dict[object, Encoder] = {}
    encoders = {}
    for name, folder in folders.items():
        files = [folder / file for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")]
        key = tuple(f.read_bytes() if f.is_file() else b"" for f in files) if files[0].is_file() else folder
        if key not in made:
            tokenizer = load_tokenizer(folder)
            used = "alpaca" if template == "chat" and not tokenizer.chat_template else template
            made[key] = ChatEncoder(tokenizer, max_prompt_tokens, max_tokens, used)
        encoders[name] = made[key]
    return encoders


def check_vocabulary(records: Sequence[EncodedRecord], model: PreTrainedModel, subject: Subject) -> None:
    """Refuse a tokenizer with token ids that the model has no embedding for."""
    embeddings: Any = model.get_input_embeddings()
    size = embeddings.weight.shape[0]
    highest = max((max(r.prompt + r.response) for r in records), default=0)
    if highest >= size:
        tokenizer = subject.encoder.tokenizer
        raise KdleakError(
            f"{subject.folder}: its tokenizer ({type(tokenizer).__name__}, {len(tokenizer)} tokens) gives token id "
            f"{highest}, its model ({type(model).__name__}) has a vocabulary of {size}; they do not belong together"
        )
