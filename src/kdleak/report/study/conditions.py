"""What a study's verdicts are conditional on, read from its parameters and from how each student was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE
from kdleak.render.palette import label
from kdleak.render.wording import listed

if TYPE_CHECKING:
    from kdleak.report.study.results import Model, Study


def conditions(study: Study, runs: int) -> list[str]:
    """What holds of every finding of a study that rests on `runs` trainings of each student."""
    params, sizes = study.params, study.params.data.sizes
    seeds = sorted({run.seed for run in study.trials if run.seed is not None} | {params.seed})
    trained = (
        f"one training of the teacher and of each student, seed {params.seed}: another may differ by more than the "
        "intervals, which are over records"
    )
    if runs > 1:
        trained = f"{'' if runs == len(seeds) else 'at least '}{runs} trainings of each student, of seeds "
        trained += f"{listed([str(seed) for seed in seeds])}, by one teacher and beside one no-KD student: another "
        trained += "teacher may differ by more than the intervals, which are over students and over records"
    return [
        trained,
        f"{params.model.family}, student {params.model.student}",
        f"this corpus: {params.data.source}, {sizes.private} members and {sizes.heldout} non-members",
    ]


def recipe_conditions(models: Mapping[str, Model], grid: str = "the controlled grid") -> list[str]:
    """On which grid these were compared: `grid`, where they are equal in start, epochs, learning rate and LM loss, or
    what they differ in beside the technique."""
    trained = {name: model.training for name, model in models.items() if model.training}
    differ = []
    starts = {name: training.get("starts_from", "base") for name, training in trained.items()}
    if len(set(starts.values())) > 1:
        from_baseline = [label(name) for name, start in starts.items() if start == BASELINE]
        differ.append(f"{listed(from_baseline)} {_verb(from_baseline, 'start')} from the no-KD student")
    with_lm = [label(name) for name in trained if _lm_loss(models[name])]
    if with_lm and len(with_lm) < len(trained):
        differ.append(f"{listed(with_lm)} {_verb(with_lm, 'add')} an LM loss")
    for key, words in (("epochs", "epochs"), ("steps", "steps"), ("lr", "learning rates")):
        if len({training.get(key) for training in trained.values()}) > 1:
            differ.append(f"{words} differ")
    if not trained:
        return []
    if differ:
        return [f"the recipes as their papers define them: {'; '.join(differ)}"]
    return [f"{grid}: equal start, epochs, learning rate and LM loss"]


def _lm_loss(model: Model) -> bool:
    training = model.training or {}
    weight = training.get("lm_weight", training.get("options", {}).get("lm_weight"))
    return bool(weight) and training.get("corpus_records", 1) > 0


def _verb(subjects: Sequence[str], verb: str) -> str:
    return verb if len(subjects) > 1 else f"{verb}s"
