"""The epsilon stage: a teacher that canaries were planted in by a coin each, its students, and what they certify.

An audit is kept in results/epsilon/report.json under the name of its defence, until another one of that name replaces
it; the chain of several defences stands there side by side.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks import ATTACKS, AttackInput, attack_scores, is_auditors
from kdleak.auditing.passes import ModelRunner
from kdleak.auditing.settings import EngineSettings
from kdleak.certify.chain import chain
from kdleak.certify.coins import coin_canaries
from kdleak.certify.contraction import contraction
from kdleak.certify.multi_run import multi_run
from kdleak.certify.names import defence_key
from kdleak.certify.one_run import audit_coins
from kdleak.core.files import read_json, read_parquet, write_json
from kdleak.core.paths import Project
from kdleak.core.variants import BASELINE, TEACHER, Variant
from kdleak.data.records import read_role
from kdleak.defend.accountant import Budget
from kdleak.defend.choice import acting
from kdleak.defend.registry import Acts, shard_folder
from kdleak.pipeline.canary_cost import canary_cost, furnish
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.passes import audited_records, subject_of
from kdleak.pipeline.teacher import fine_tune_teacher
from kdleak.pipeline.text import write_training_text
from kdleak.shadow.halves import halves
from kdleak.shadow.report import settings_of
from kdleak.shadow.store import STATISTICS, ShadowStore

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.inference.token_statistics import TokenStatistics


#: The δ at which a private training's curve is held to what was guessed.
CURVE = (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-5)


def certify(params: Params, project: Project) -> None:
    """Make the audit that `epsilon` of params.yaml asks for. Where it asks for none, what stands there stays."""
    audits = read_json(project.epsilon_report)["audits"] if project.epsilon_report.is_file() else {}
    if params.epsilon.canaries:
        audits[defence_key(params)] = _audit(params, project)
    write_json({"audits": audits}, project.epsilon_report, digits=6)


def _audit(params: Params, project: Project) -> dict[str, Any]:
    place = project.root.resolve() / ".kdleak" / "epsilon"
    coins = coin_canaries(read_role(project.records, "auxiliary"), params.epsilon.canaries, params.seed)
    own = furnish(place, Project(project.root.resolve()), coins)
    fine_tune_teacher(params, own)
    for method in params.epsilon.methods:
        write_training_text(method, params, own)
        make_student(method, params, own)
    training = read_json(own.training(TEACHER))
    spent = training.get("defence", {})
    proven = _proven(params, own)
    delta = spent.get("delta", next((each["delta"] for each in proven.values()), params.epsilon.delta))
    planted, choosing = coins["repetitions"].to_numpy(bool), coins["choosing"].to_numpy(bool)
    scores = {name: _scores(name, coins, params, own) for name in (TEACHER, *params.epsilon.methods, BASELINE)}
    models = {name: audit_coins(each, planted, choosing, delta) for name, each in scores.items()}
    for name, stated in proven.items():
        models[name]["accountant"] = stated["epsilon"]
    found = settings_of(params) | {
        "canaries": len(coins),
        "planted": int(planted.sum()),
        "records": training["records"] + training["canary_rows"],
        "delta": delta,
        "confidence": 0.95,
        "accountant": spent.get("epsilon"),
        "accountant_covers": spent.get("covers"),
        "models": models,
        "contraction": {name: _contraction(name, params, own) for name in params.epsilon.methods},
        "chain": chain(models, spent.get("epsilon"), _curve(spent)),
        "multi_run": _multi_run(params, project, delta),
        "perplexity": canary_cost(coins, params, own, place / "ordinary"),
    }
    shutil.rmtree(place)
    return found


def _curve(spent: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The (ε, δ) of a training that its accountant was asked for at one δ, at many; [] where it states no ε."""
    if not spent.get("epsilon"):
        return []
    budget = Budget(spent["knobs"]["sigma"], spent["sample_rate"], spent["steps"])
    return [(budget.epsilon(delta), delta) for delta in CURVE]


def _proven(params: Params, own: Project) -> dict[str, Any]:
    """Student -> what its own making has spent of private's privacy, where that has an ε: tokens sampled from teachers
    that are themselves not private."""
    spent = {name: read_json(own.training(name)).get("defence", {}) for name in params.epsilon.methods}
    return {name: each for name, each in spent.items() if each.get("epsilon") and each["covers"] == "private"}


def _scores(name: str, coins: pd.DataFrame, params: Params, own: Project) -> dict[str, np.ndarray]:
    """Attack -> (n,), the most that one of the model's shards scores; a model without shards is one."""
    folders = [own.model(name), *sorted(shard_folder(own.model(name), 1).parent.glob("*"))]
    each = [_scores_of(folder, name, coins, params, own) for folder in folders]
    return {attack: np.fmax.reduce([scores[attack] for scores in each]) for attack in each[0]}


def _scores_of(folder: Path, name: str, coins: pd.DataFrame, params: Params, own: Project) -> dict[str, np.ndarray]:
    """Attack -> (n,), of every attack that an outsider can make of the model, its base, the external model and the
    no-KD student, which know no coin. The teacher is no reference: a student's bound is of what it gives out itself."""
    base = own.base(Variant.of(name))
    references = {"pretrained": base, "external": own.base_external}
    if Variant.of(name).is_distilled:
        references["no_kd"] = own.model(BASELINE)
    target, *others = (_statistics(each, coins, params, own) for each in (folder, *references.values()))
    inputs = AttackInput(target, dict(zip(references, others, strict=True)), texts=list(coins["response"]))
    names = [each for each, made in ATTACKS.items() if not made.needs.missing(inputs) and not is_auditors(each)]
    return attack_scores(inputs, names)


def _statistics(folder: Path, coins: pd.DataFrame, params: Params, own: Project) -> TokenStatistics:
    subject = subject_of(folder, coins, params, own)
    settings = EngineSettings((), params.seed, batch_tokens=params.compute.batch_tokens, cache=own.cache)
    return ModelRunner(coins, settings).statistics(subject, subject.records, "coin canaries")


def _contraction(method: str, params: Params, own: Project) -> dict[str, Any]:
    defence = acting(params, Acts.SIGNAL)
    text = read_parquet(own.training_text(method))
    sampled = int(text["tokens"].map(len).sum()) if len(text) else None
    return contraction(defence.name, defence.model_dump(), sampled)


def _multi_run(params: Params, project: Project, delta: float) -> dict[str, Any]:
    """The bound over shadow models, by model; where there are none of these settings, why."""
    shadow = read_json(project.shadow_report) if project.shadow_report.is_file() else {}
    if not shadow.get("models"):
        return {"state": "could not run", "why": "no shadow models were trained (shadow.models)"}
    own = settings_of(params)
    if others := [key for key in own if own[key] != shadow.get(key)]:
        return {"state": "could not run", "why": f"the shadow models are of other settings: {', '.join(others)}"}
    records = audited_records(project)
    inside = halves(records["group_id"], shadow["models"], params.seed)
    store = ShadowStore(project.shadow, records["record_id"])
    of = {name: {each: store.values(name, each, len(inside)) for each in STATISTICS} for name in shadow["attacks"]}
    return {"state": "ran", "why": "", "models": {name: multi_run(each, inside, delta) for name, each in of.items()}}
