"""`kdleak audit`: two lists of records and model folders in, a verdict out. The work is `kdleak.auditing.engine`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks import ATTACKS
from kdleak.auditing import engine
from kdleak.auditing.comparisons import AREA, against_baseline, areas_beside, exposed_overlap, inherited
from kdleak.auditing.engine import ModelAudit
from kdleak.auditing.heat import heat_page
from kdleak.auditing.identifier_words import identifier_words
from kdleak.auditing.identifiers import audit_identifiers, check_alternatives
from kdleak.auditing.judgement import judge
from kdleak.auditing.list_verdict import list_verdict
from kdleak.auditing.list_words import in_words
from kdleak.auditing.lists import Lists, read_lists, read_population
from kdleak.auditing.logprob_file import Answers
from kdleak.auditing.membership import KEYS, attackers
from kdleak.auditing.page import report_page
from kdleak.auditing.passes import Subject
from kdleak.auditing.result import SCHEMA_VERSION, AuditResult
from kdleak.auditing.served import AnyRunner
from kdleak.auditing.settings import EngineSettings, Settings
from kdleak.auditing.shadow_baseline import Shadow, train_shadow
from kdleak.auditing.sources import described, find_sources, read_models
from kdleak.auditing.verdict import verdict
from kdleak.core.errors import KdleakError
from kdleak.data.sides import MEMBER, NONMEMBER
from kdleak.memorization.report import Memorization, memorization_report
from kdleak.memorization.tables import record_table
from kdleak.models.device import resolve_device

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.auditing.lists import Records

#: The models of an audit: option -> what attacks call it. The student is the one that is attacked.
ROLES = {
    "student": engine.TARGET,
    "teacher": "teacher",
    "reference": "external",
    "baseline": "no_kd",
    "pretrained": "pretrained",
    "teacher_pretrained": engine.TEACHER_PRETRAINED,
}
_POPULATION = "--population, records that no model was trained on"
#: What an attack lacks -> the option that would provide it.
_REMEDIES = {
    "reference 'external'": "--reference, a model of another architecture that saw neither list",
    "reference 'pretrained'": "--pretrained, the student as it was before any fine-tuning",
    "reference 'teacher'": "--teacher",
    "reference 'no_kd'": "--baseline",
    "records whose membership in the no-KD student is known": (
        "--learned, which trains a shadow of --pretrained on half of --population"
    ),
    "continuations of the prompts": "the memorization of this audit",
}
#: Tokens of a greedy continuation, and of the shortest response that counts as reproduced.
CONTINUED, SHORTEST = 32, 8
#: Records in the list of the most exposed, and the false-positive rate at which other attacks may agree.
_EXPOSED, AGREE_FPR = 20, 0.05


def run_audit(
    models: Mapping[str, str | Path | None],
    members: Records,
    nonmembers: Records,
    population: Records | None,
    settings: Settings,
    logprobs: Mapping[str, str | Path] | None = None,
    endpoints: Mapping[str, str] | None = None,
    identifiers: int = 0,
) -> AuditResult:
    """Audit the student; models: folder or hub id by option (`ROLES`), None where it is not given.

    logprobs: log-prob files of models that are not here, by option. endpoints: addresses of models whose tokenizer
    alone is here. identifiers: others that each natural identifier is ranked among; 0: none is looked for. Raises
    KdleakError for a folder that is no safe model, for records that cannot be read and for lists that overlap.
    """
    check_alternatives(identifiers)
    sources = find_sources(models, logprobs or {}, endpoints or {}, settings)
    if settings.show_text and "student" in sources.files:
        raise KdleakError("--show-text: a log-prob file does not say which characters a token has; name a folder")
    lists = read_lists(members, nonmembers, settings.drop_overlap)
    others = None if population is None else read_population(population, lists)
    of_all = read_models(sources, lists.frame, others, lists.shape, settings, CONTINUED)
    subjects, cut = of_all.subjects, of_all.cut
    how = _engine(settings, lists.shape)
    runner, tuning, trained = AnyRunner(lists.frame, how), None, None
    if settings.learned:
        trained = train_shadow(subjects.get("pretrained"), others, settings)
        subjects = {**subjects, "baseline": subjects.get("baseline", trained.subject)}
        tuning = trained.tuning(runner)
    audit = engine.run({ROLES[option]: s for option, s in subjects.items()}, lists.frame, how, runner.answer, tuning)
    assert audit is not None  # one process runs it

    membership = audit.report | _compared(audit)
    memorization, tables = _memorization(audit, subjects, lists)
    blind, shuffled = (membership["controls"][name]["state"] for name in ("blind", "permutation"))
    judged = judge(audit.scores, audit.compared, audit.blind, blind, settings.fpr, audit.groups, shuffled)
    best = judged.best
    listed, ensemble = list_verdict(audit.scores, audit.compared, judged, blind, audit.groups, settings.seed)
    left_out = {name: "left out by --quick" for name in settings.chosen if name not in settings.running}
    left_out |= audit.left_out
    known: dict[str, Any] = {"beside": membership["beside"], "memorization": memorization, "left_out": left_out}
    figures = {
        "schema_version": SCHEMA_VERSION,
        "lists": _sizes(lists.frame),
        "verdict": verdict(judged, membership["attacks"], membership["controls"], **known, cut=cut),
        "list": listed | in_words(listed),
        "controls": _states(membership["controls"]),
        "membership": membership,
        "memorization": memorization,
        "left_out": left_out,
        "cut": cut,
        "exposed": most_exposed(lists.frame, audit.scores, best.attack, tables.get("student")),
        "inputs": _described(subjects, lists, replace(settings, limits=of_all.limits), trained),
    }
    if identifiers:
        ranked = audit_identifiers(subjects, lists.frame, runner, identifiers, settings.seed)
        figures["identifiers"] = ranked | identifier_words(ranked)
    scores = audit.scores.drop(columns=list(KEYS))
    table = audit.scores[list(KEYS)].assign(place=lists.frame["place"], **scores, ensemble=ensemble)
    texts = _texts(figures["exposed"], lists.frame, subjects["student"], audit) if settings.show_text else ""
    return AuditResult(figures, table, report_page(figures, table, audit.compared), texts)


def _texts(exposed: list[dict[str, Any]], frame: pd.DataFrame, student: Subject | Answers, audit: ModelAudit) -> str:
    assert isinstance(student, Subject)  # a log-prob file was refused
    return heat_page(exposed, frame, student, audit.passes)


def _sizes(frame: pd.DataFrame) -> dict[str, Any]:
    """Records of each list, and the groups (a shared context, near-duplicates) that count as one draw."""
    sides = {"members": frame[frame["role"] == MEMBER], "nonmembers": frame[frame["role"] == NONMEMBER]}
    groups = {side: int(table["group_id"].nunique()) for side, table in sides.items()}
    return {side: len(table) for side, table in sides.items()} | {"groups": groups}


def _states(controls: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Each control's state and words; placebos go by "placebo of <attack>"."""
    named = {name: controls[name] for name in ("blind", "permutation")}
    named |= {f"placebo of {attack}": control for attack, control in controls.get("placebo", {}).items()}
    return {name: {key: control[key] for key in ("state", "verdict")} for name, control in named.items()}


def _engine(settings: Settings, shape: str) -> EngineSettings:
    extra = {each for attack in ATTACKS.values() for each in attack.needs.passes if each.needs_population}
    return EngineSettings(
        settings.running,
        settings.seed,
        batch_tokens=settings.batch_tokens,
        continuations=CONTINUED if settings.memorization else 0,
        text_only=shape == "text",
        published=False,
        compare=True,
        drop_failed=True,
        missing_words=_REMEDIES | {f"pass '{each.name}'": _POPULATION for each in extra},
        cache=settings.cache,
        device=resolve_device(settings.device),
    )


def _compared(audit: ModelAudit) -> dict[str, Any]:
    """The same attacks on teacher and no-KD student, and what the student has of either."""
    keys = (*AREA, "tpr_at_fpr")
    figures: dict[str, Any] = {"beside": {}}
    if "teacher" in audit.compared:
        teacher = audit.compared["teacher"]
        figures["beside"]["teacher"] = areas_beside(audit.scores, teacher, keys, audit.groups)
        figures["inherited"] = inherited(audit.scores, teacher, audit.groups)
        figures["exposed_overlap"] = exposed_overlap(audit.scores, teacher, audit.compared.get("no_kd"), audit.groups)
    if "no_kd" in audit.compared:
        figures["beside"]["no_kd"] = against_baseline(audit.scores, audit.compared["no_kd"], keys, audit.groups)
    return figures


def _memorization(
    audit: ModelAudit, subjects: Mapping[str, Subject | Answers], lists: Lists
) -> tuple[dict[str, Any] | None, dict[str, pd.DataFrame]]:
    """What memorization.json holds of a model of the pipeline, facts and canaries aside; and the tables by option."""
    tables = {
        option: record_table(lists.frame, continued, tokenizer, SHORTEST)
        for option, subject in subjects.items()
        if (passes := audit.passes.get(ROLES[option])) and (continued := passes.continuations) is not None
        if (tokenizer := subject.tokenizer) is not None
    }
    if "student" not in tables:
        return None, tables
    teacher, no_kd = (Memorization(tables[each]) if each in tables else None for each in ("teacher", "baseline"))
    report = memorization_report(Memorization(tables["student"]), teacher=teacher, no_kd=no_kd)
    return {"tokens": CONTINUED, **report}, tables


def most_exposed(
    frame: pd.DataFrame, scores: pd.DataFrame, attack: str, memorization: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """The members with the highest scores of `attack`, ids and numbers only.

    nonmembers_above: how many non-members score as high or higher: the false positives at that threshold.
    reproduced: whether greedy decoding reproduces its first tokens; None where that is not known.
    agreeing: the share of the attacker's attacks that rank the record above all but 5 % of the non-members: how far it
    is the record that stands out, and not one attack's taste. Of another training it says nothing.
    """
    agreeing = _agreeing(scores)
    table = scores[[*KEYS, attack]].assign(place=frame["place"], reproduced=np.nan)
    if memorization is not None:
        table["reproduced"] = memorization["reproduced"].to_numpy()
    table = table[table[attack].notna()]
    outside = np.sort(table.loc[table["role"] == NONMEMBER, attack].to_numpy())
    inside = table[table["role"] == MEMBER].sort_values([attack, "record_id"], ascending=[False, True])
    return [
        {
            "record_id": row["record_id"],
            "place": row["place"],
            "score": float(row[attack]),
            "nonmembers_above": int(len(outside) - np.searchsorted(outside, row[attack], side="left")),
            "reproduced": None if np.isnan(row["reproduced"]) else bool(row["reproduced"]),
            "agreeing": float(agreeing[index]),
        }
        for index, row in inside.head(_EXPOSED).iterrows()
    ]


def _agreeing(scores: pd.DataFrame) -> pd.Series:
    """For each record the share of the attacks defined on it that rank it above 95 % of the non-members."""
    names = attackers([name for name in scores.columns if name not in KEYS])
    table = scores[names]
    above = table > table[scores["role"] == NONMEMBER].quantile(1.0 - AGREE_FPR, interpolation="higher")
    return above.where(table.notna()).astype(float).mean(axis=1)


def _described(
    subjects: Mapping[str, Subject | Answers], lists: Lists, settings: Settings, trained: Shadow | None
) -> dict[str, Any]:
    """What was audited: enough to know it again, and no text."""
    roles = lists.frame["role"].value_counts()
    models = described(subjects)
    if trained is not None and subjects["baseline"] is trained.subject:
        models["baseline"] |= {"name": f"shadow of {trained.base.folder.name}", "source": "trained here"}
    return {
        "models": models,
        "records": {
            "members": int(roles[MEMBER]),
            "nonmembers": int(roles[NONMEMBER]),
            "population": len(subjects["student"].population),
            "shape": lists.shape,
            "duplicates_left_out": lists.duplicates,
            "overlap_left_out": lists.overlap,
        },
        "settings": {
            "fpr": settings.fpr,
            "max_prompt_tokens": settings.limits.prompt,
            "max_tokens": settings.limits.total,
            "seed": settings.seed,
            "learned": settings.learned,
        },
    }
