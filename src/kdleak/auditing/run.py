"""The audit of a model of one's own: two lists of records and a folder in, a verdict out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.auditing.attacks import (
    ROLES,
    TEACHER_AWARE,
    membership_figures,
    memorization_figures,
    most_exposed,
    placebo,
    score_table,
)
from kdleak.auditing.encoding import Limits, ModelEncoder, choose_template, encode_alike
from kdleak.auditing.lists import MEMBER, NONMEMBER, Lists, read_lists, read_population
from kdleak.auditing.membership import KEYS
from kdleak.auditing.page import report_page
from kdleak.auditing.passes import CONTINUED, Answer, Interviewer, Question
from kdleak.auditing.result import AuditResult
from kdleak.auditing.settings import SLOW, Settings
from kdleak.auditing.verdict import strongest_attack, verdict
from kdleak.core.errors import KdleakError
from kdleak.core.seeds import derive
from kdleak.data.encoding import EncodedRecord
from kdleak.models.checkpoints import load_tokenizer, position_limit
from kdleak.models.device import resolve_device
from kdleak.models.hub import model_folder
from kdleak.models.model_files import check_folder, content_hash

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.auditing.lists import Records


@dataclass(frozen=True)
class Subject:
    """One model of an audit. records, population: the texts as this model encodes them."""

    folder: Path
    digest: str
    encoder: ModelEncoder
    records: list[EncodedRecord]
    population: list[EncodedRecord]


def run_audit(
    models: Mapping[str, str | Path | None],
    members: Records,
    nonmembers: Records,
    population: Records | None,
    settings: Settings,
) -> AuditResult:
    """Audit `models["student"]`; models: folder or hub id by option (`ROLES`), None where it is not given.

    Raises KdleakError for a folder that is no safe model, for records that cannot be read and for lists that overlap.
    """
    folders = {option: model_folder(str(name)) for option, name in models.items() if name is not None}
    for folder in folders.values():
        check_folder(folder)
    lists = read_lists(members, nonmembers, settings.drop_overlap)
    others = None if population is None else read_population(population, lists)
    subjects, cut = _subjects(folders, lists, others, settings)
    answers = _ask_all(subjects, lists, settings)

    scores, left_out = score_table("student", answers, lists.frame, settings.running)
    if len(scores.columns) == len(KEYS):
        raise KdleakError("no attack can run: " + "; ".join(f"{name} {why}" for name, why in left_out.items()))
    controls = {}
    if TEACHER_AWARE in scores.columns:
        controls["placebo"] = placebo(answers, lists.frame)
        if not controls["placebo"]["passed"]:
            scores = scores.drop(columns=TEACHER_AWARE)
            left_out[TEACHER_AWARE] = controls["placebo"]["verdict"]
    quick = [name for name in settings.running if name not in SLOW]
    beside = {
        ROLES[option]: score_table(option, answers, lists.frame, quick)[0]
        for option in ("teacher", "baseline")
        if option in answers and quick
    }
    membership = membership_figures(scores, beside, lists.frame, derive(settings.seed, "controls"))
    membership["controls"] |= controls
    memorization = memorization_figures(answers)
    strongest = strongest_attack(scores, settings.fpr)
    skipped = {name: "left out by --quick" for name in settings.chosen if name not in settings.running}
    figures = {
        "verdict": verdict(
            strongest,
            membership["attacks"],
            membership["controls"],
            beside=membership["beside"],
            memorization=memorization,
        ),
        "membership": membership,
        "memorization": memorization,
        "left_out": skipped | left_out,
        "exposed": most_exposed(lists.frame, scores, strongest.attack, answers["student"].memorization),
        "inputs": _described(subjects, lists, cut, settings),
    }
    table = scores.assign(place=lists.frame["place"])
    table = table[[*KEYS, "place", *(name for name in scores.columns if name not in KEYS)]]
    return AuditResult(figures, table, report_page(figures, table, beside))


def _subjects(
    folders: Mapping[str, Path], lists: Lists, population: pd.DataFrame | None, settings: Settings
) -> tuple[dict[str, Subject], int]:
    """The models with the texts as each encodes them, and how many responses had to be cut."""
    limits = _within(settings.limits, folders.values())
    tokenizers = {option: load_tokenizer(folder) for option, folder in folders.items()}
    template = choose_template(settings.template, lists.shape, tokenizers["student"])
    encoders = {}
    for option, tokenizer in tokenizers.items():
        # A model without a chat template of its own is asked in the study's.
        own = template if tokenizer.chat_template or template != "chat" else "alpaca"
        encoders[option] = ModelEncoder(tokenizer, own, limits)
    records, cut = encode_alike(lists.frame, encoders)
    others = {} if population is None else encode_alike(population, encoders)[0]
    subjects = {
        option: Subject(
            folders[option], content_hash(folders[option]), encoder, records[option], others.get(option, [])
        )
        for option, encoder in encoders.items()
    }
    return subjects, cut


def _ask_all(subjects: Mapping[str, Subject], lists: Lists, settings: Settings) -> dict[str, Answer]:
    """The student is asked for what its attacks need, the others for what it is compared with."""
    interviewer = Interviewer(
        lists.frame,
        device=resolve_device(settings.device),
        batch_tokens=settings.batch_tokens,
        seed=derive(settings.seed, "noise/mope"),
        cache=settings.cache,
    )
    lower = lists.frame.assign(response=lists.frame["response"].str.lower())
    found = {}
    for option, subject in subjects.items():
        attacks = settings.running if option == "student" else ()
        question = Question(
            subject.records,
            subject.population,
            subject.encoder.encode(lower).records if "lowercase" in attacks else (),
            recall="recall" in attacks and bool(subject.population),
            mope="mope" in attacks,
            memorization=option in ("student", "teacher", "baseline") and settings.memorization,
            text_only=lists.shape == "text",
        )
        encoder = subject.encoder
        model = (subject.folder, subject.digest, encoder.tokenizer, encoder.eos_id)
        found[option] = interviewer.ask(option, *model, question)
    return found


def _described(subjects: Mapping[str, Subject], lists: Lists, cut: int, settings: Settings) -> dict[str, Any]:
    """What was audited: enough to know it again, and no text."""
    roles = lists.frame["role"].value_counts()
    student = subjects["student"].encoder
    return {
        "models": {
            option: {
                "name": subject.folder.name,
                "sha256": subject.digest,
                "words": len(subject.encoder.tokenizer),
                "template": subject.encoder.template,
                "starts_with_bos": subject.encoder.puts_first,
                "own_tokenizer": subject.encoder.tokenizer.get_vocab() != student.tokenizer.get_vocab(),
            }
            for option, subject in subjects.items()
        },
        "records": {
            "members": int(roles[MEMBER]),
            "nonmembers": int(roles[NONMEMBER]),
            "population": len(subjects["student"].population),
            "shape": lists.shape,
            "duplicates_left_out": lists.duplicates,
            "overlap_left_out": lists.overlap,
            "responses_cut": cut,
        },
        "settings": {
            "fpr": settings.fpr,
            "max_prompt_tokens": student.limits.prompt,
            "max_tokens": student.limits.total,
            "seed": settings.seed,
        },
    }


def _within(limits: Limits, folders: Iterable[Path]) -> Limits:
    """`limits`, lowered to what every model has positions for."""
    total = min(limits.total, *(position_limit(folder) for folder in folders))
    # A first token may be put before the prompt, and a continuation follows it.
    prompt = min(limits.prompt, total - CONTINUED - 1)
    if prompt < 1:
        raise KdleakError(f"a model with {total} positions has no room for a prompt and {CONTINUED} tokens after it")
    return Limits(prompt, total)
