"""The audit of one model. The pipeline's measure stage and `kdleak audit` are its two callers.

Models go by what attacks call them: `target` is the audited one, `teacher`, `no_kd`, `pretrained` and `external` are
what it is compared with. Records are members or nonmembers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks import ATTACKS, AttackInput
from kdleak.attacks.likelihood import mean_log_prob
from kdleak.attacks.perturbation import PerturbationScores
from kdleak.attacks.registry import Attack
from kdleak.attacks.variants import argmax_texts
from kdleak.auditing.controls import (
    BLIND_MODELS,
    PASSED,
    Blind,
    blind_control,
    overlap_control,
    permutation_control,
    placebo_control,
)
from kdleak.auditing.membership import KEYS, membership_report
from kdleak.auditing.passes import ModelRunner, PassRequest, PassResults, Subject
from kdleak.auditing.settings import EngineSettings
from kdleak.core.distributed import is_main
from kdleak.core.errors import KdleakError
from kdleak.core.seeds import derive
from kdleak.data.encoding import Encoder
from kdleak.data.overlap import ngram_overlap
from kdleak.data.sides import MEMBER, NONMEMBER
from kdleak.inference.cache import ArrayCache
from kdleak.models.checkpoints import load_tokenizer

if TYPE_CHECKING:
    import pandas as pd

TARGET = "target"
#: The teacher's own base: what `pretrained` is to a teacher that is attacked.
TEACHER_PRETRAINED = "teacher_pretrained"
#: What the target is compared with by the attacks that need no pass of their own.
COMPARED = ("teacher", "no_kd", "pretrained")


@dataclass(frozen=True)
class ModelAudit:
    """What the audit of one model gave.

    scores:   record_id, role, task, one column an attack (higher = member).
    report:   `membership_report` of them, with the controls blind, permutation, overlap and, by attack, placebo.
    left_out: attack -> why it has no score.
    compared: score tables of teacher, no-KD student and pretrained base, where they were attacked too.
    passes:   what the passes over each model gave.
    blind:    (n,) scores of the classifiers that see the texts alone.
    groups:   record id -> group: what counts as one draw.
    """

    scores: pd.DataFrame
    report: dict[str, Any]
    left_out: dict[str, str]
    compared: dict[str, pd.DataFrame]
    passes: dict[str, PassResults]
    blind: np.ndarray
    groups: dict[str, str]


def run(subjects: Mapping[str, Subject], records: pd.DataFrame, settings: EngineSettings) -> ModelAudit | None:
    """Audit `subjects["target"]`; None in a process that is not the main one, which shares the passes alone.

    records: record_id, role (member or nonmember), task, group_id and the text, in the order in which the subjects
    encoded them. Raises KdleakError where no attack can run.
    """
    attacked = {TARGET: list(settings.attacks)}
    if settings.compare:
        quick = [name for name in settings.attacks if not ATTACKS[name].needs.passes]
        attacked |= {name: quick for name in COMPARED if name in subjects and quick}
    passes = make_passes(subjects, records, attacked, settings)
    if not is_main():
        return None
    scored = {
        target: _score_table(_attack_input(target, subjects, passes, records, names), names, records, passes[target])
        for target, names in attacked.items()
    }
    (scores, reasons), others = scored.pop(TARGET), {name: table for name, (table, _) in scored.items()}
    left_out = {name: _reason(why, settings.missing_words) for name, why in reasons.items()}
    if len(scores.columns) == len(KEYS):
        raise KdleakError("no attack can run: " + "; ".join(f"{name} {why}" for name, why in left_out.items()))
    inputs = _attack_input(TARGET, subjects, passes, records, settings.attacks)
    member = (records["role"] == MEMBER).to_numpy()
    groups = dict(zip(records["record_id"], records["group_id"].astype(str), strict=True))
    placebos = _placebos(inputs, [name for name in scores.columns if name not in KEYS], member)
    failed = [name for name, control in placebos.items() if settings.drop_failed and control["state"] != PASSED]
    left_out |= {name: placebos[name]["verdict"] for name in failed}
    scores = scores.drop(columns=failed)
    blind, controls = _controls(scores, records, passes, groups, settings)
    controls |= {"placebo": placebos} if placebos else {}
    report = membership_report(scores, controls=controls, groups=groups)
    for name, area in report["attacks"].items():
        if (draws := ATTACKS[name].draws) is not None:
            area["auc_monte_carlo_error"] = PerturbationScores(draws(inputs)).auc_error(member)
    return ModelAudit(scores, report, left_out, others, passes, blind.scores, groups)


def make_passes(
    subjects: Mapping[str, Subject],
    records: pd.DataFrame,
    attacked: Mapping[str, Sequence[str]],
    settings: EngineSettings,
) -> dict[str, PassResults]:
    """The passes that the attacks on each model need, by the model that they are made over, and no pass more."""
    runner = ModelRunner(records, settings)
    results = {}
    for name, subject in subjects.items():
        uses = [
            (TARGET if name == target else role, ATTACKS[attack].needs)
            for target, names in attacked.items()
            for attack in names
            if (role := _role_for(target, name)) or name == target
        ]
        continued = settings.continuations if name in (TARGET, "teacher", "no_kd") else 0
        if not (name in attacked or continued or any(role in needs.references for role, needs in uses)):
            continue
        of_target = [each for role, needs in uses if role == TARGET for each in needs.passes]
        extra = tuple(p for p in dict.fromkeys(of_target) if subject.population or not p.needs_population)
        wanted = any(role in needs.population for role, needs in uses) and bool(subject.population)
        results[name] = runner.run(
            subject, PassRequest(extra, wanted, continued, settings.text_only, settings.published)
        )
    return results


def _role_for(target: str, name: str) -> str | None:
    """What the model `name` is to the attacked model `target`; None where it is nothing to it.

    The audited model is no reference of the others. A teacher's base is its own, never the student's, and it has no
    no-KD student.
    """
    if name in (target, TARGET):
        return None
    if target == "teacher":
        return {TEACHER_PRETRAINED: "pretrained", "external": "external"}.get(name)
    return None if name == TEACHER_PRETRAINED else name


def references_needed(attacks: Sequence[str]) -> set[str]:
    """The models beside the target that the attacks read."""
    needs = [ATTACKS[name].needs for name in attacks]
    return {name for need in needs for name in (*need.references, *need.population)} - {TARGET}


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
            made[key] = Encoder(tokenizer, max_prompt_tokens, max_tokens, used)
        encoders[name] = made[key]
    return encoders


def _attack_input(
    target: str,
    subjects: Mapping[str, Subject],
    passes: Mapping[str, PassResults],
    records: pd.DataFrame,
    names: Sequence[str],
) -> AttackInput:
    results = passes[target]
    roles = {name: _role_for(target, name) for name in passes}
    others = {role: passes[name] for name, role in roles.items() if role}
    populations = {name: each.population for name, each in {TARGET: results, **others}.items()}
    greedy = any(ATTACKS[name].needs.argmax_texts for name in names)
    return AttackInput(
        results.statistics,
        {name: each.statistics for name, each in others.items()},
        texts=list(records["response"]),
        argmax_texts=argmax_texts(subjects[target].encoder.tokenizer, results.statistics) if greedy else (),
        variants=results.variants,
        population={name: each for name, each in populations.items() if each is not None},
        computed=results.computed,
        groups=records["group_id"].to_numpy().astype(str) if "group_id" in records else None,
    )


def _score_table(
    inputs: AttackInput, names: Sequence[str], records: pd.DataFrame, passes: PassResults
) -> tuple[pd.DataFrame, dict[str, str | list[str]]]:
    """Scores of the attacks `names`; and of those that could not run, what they lack or why they were refused."""
    columns, reasons = {}, {}
    for name in names:
        refused = [passes.refused[each.name] for each in ATTACKS[name].needs.passes if each.name in passes.refused]
        if refused:
            reasons[name] = refused[0]
        elif missing := ATTACKS[name].needs.missing(inputs):
            reasons[name] = missing
        else:
            try:
                columns[name] = ATTACKS[name].score(inputs)
            except KdleakError as error:
                reasons[name] = str(error)
    return records[list(KEYS)].assign(**columns), reasons


def _reason(why: str | list[str], words: Mapping[str, str]) -> str:
    if isinstance(why, str):
        return why
    return "needs " + " and ".join(dict.fromkeys(words.get(lacking, lacking) for lacking in why))


def _placebos(inputs: AttackInput, names: Sequence[str], member: np.ndarray) -> dict[str, dict[str, Any]]:
    """The negative controls of the attacks that have a placebo."""
    attacks: list[Attack] = [ATTACKS[name] for name in names if ATTACKS[name].placebo is not None]
    placebos = {attack.name: attack.score(attack.placebo(inputs)) for attack in attacks}
    return {name: placebo_control(scores, member, inputs.groups) for name, scores in placebos.items()}


def _controls(
    scores: pd.DataFrame,
    records: pd.DataFrame,
    passes: Mapping[str, PassResults],
    groups: Mapping[str, str],
    settings: EngineSettings,
) -> tuple[Blind, dict[str, Any]]:
    overlap = ngram_overlap(records, settings.ngram, of=[NONMEMBER], against=[MEMBER])
    shares = dict(zip(records["record_id"], overlap, strict=True))
    seed = derive(settings.seed, "controls")
    cache = None if settings.cache is None else ArrayCache(settings.cache)  # of this process alone
    models = {name: mean_log_prob(passes[name].statistics) for name in BLIND_MODELS if name in passes}
    blind = blind_control(records, seed=seed, cache=cache, models=models)
    return blind, {
        "blind": blind.report,
        "permutation": permutation_control(scores, permutations=settings.permutations, seed=seed, groups=groups),
        "overlap": {"ngram": settings.ngram, **overlap_control(scores, shares, groups)},
    }
