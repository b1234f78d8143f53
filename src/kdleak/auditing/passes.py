"""What each model is asked: every forward pass of an audit, one model in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdleak.attacks.likelihood import mean_log_prob
from kdleak.attacks.perturbation import Noise, mope
from kdleak.attacks.variants import argmax_texts, prefixed
from kdleak.core.errors import KdleakError
from kdleak.core.progress import progress
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.cache import ArrayCache, StatisticsCache, content_key
from kdleak.inference.decoding import AS_PUBLISHED, PLAIN
from kdleak.inference.greedy import continuations_under, known_starts
from kdleak.inference.scoring import token_statistics
from kdleak.inference.token_statistics import TokenStatistics
from kdleak.memorization.verbatim import first_choices
from kdleak.models.checkpoints import load_model, position_limit
from kdleak.pipeline.memorization import record_table

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: A text alone is continued from so many of its first tokens, or from its first half (Carlini et al. 2023).
TEXT_PREFIX = 50
#: Tokens of a greedy continuation, and of the shortest response that counts as given back.
CONTINUED, SHORTEST = 32, 8
#: MoPe: noise in units of each block's weights, in antithetic pairs.
MOPE = Noise(sigma=0.5, draws=2)
#: ReCaLL: tokens of the prefix of non-members.
RECALL_PREFIX = 128


@dataclass(frozen=True)
class Question:
    """What one model is asked about.

    records:    the members and non-members, as the model encodes them.
    population: records that no model was trained on; may be empty.
    lowercase:  `records` with lower-cased responses; empty where it is not asked.
    recall, mope, memorization: whether the passes that these need are made.
    text_only:  records have no prompt: memorization continues their first tokens.
    """

    records: Sequence[EncodedRecord]
    population: Sequence[EncodedRecord] = ()
    lowercase: Sequence[EncodedRecord] = ()
    recall: bool = False
    mope: bool = False
    memorization: bool = False
    text_only: bool = False


@dataclass(frozen=True)
class Answer:
    """What it gave: statistics, and (for what was asked) those of other texts, MoPe's scores, the continuations.

    memorization: a row a record, as `kdleak.memorization.report` takes them.
    refused:      pass -> why this model could not make it.
    """

    statistics: TokenStatistics
    population: TokenStatistics | None = None
    variants: Mapping[str, TokenStatistics] = field(default_factory=dict)
    mope: np.ndarray | None = None
    argmax_texts: Sequence[str] = ()
    memorization: pd.DataFrame | None = None
    refused: Mapping[str, str] = field(default_factory=dict)


class Interviewer:
    """Makes the passes, on one device, through a cache where there is one."""

    def __init__(self, frame: pd.DataFrame, *, device: str, batch_tokens: int, seed: int, cache: Path | None):
        self.frame = frame
        self.device = device
        self.batch_tokens = batch_tokens
        self.noise = replace(MOPE, seed=seed)
        self.cache = None if cache is None else ArrayCache(cache, together=True)

    def ask(
        self, name: str, folder: Path, digest: str, tokenizer: PreTrainedTokenizerBase, eos_id: int, asked: Question
    ) -> Answer:
        """Load the model in `folder` (of content `digest`) and make the passes that `asked` asks for."""
        model = _LazyModel(folder, self.device, tokenizer)
        passes = _Passes(self, name, digest, model)
        statistics = passes.statistics("records", asked.records)
        population = passes.statistics("population", asked.population) if asked.population else None
        variants, refused = {}, {}
        if asked.lowercase:
            variants["lowercase"] = passes.statistics("lower case", asked.lowercase)
        if asked.recall:
            limits = {"max_prefix": RECALL_PREFIX, "max_positions": position_limit(folder)}
            behind = prefixed(asked.records, asked.population, **limits)
            variants["prefixed"] = passes.statistics("prefix", behind)
        shaken = None
        if asked.mope:
            try:
                shaken = passes.mope(asked.records, statistics)
            except KdleakError as error:
                refused["mope"] = str(error)
        table = None
        if asked.memorization:
            table = passes.memorization(self.frame, asked, statistics, tokenizer, eos_id)
        spelt = argmax_texts(tokenizer, statistics)
        return Answer(statistics, population, variants, shaken, spelt, table, refused)


class _LazyModel:
    """A model that is loaded when it is first needed; from a full cache it never is."""

    def __init__(self, folder: Path, device: str, tokenizer: PreTrainedTokenizerBase):
        self.folder, self.device, self.tokenizer = folder, device, tokenizer
        self._model: PreTrainedModel | None = None

    def __call__(self) -> PreTrainedModel:
        if self._model is None:
            self._model = load_model(self.folder, self.device)
        return self._model


@dataclass(frozen=True)
class _Passes:
    """The passes over one model."""

    setting: Interviewer
    name: str
    digest: str
    model: _LazyModel

    def statistics(self, what: str, records: Sequence[EncodedRecord]) -> TokenStatistics:
        def compute() -> TokenStatistics:
            model = self.model()
            check_vocabulary(records, model, self.model)
            with progress(f"{self.name}: {what}", len(records)) as advance:
                options = {"max_tokens": self.setting.batch_tokens, "progress": advance}
                return token_statistics(model, records, **options)

        if self.setting.cache is None:
            return compute()
        return StatisticsCache(self.setting.cache).get_or_compute(content_key(self.digest, records), compute)

    def mope(self, records: Sequence[EncodedRecord], clean: TokenStatistics) -> np.ndarray:
        def compute() -> dict[str, np.ndarray]:
            with progress(f"{self.name}: perturbed weights", self.setting.noise.passes) as advance:
                options = {"max_tokens": self.setting.batch_tokens, "clean": mean_log_prob(clean)}
                found = mope(self.model(), records, self.setting.noise, **options, progress=advance)
            return {"scores": found.scores}

        return self._cached(records, f"mope, {self.setting.noise}", compute)["scores"]

    def memorization(
        self,
        frame: pd.DataFrame,
        asked: Question,
        statistics: TokenStatistics,
        tokenizer: PreTrainedTokenizerBase,
        eos_id: int,
    ) -> pd.DataFrame:
        """The memorization table of `frame`, whose rows are `asked.records`."""
        records = asked.records
        if asked.text_only:
            records, statistics = continued_texts(records, statistics)

        def compute() -> dict[str, np.ndarray]:
            with progress(f"{self.name}: continuing prompts", 2 * len(records)) as advance:
                plain, published = continuations_under(
                    [PLAIN, AS_PUBLISHED],
                    self.model(),
                    records,
                    eos_id,
                    CONTINUED,
                    known=known_starts(statistics, records),
                    max_tokens=self.setting.batch_tokens,
                    progress=advance,
                )
            return {"plain": plain, "published": published}

        found = self._cached(records, f"continuations, {CONTINUED}", compute)
        right = first_choices(statistics, records)
        return record_table(frame, records, statistics, right, found["plain"], found["published"], tokenizer, SHORTEST)

    def _cached(
        self, records: Sequence[EncodedRecord], what: str, compute: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        if self.setting.cache is None:
            return compute()
        return self.setting.cache.get_or_compute(content_key(self.digest, records, what), compute)


def continued_texts(
    records: Sequence[EncodedRecord], statistics: TokenStatistics
) -> tuple[list[EncodedRecord], TokenStatistics]:
    """Texts as a prompt, their first tokens, and what follows; with the statistics of what follows, which are those of
    the same pass: a token's statistics depend on what stands before it alone."""
    moved, keep = [], np.ones(int(statistics.offsets[-1]), bool)
    for r, start in zip(records, statistics.offsets[:-1], strict=True):
        n = min(TEXT_PREFIX, r.n_scored // 2)
        moved.append(EncodedRecord(r.record_id, r.prompt + r.response[:n], r.response[n:], r.n_scored - n))
        keep[start : start + n] = False
    offsets = np.concatenate([[0], np.cumsum([r.n_scored for r in moved], dtype=np.int64)])
    columns = {name: getattr(statistics, name)[keep] for name in ("log_prob", "mean", "std", "rank", "argmax")}
    return moved, TokenStatistics(statistics.record_ids, offsets, **columns)


def check_vocabulary(records: Sequence[EncodedRecord], model: PreTrainedModel, of: _LazyModel) -> None:
    """Refuse a tokenizer that writes words which the model does not have."""
    words = model.get_input_embeddings().weight.shape[0]
    highest = max((max(r.prompt + r.response) for r in records), default=0)
    if highest >= words:
        raise KdleakError(
            f"{of.folder}: its tokenizer ({type(of.tokenizer).__name__}, {len(of.tokenizer)} words) writes token "
            f"{highest}, its model ({type(model).__name__}) knows {words} words; they do not belong together"
        )
