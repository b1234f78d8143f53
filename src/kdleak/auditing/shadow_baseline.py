"""`kdleak audit --learned`: a shadow of the student whose training data is known, for the attack `learned`.

The student's base is fine-tuned on half of the population, records that no audited model was trained on. How that moved
the log-probs of these records, and those of the other half, is what a member looks like: labels that cost nothing. It
is a student that was trained without its teacher too, and stands in for the baseline where none is given.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kdleak.attacks.registry import Tuning
from kdleak.auditing.passes import ModelRunner, Subject
from kdleak.auditing.served import ServedSubject
from kdleak.auditing.sources import PRIVATE
from kdleak.core.distributed import is_main
from kdleak.core.errors import KdleakError
from kdleak.core.files import make_private
from kdleak.core.progress import progress
from kdleak.core.seeds import derive
from kdleak.data.overlap import group_ids
from kdleak.inference.cache import content_key
from kdleak.models.checkpoints import load_model, save_checkpoint
from kdleak.models.device import resolve_device
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import cross_entropy
from kdleak.training.loop import Recipe, total_steps, train
from kdleak.training.resume import ResumeStore

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.auditing.logprob_file import Answers
    from kdleak.auditing.settings import Settings

#: Records of the population that two halves of any use can be made of.
FEWEST = 40
#: As the study's students are trained.
EPOCHS, BATCH_SIZE = 4, 8
#: A step costs a forward pass and, backwards, twice as much (Kaplan et al. 2020, arXiv 2001.08361, sec. 2.1).
_STEP = 3


@dataclass(frozen=True)
class Shadow:
    """subject: the shadow, on the lists as its base reads them. base: that base. is_member: (k,) of the population."""

    subject: Subject
    base: Subject
    is_member: np.ndarray

    def tuning(self, runner: ModelRunner) -> Tuning:
        """What the two models say of the population."""
        of, base = (runner.statistics(each, each.population, "population") for each in (self.subject, self.base))
        return Tuning(of, base, self.is_member)


def train_shadow(base: Subject | Answers | None, population: pd.DataFrame | None, settings: Settings) -> Shadow:
    """Fine-tune `base` on half of `population`; what was trained before is taken up again, and a run that was stopped
    goes on. Several processes share it. Raises KdleakError where one of the two is lacking, or too small."""
    if not isinstance(base, Subject) or isinstance(base, ServedSubject) or population is None:
        raise KdleakError("--learned: it trains --pretrained, a folder, on half of --population; give both")
    if len(population) < FEWEST:
        raise KdleakError(f"--learned: {len(population)} records of --population are too few to halve; give {FEWEST}")
    is_member = halved(population)
    records = [record for record, inside in zip(base.population, is_member, strict=True) if inside]
    model = load_model(base.folder, settings.device if settings.device != "auto" else resolve_device("auto"))
    recipe = _recipe(sum(p.numel() for p in model.parameters()))
    seed = derive(settings.seed, "shadow")
    key = content_key(base.digest, records, f"shadow, {recipe}, {seed}")
    store = settings.cache or PRIVATE
    folder = store / "shadows" / key[:32]
    make_private(store)
    if not folder.is_dir():
        _say(base, len(population), len(records))
        source = FixedBatches(records, BATCH_SIZE, seed)
        resume = ResumeStore(store / "shadows" / f"{key[:32]}.state", key)
        with progress("shadow: training", total_steps(source.steps_per_epoch, EPOCHS, None)) as advance:
            train(model, source, cross_entropy, recipe, seed=seed, resume=resume, progress=advance)
        save_checkpoint(model, base.tokenizer, folder)
        if is_main():
            resume.clear()
    return Shadow(Subject(folder, base.encoder, base.encoded, base.population), base, is_member)


def halved(population: pd.DataFrame) -> np.ndarray:
    """(k,) bool, every second group of near-duplicates, in order of their ids, which are hashes."""
    _, place = np.unique(group_ids(population).astype(str), return_inverse=True)
    return place % 2 == 0


def _recipe(parameters: int) -> Recipe:
    """The study's, at a rate for the model's size: 0.003239 - 0.0001395 log N (Kaplan et al. 2020, eq. D.1)."""
    rate = 0.003239 - 0.0001395 * float(np.log(parameters))
    return Recipe(lr=rate, epochs=EPOCHS, batch_size=BATCH_SIZE)


def _say(base: Subject, population: int, trained: int) -> None:
    """What the training costs, before it starts."""
    if not is_main():
        return
    tokens = EPOCHS * sum(len(r.prompt) + len(r.response) for r in base.population) * trained / population
    of_a_pass = sum(len(r.prompt) + len(r.response) for r in base.records)
    print(
        f"--learned: a shadow of {base.folder.name} is trained on {trained} of {population} population records, "
        f"{EPOCHS} epochs: {tokens:,.0f} tokens, the work of {_STEP * tokens / of_a_pass:.1f} passes over the lists",
        file=sys.stderr,
        flush=True,
    )
