"""The audit of one model: passes (`make_passes`), and statistics of what they gave (`judge`).

`kdleak audit` makes both in one process (`run`); the pipeline's measure stages keep the passes, its judge stages read
them.

Models go by what attacks call them: `target` is the audited one, `teacher`, `no_kd`, `pretrained` and `external` are
what it is compared with. Records are members or nonmembers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from kdleak.attacks import ATTACKS, AttackInput
from kdleak.attacks.likelihood import mean_log_prob
from kdleak.attacks.perturbation import PerturbationScores
from kdleak.attacks.variants import argmax_texts
from kdleak.auditing.controls import (
    BLIND_MODELS,
    PASSED,
    Blind,
    blind_control,
    overlap_control,
    placebo_control,
)
from kdleak.auditing.membership import KEYS, membership_report
from kdleak.auditing.passes import AuditedModel, ModelRunner, PassRequest, PassResults
from kdleak.auditing.permutation import permutation_control
from kdleak.auditing.settings import EngineSettings
from kdleak.core.distributed import is_main
from kdleak.core.errors import KdleakError
from kdleak.core.seeds import derive
from kdleak.data.overlap import ngram_overlap
from kdleak.data.sides import MEMBER, NONMEMBER
from kdleak.inference.cache import ArrayCache

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from kdleak.attacks.registry import Tuning

TARGET = "target"
#: The teacher's own base: what `pretrained` is to a teacher that is attacked.
TEACHER_PRETRAINED = "teacher_pretrained"
#: A student of a teacher that saw no member, where one was made: what attacks with a placebo must not find.
CONTROL = "control"
#: What the target is compared with by the attacks that need no pass of their own.
COMPARED = ("teacher", "no_kd", "pretrained")


#: Makes the passes of a request over a model.
Ask = Callable[[Any, PassRequest], PassResults]


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


def run(
    subjects: Mapping[str, AuditedModel],
    records: pd.DataFrame,
    settings: EngineSettings,
    ask: Ask | None = None,
    tuning: Tuning | None = None,
) -> ModelAudit | None:
    """Audit `subjects["target"]`; None in a process that is not the main one, which shares the passes alone.

    records: record_id, role (member or nonmember), task, group_id and the text, in the order in which the subjects
    encoded them. ask: who makes the passes; by default a `ModelRunner`, for which each subject is a `Subject`. tuning:
    as `judge` takes it. Raises KdleakError where no attack can run.
    """
    passes = make_passes(subjects, records, _attacked(subjects, settings), settings, ask)
    if not is_main():
        return None
    return judge(passes, {name: subject.tokenizer for name, subject in subjects.items()}, records, settings, tuning)


def judge(
    passes: Mapping[str, PassResults],
    tokenizers: Mapping[str, PreTrainedTokenizerBase | None],
    records: pd.DataFrame,
    settings: EngineSettings,
    tuning: Tuning | None = None,
) -> ModelAudit:
    """The audit of the target from what passes gave; no model is needed. tokenizers: of the models that are attacked.
    tuning: records whose membership in a reference model is known.

    Raises KdleakError where no attack can run.
    """
    attacked = _attacked(tokenizers, settings)
    scored = {
        target: _score_table(
            _attack_input(target, tokenizers, passes, records, names, tuning), names, records, passes[target]
        )
        for target, names in attacked.items()
    }
    (scores, reasons), others = scored.pop(TARGET), {name: table for name, (table, _) in scored.items()}
    left_out = {name: _reason(why, settings.missing_words) for name, why in reasons.items()}
    if len(scores.columns) == len(KEYS):
        raise KdleakError("no attack can run: " + "; ".join(f"{name} {why}" for name, why in left_out.items()))
    inputs = _attack_input(TARGET, tokenizers, passes, records, settings.attacks, tuning)
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
        if (chosen := ATTACKS[name].chosen) is not None:
            area |= chosen(inputs)
    return ModelAudit(scores, report, left_out, others, dict(passes), blind.scores, groups)


def _attacked(present: Collection[str], settings: EngineSettings) -> dict[str, list[str]]:
    """The attacks on each model: all on the target; those without passes of their own on what it is compared with."""
    attacked = {TARGET: list(settings.attacks)}
    if settings.compare:
        quick = [name for name in settings.attacks if not ATTACKS[name].needs.passes]
        attacked |= {name: quick for name in COMPARED if name in present and quick}
    return attacked


def make_passes(
    subjects: Mapping[str, AuditedModel],
    records: pd.DataFrame,
    attacked: Mapping[str, Sequence[str]],
    settings: EngineSettings,
    ask: Ask | None = None,
) -> dict[str, PassResults]:
    """The passes that the attacks on each model need, by the model that they are made over, and no pass more."""
    answers = ask or cast("Ask", ModelRunner(records, settings).run)
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
        choices = any(ATTACKS[attack].needs.argmax_texts for attack in attacked.get(name, ()))
        results[name] = answers(subject, PassRequest(extra, continued, choices, settings.text_only, settings.published))
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
    return {name for attack in attacks for name in ATTACKS[attack].needs.references}


def _attack_input(
    target: str,
    tokenizers: Mapping[str, PreTrainedTokenizerBase | None],
    passes: Mapping[str, PassResults],
    records: pd.DataFrame,
    names: Sequence[str],
    tuning: Tuning | None = None,
) -> AttackInput:
    results = passes[target]
    roles = {name: _role_for(target, name) for name in passes}
    others = {role: passes[name] for name, role in roles.items() if role}
    tokenizer = tokenizers[target]
    greedy = any(ATTACKS[name].needs.argmax_texts for name in names)
    return AttackInput(
        results.statistics,
        {name: each.statistics for name, each in others.items()},
        texts=list(records["response"]),
        argmax_texts=argmax_texts(tokenizer, results.statistics) if greedy and tokenizer is not None else (),
        continued=_continued(results, tokenizer) if any(ATTACKS[n].needs.continued for n in names) else (),
        variants=results.variants,
        computed=results.computed,
        tuning=tuning,
        groups=records["group_id"].to_numpy().astype(str) if "group_id" in records else None,
    )


def _continued(results: PassResults, tokenizer: PreTrainedTokenizerBase | None) -> list[tuple[str, str]]:
    """The greedy continuation of each prompt beside the record's own words; none where these were not made."""
    return (
        list(results.written)
        if results.continuations is None or tokenizer is None
        else list(zip(*results.continuations.texts(tokenizer), strict=True))
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
    placebos = {name: ATTACKS[name].placebo for name in names}
    return {
        name: {"model": CONTROL if CONTROL in inputs.references else "no_kd"}
        | placebo_control(ATTACKS[name].score(placebo(inputs)), member, inputs.groups)
        for name, placebo in placebos.items()
        if placebo is not None
    }


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
    scored = [name for name, results in passes.items() if not results.written]  # the others gave text alone
    models = {name: mean_log_prob(passes[name].statistics) for name in BLIND_MODELS if name in scored}
    blind = blind_control(records, seed=seed, cache=cache, models=models)
    return blind, {
        "blind": blind.report,
        "permutation": permutation_control(scores, permutations=settings.permutations, seed=seed, groups=groups),
        "overlap": {"ngram": settings.ngram, **overlap_control(scores, shares, groups)},
    }
