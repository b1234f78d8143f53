"""The membership stage: one pass over members and non-members for the model and each reference, then every attack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.artifacts import replacing_file, write_csv, write_parquet
from kdleak.audit.attacks import AttackInput, attack_scores
from kdleak.audit.cache import ArrayCache, StatisticsCache, content_key, model_digest
from kdleak.audit.membership import membership_report, to_json
from kdleak.audit.scoring import token_statistics
from kdleak.audit.statistics import roc_curve
from kdleak.data.encoding import Encoder
from kdleak.data.records import read_role
from kdleak.models.checkpoints import load_model, load_tokenizer
from kdleak.paths import TEACHER
from kdleak.progress import progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

    from kdleak.audit.token_statistics import TokenStatistics
    from kdleak.config import Params
    from kdleak.data.encoding import EncodedRecord
    from kdleak.paths import Project


def attack_model(name: str, params: Params, project: Project) -> None:
    """Write scores.parquet, membership.json and roc.csv of `teacher`, or of the student that `name` made."""
    records = read_role(project.records, "private", "heldout")
    base = project.base_teacher if name == TEACHER else project.base_student
    given = AttackInput(
        target=_statistics(project.model(name), records, params, project),
        references={"pretrained": _statistics(base, records, params, project)},
        texts=list(records["response"]),
    )
    scores = records[["record_id", "role", "task"]].assign(**attack_scores(given, params.audit.attacks))
    report = to_json(membership_report(scores))
    write_parquet(scores, project.scores(name))
    write_csv(roc_table(scores, params.audit.attacks), project.roc(name))
    with replacing_file(project.membership(name)) as fresh:
        fresh.write_text(report, encoding="utf-8")


def _statistics(folder: Path, records: pd.DataFrame, params: Params, project: Project) -> TokenStatistics:
    """Token statistics of `records` under the model in `folder`, from the cache where it was scored before."""
    limits = (params.model.max_prompt_tokens, params.model.max_tokens)
    encoded = Encoder(load_tokenizer(folder), *limits).encode_frame(records)
    return cached_statistics(folder, encoded, params.audit.batch_tokens, StatisticsCache(ArrayCache(project.cache)))


def cached_statistics(
    folder: Path, records: Sequence[EncodedRecord], batch_tokens: int, cache: StatisticsCache
) -> TokenStatistics:
    """Statistics of `records` under the model in `folder`; a forward pass only where the cache has none."""

    def compute() -> TokenStatistics:
        model = load_model(folder)
        with progress(f"scoring with {folder.name}") as show:
            done = 0

            def count(n: int) -> None:
                nonlocal done
                done += n
                show(done, len(records), {})

            return token_statistics(model, records, max_tokens=batch_tokens, progress=count)

    return cache.get_or_compute(content_key(model_digest(folder), records), compute)


def roc_table(scores: pd.DataFrame, attacks: Sequence[str]) -> pd.DataFrame:
    """Columns attack, fpr, tpr: the curve of every attack, at its distinct thresholds."""
    import pandas as pd

    member = (scores["role"] == "private").to_numpy()
    curves = []
    for name in attacks:
        values = scores[name].to_numpy()
        fpr, tpr = roc_curve(_defined(values[member]), _defined(values[~member]))
        curves.append(pd.DataFrame({"attack": name, "fpr": fpr.round(6), "tpr": tpr.round(6)}))
    return pd.concat(curves, ignore_index=True)


def _defined(values: np.ndarray) -> np.ndarray:
    return values[values == values]
