"""Where each model of an audit is: in a folder, in a log-prob file, or behind an endpoint; and the texts as it reads
them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.auditing.logprob_file import Answers, read_logprobs
from kdleak.auditing.passes import Subject, make_encoders, make_subjects
from kdleak.auditing.served import LoadedSubject, ServedSubject, served_positions
from kdleak.auditing.settings import Limits, Settings
from kdleak.core.errors import KdleakError, nearest
from kdleak.data.templates import choose_template
from kdleak.inference.answer_store import AnswerStore
from kdleak.inference.completions import Endpoint, parse_address
from kdleak.models.checkpoints import load_tokenizer, position_limit
from kdleak.models.gguf_file import gguf_of, unpacked
from kdleak.models.hub import model_folder
from kdleak.models.model_files import check_folder

if TYPE_CHECKING:
    import pandas as pd

#: Where answers of endpoints and unpacked GGUF files are kept if --cache names no folder; as private as the records.
PRIVATE = Path(".kdleak/cache")


@dataclass(frozen=True)
class Sources:
    """folders: of the models that are computed here, and of the tokenizers of those behind `endpoints`. files: log-prob
    files. All by option (student, teacher, ...)."""

    folders: Mapping[str, Path]
    files: Mapping[str, Path] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)


@dataclass(frozen=True)
class Models:
    """subjects: by option, the student first. limits: tokens of a prompt, and in all; None where nothing is encoded
    here. cut: how many `prompts` and `responses` were longer."""

    subjects: dict[str, Subject | Answers]
    limits: Limits
    cut: dict[str, int]


def by_role(texts: Sequence[str], option: str, roles: Collection[str]) -> dict[str, str]:
    """`["student=a", "teacher=b"]` of a repeated option as a dictionary."""
    found: dict[str, str] = {}
    for text in texts:
        role, _, value = text.partition("=")
        if role not in roles:
            raise KdleakError(f"{option}: it names no model; {nearest(role, roles)} and = stand in front")
        if role in found:
            raise KdleakError(f"{option}: the {role} is named twice; name it once")
        found[role] = value
    return found


def find_sources(
    models: Mapping[str, str | Path | None],
    logprobs: Mapping[str, str | Path],
    endpoints: Mapping[str, str],
    settings: Settings,
) -> Sources:
    """Where the models are; raises KdleakError for one that is named twice or not at all, and for no safe folder."""
    named = {option: str(name) for option, name in models.items() if name is not None}
    for option in logprobs:
        if option in named or option in endpoints:
            raise KdleakError(f"--logprobs {option}: the {option} is named by another option too; take one away")
    if "student" not in {**named, **logprobs}:
        raise KdleakError("no student: name one by --student, or by --logprobs student=FILE")
    store = settings.cache or PRIVATE
    folders = {}
    for option, name in named.items():
        if option in endpoints:
            folders[option] = _tokenizer_folder(name, option)
        else:
            packed = gguf_of(name)
            folders[option] = model_folder(name) if packed is None else unpacked(packed, store)
            check_folder(folders[option])
    served = {}
    for option, text in endpoints.items():
        if option not in folders:
            raise KdleakError(f"--endpoint {option}: whose tokenizer? name its folder by --{option.replace('_', '-')}")
        flag = f"--endpoint {option}"
        served[option] = Endpoint(parse_address(text, flag), flag, settings.rate)
    order = [option for option in models if option in {**folders, **logprobs}]
    files = {option: Path(logprobs[option]) for option in order if option in logprobs}
    return Sources(folders, files, served)


def _tokenizer_folder(name: str, option: str) -> Path:
    folder = Path(name)
    if not folder.is_dir():
        raise KdleakError(f"--{option} {name}: no folder here; a model behind an endpoint needs that of its tokenizer")
    return folder


def read_models(sources: Sources, records: pd.DataFrame, others: pd.DataFrame | None, shape: str, settings: Settings,
                continued: int) -> Models:  # fmt: skip
    """The models with the texts as each reads them. records, others: of the lists and the population.

    The text is the same for all: what one of them cuts is cut for all that are computed here, and a log-prob file must
    cover as much. continued: tokens that are to follow a prompt.
    """
    files = {o: read_logprobs(path, f"--logprobs {o}", records, others) for o, path in sources.files.items()}
    encoded: dict[str, Subject] = {}
    limits = Limits()
    if sources.folders:
        limits = within(settings.limits, _positions(sources), continued)
        assert limits.prompt is not None and limits.total is not None
        first = sources.folders.get("student") or next(iter(sources.folders.values()))
        template = choose_template(settings.template, shape, load_tokenizer(first))
        encoders = make_encoders(sources.folders, limits.prompt, limits.total, template)
        plain, _ = make_subjects(sources.folders, encoders, records, others)
        encoded = {option: _as_source(subject, option, sources, settings) for option, subject in plain.items()}
    subjects: dict[str, Subject | Answers] = {**encoded, **files}
    covered = {o: s.characters if isinstance(s, Answers) else s.encoded.characters for o, s in subjects.items()}
    _check_covered(covered, sources.files, records)
    shortened = [s.shortened if isinstance(s, Answers) else s.encoded.shortened for s in subjects.values()]
    length = records["response"].str.len().to_numpy()
    cut = {
        "prompts": int(np.any(shortened, axis=0).sum()),
        "responses": int((next(iter(covered.values())) < length).sum()),
    }
    return Models({"student": subjects["student"], **subjects}, limits, cut)


def _as_source(subject: Subject, option: str, sources: Sources, settings: Settings) -> Subject:
    whole = subject.folder, subject.encoder, subject.encoded, subject.population
    if (endpoint := sources.endpoints.get(option)) is not None:
        store = AnswerStore(settings.cache or PRIVATE, f"{endpoint.address}#{endpoint.model}")
        return ServedSubject(*whole, endpoint=endpoint, store=store)
    loading = settings.loading
    return subject if loading is None or loading.is_plain else LoadedSubject(*whole, loading)


def _positions(sources: Sources) -> list[int]:
    return [
        served_positions(sources.endpoints[o], folder) if o in sources.endpoints else position_limit(folder)
        for o, folder in sources.folders.items()
    ]


def _check_covered(covered: Mapping[str, np.ndarray], files: Mapping[str, Path], records: pd.DataFrame) -> None:
    """Refuse a log-prob file whose tokens cover more, or less, of a response than the other models'."""
    for option, path in files.items():
        for other, characters in covered.items():
            if len(unlike := np.flatnonzero(covered[option] != characters)):
                i = int(unlike[0])
                raise KdleakError(
                    f"{path}: {records['place'].iloc[i]}: it covers {covered[option][i]} characters of the response, "
                    f"the {other} {characters[i]}; let both have the same --max-tokens and --max-prompt-tokens"
                )


def within(limits: Limits, positions: Sequence[int], continued: int) -> Limits:
    """`limits`, lowered to what every model has positions for, which is the default of both; room for `continued`
    tokens follows a prompt."""
    longest = min(positions)
    total = longest if limits.total is None else min(limits.total, longest)
    room = total - continued
    prompt = room if limits.prompt is None else min(limits.prompt, room)
    if prompt < 1:
        raise KdleakError(f"a model with {total} positions has no room for a prompt and {continued} tokens after it")
    return Limits(prompt, total)


def described(subjects: Mapping[str, Subject | Answers]) -> dict[str, dict[str, Any]]:
    """What was audited: enough to know each model again."""
    student = subjects["student"].tokenizer
    vocabulary = None if student is None else student.get_vocab()
    return {option: _described(subject, vocabulary) for option, subject in subjects.items()}


def _described(subject: Subject | Answers, vocabulary: Mapping[str, int] | None) -> dict[str, Any]:
    if isinstance(subject, Answers):
        about = {"name": subject.file.name, "sha256": subject.digest, "source": "log-prob file"}
        return about | dict.fromkeys(("words", "template", "starts_with_bos", "own_tokenizer"))
    served = isinstance(subject, ServedSubject)
    own = subject.tokenizer.get_vocab()
    return {
        "name": subject.name if served else subject.folder.name,
        "sha256": subject.digest,
        "source": "endpoint" if served else "folder",
        "words": len(subject.tokenizer),
        "template": subject.encoder.template,
        "starts_with_bos": subject.encoder.starts_with_bos,
        "own_tokenizer": None if vocabulary is None else own != vocabulary,
    }
