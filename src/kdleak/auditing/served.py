"""Models of an audit that are not loaded as the pipeline loads them: in other precision, or behind an endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks import ATTACKS
from kdleak.attacks.registry import ModelPass, PassInput
from kdleak.auditing.conversations import asking
from kdleak.auditing.logprob_file import Answers
from kdleak.auditing.passes import ModelRunner, PassRequest, PassResults, Subject
from kdleak.core import distributed
from kdleak.core.errors import KdleakError
from kdleak.core.progress import Advance, progress
from kdleak.data.encoding import decoded
from kdleak.inference.answer_store import Answer, AnswerStore
from kdleak.inference.completions import Endpoint, NoLogProbs
from kdleak.inference.partial_statistics import PartialStatistics
from kdleak.memorization.tables import split_texts
from kdleak.models.architecture import UNLIMITED
from kdleak.models.checkpoints import load_tokenizer, position_limit
from kdleak.models.device import resolve_device
from kdleak.models.loading import Loading, load_as

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from transformers import PreTrainedModel

    from kdleak.data.encoding import EncodedRecord
    from kdleak.data.templates import Turn
    from kdleak.inference.token_statistics import TokenStatistics
    from kdleak.memorization.tables import Continuations

_TEXT = "an endpoint of text alone"
#: Texts, and token ids, of one request.
_TEXTS, _TOKENS = 16, 16_384


@dataclass(frozen=True)
class LoadedSubject(Subject):
    """A model folder, loaded in another way than the pipeline's."""

    loading: Loading = field(default_factory=Loading)

    @cached_property
    def digest(self) -> str:
        """Of the content and of the way it is loaded: figures depend on both."""
        content = Subject(self.folder, self.encoder, self.encoded).digest
        return content if self.loading.dtype == "fp32" and not self.loading.bits else f"{content}, {self.loading.name}"

    def load(self, device: str | None) -> PreTrainedModel:
        return load_as(self.folder, device or resolve_device(), self.loading)


@dataclass(frozen=True)
class ServedSubject(Subject):
    """A model behind an endpoint; `folder` has its tokenizer."""

    endpoint: Endpoint = field(kw_only=True)
    store: AnswerStore = field(kw_only=True)

    @property
    def positions(self) -> int:
        return served_positions(self.endpoint, self.folder)

    @cached_property
    def digest(self) -> str:
        """Of address and name: the weights behind them are not to be seen."""
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def name(self) -> str:
        return f"{self.endpoint.address}#{self.endpoint.model}"


def served_positions(endpoint: Endpoint, folder: Path) -> int:
    """What the endpoint says that its model reads, less the token that a request has it add; else the folder."""
    if endpoint.positions is not None:
        return endpoint.positions - 1
    if (folder / "config.json").is_file():
        return position_limit(folder) - 1
    longest = load_tokenizer(folder).model_max_length
    return longest - 1 if longest < UNLIMITED else UNLIMITED


class AnyRunner(ModelRunner):
    """Makes passes over model folders, asks endpoints, and reads log-prob files."""

    def answer(self, model: Any, request: PassRequest) -> PassResults:
        return model.answer(request) if isinstance(model, Answers) else self.run(model, request)

    def run(self, subject: Subject, request: PassRequest) -> PassResults:
        """The passes of `request` over `subject`; of an endpoint without log-probs, what it writes, where an attack
        reads that."""
        try:
            return super().run(subject, request)
        except NoLogProbs:
            wanted = any(ATTACKS[name].needs.continued for name in self.settings.attacks)
            if not isinstance(subject, ServedSubject) or not request.continuations or not wanted:
                raise
        refused = dict.fromkeys((each.name for each in request.extra), f"needs log-probs, which {_TEXT} does not give")
        ids = np.array([r.record_id for r in subject.records], dtype=str)
        offsets = np.concatenate([[0], np.cumsum([r.n_scored for r in subject.records], dtype=np.int64)])
        statistics = PartialStatistics(ids, offsets, None, _TEXT)
        written = written_by(subject, self.frame, request.continuations, request.text_only)
        return PassResults(statistics, refused=refused, written=written)

    def statistics(
        self, subject: Subject, records: Sequence[EncodedRecord], label: str = "records", choices: bool = False
    ) -> TokenStatistics:
        if not isinstance(subject, ServedSubject):
            return super().statistics(subject, records, label, choices)
        texts = [r.prompt + r.response[: r.n_scored] for r in records]
        offsets = np.concatenate([[0], np.cumsum([r.n_scored for r in records], dtype=np.int64)])
        log_prob, missed = np.zeros(int(offsets[-1]), np.float32), np.zeros(int(offsets[-1]), bool)
        known = True
        with progress(f"{subject.endpoint.model}: {label}", len(records)) as advance:
            for i, (values, others) in enumerate(_answers(subject, texts, advance)):
                n, own = records[i].n_scored, slice(offsets[i], offsets[i + 1])
                log_prob[own] = values[len(values) - n :]
                known = known and others is not None
                if others is not None:
                    missed[own] = others[len(others) - n :]
        ids = np.array([r.record_id for r in records], dtype=str)
        return PartialStatistics(ids, offsets, log_prob, "an endpoint", missed=missed if known else None)

    def continuations(
        self, subject: Subject, statistics: TokenStatistics, k: int, text_only: bool = False, published: bool = True
    ) -> Continuations | None:
        if isinstance(subject, ServedSubject):
            return None  # an endpoint gives text back, not tokens
        return super().continuations(subject, statistics, k, text_only, published)

    def _compute(self, subject: Subject, extra: ModelPass, inputs: PassInput) -> np.ndarray:
        if isinstance(subject, ServedSubject):
            raise KdleakError("needs the model's weights")
        return super()._compute(subject, extra, inputs)


def written_by(subject: ServedSubject, frame: pd.DataFrame, tokens: int, text_only: bool) -> list[tuple[str, str]]:
    """(n,) what the endpoint continues each record's prompt with, and as many tokens of the record's own response.
    text_only: records have no prompt; their first tokens are continued. Every answer is kept before the next is asked
    for."""
    records = split_texts(subject.records) if text_only else subject.records
    prompts: Sequence[Sequence[Any]] = [r.prompt for r in records]
    if subject.endpoint.chat:
        starts = decoded(subject.tokenizer, [r.prompt for r in records], True) if text_only else None
        prompts = _messages(frame if starts is None else frame.assign(instruction=starts))
    texts: list[str] = []
    with progress(f"{subject.endpoint.model}: continuations", len(prompts)) as advance:
        for start in range(0, len(prompts), _TEXTS):
            group = prompts[start : start + _TEXTS]
            kept = {i: subject.store.get_text(prompt, tokens) for i, prompt in enumerate(group)}
            if missing := [prompt for i, prompt in enumerate(group) if kept[i] is None]:
                fresh = subject.endpoint.written(missing, tokens)
                subject.store.put_texts(missing, fresh, tokens)
            texts += [str(subject.store.get_text(prompt, tokens)) for prompt in group]
            advance(len(group))
    own = decoded(subject.tokenizer, [r.response[: min(tokens, r.n_scored)] for r in records])
    return list(zip(texts, own, strict=True))


def _messages(frame: pd.DataFrame) -> list[list[Turn]]:
    """What a chat endpoint is sent for each record: the turns of a chat, else the prompt as a user's."""
    if "turns" in frame:
        return [list(asking(turns)) for turns in frame["turns"]]
    pairs = zip(frame["instruction"], frame["context"], strict=True)
    return [[{"role": "user", "content": f"{asked}\n\n{context}" if context else asked}] for asked, context in pairs]


def _answers(subject: ServedSubject, texts: Sequence[Sequence[int]], advance: Advance) -> Iterator[Answer]:
    """An answer a text, in order: kept ones, and the endpoint's, which are kept before the next is asked for."""
    if distributed.size() > 1:
        raise KdleakError("an endpoint is asked by one process; run the audit without torchrun")
    for group in _requests(texts):
        kept = [subject.store.get(text) for text in group]
        missing = [text for text, answer in zip(group, kept, strict=True) if answer is None]
        fresh: list[Answer] = []
        if missing:
            fresh = subject.endpoint.log_probs(missing)
            subject.store.put(missing, fresh)
        come = iter(fresh)
        yield from (next(come) if answer is None else answer for answer in kept)
        advance(len(group))


def _requests(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """`texts` in order, as many together as one request takes."""
    group: list[Sequence[int]] = []
    tokens = 0
    for text in texts:
        if group and (len(group) == _TEXTS or tokens + len(text) > _TOKENS):
            yield group
            group, tokens = [], 0
        group.append(text)
        tokens += len(text)
    if group:
        yield group
