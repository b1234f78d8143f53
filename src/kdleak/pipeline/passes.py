"""What the forward passes over one model of the pipeline gave: how measure stages keep it, and judge stages read it.

A file holds ids, log-probs and tokens of private records: it lies below data/, and is its owner's alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks.registry import Tuning
from kdleak.auditing.passes import PassResults, Subject, make_encoders, make_subjects
from kdleak.core.errors import KdleakError
from kdleak.core.files import replacing_file
from kdleak.core.variants import CONTROL, Variant
from kdleak.data.records import read_role
from kdleak.data.sides import as_sides
from kdleak.inference.cache import from_arrays, to_arrays
from kdleak.memorization.tables import Continuations

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.data.encoding import EncodedRecord
    from kdleak.inference.token_statistics import TokenStatistics

#: The models of the pipeline that are no run's: references, by their place in models/base.
BASES = ("teacher", "student", "external")
#: Fills the rows of a table of tokens.
_ENDED = -1


@dataclass(frozen=True)
class ModelPasses:
    """What all passes over one model gave.

    audited:   of the members and nonmembers.
    nll:       mean negative log-likelihood per response token of the population, nats, EOS included.
    responses: greedy responses to its prompts, token ids; of a base, none.
    canaries:  token statistics of the canaries; of a base, and of a run that is not kept, None.
    known:     token statistics of public and population, of which the no-KD student is trained on the former alone; of
               that student and its base. Others: None.
    """

    audited: PassResults
    nll: float
    responses: Sequence[Sequence[int]] = ()
    canaries: TokenStatistics | None = None
    known: TokenStatistics | None = None


def audited_records(project: Project) -> pd.DataFrame:
    """Private and heldout, as members and nonmembers, in order of record id."""
    return as_sides(read_role(project.records, "private", "heldout"))


def subject_of(folder: Path, records: pd.DataFrame, params: Params, project: Project) -> Subject:
    """The model in `folder` with the texts as its tokenizer encodes them, cut where one of the bases' would cut them:
    the text is the same for every model that is compared with another."""
    folders = {part: project.base_model(part) for part in BASES} | {"own": folder}
    encoders = make_encoders(folders, params.model.max_prompt_tokens, params.model.max_tokens)
    return make_subjects(folders, encoders, records, read_role(project.records, "population"))[0]["own"]


def reference_files(name: str | Variant, project: Project) -> dict[str, Path]:
    """The passes of the models that an attack on `name` may compare it with, by what they are to it."""
    variant = Variant.of(name)
    base = "teacher" if variant.is_teacher else "student"
    files = {"pretrained": project.base_passes(base), "external": project.base_passes("external")}
    if variant.is_distilled:
        files |= {"teacher": project.passes(variant.teacher), "no_kd": project.passes(variant.baseline)}
        files |= {"control": project.passes(CONTROL)}
    return files


def tuning_of(name: str | Variant, project: Project) -> Tuning:
    """What an attacker tunes on: the no-KD student, which it trained on public, and that student's base."""
    model, reference = (
        read_passes(path).known for path in (project.passes(Variant.of(name).baseline), project.base_passes("student"))
    )
    assert model is not None and reference is not None  # the stage measure makes both
    return Tuning(model, reference, np.isin(model.record_ids, read_role(project.records, "public")["record_id"]))


def write_passes(passes: ModelPasses, path: Path) -> None:
    """Write one safetensors file, the same bytes for the same content."""
    from safetensors.numpy import save_file

    audited = passes.audited
    tensors = {
        **_named("records", to_arrays(audited.statistics)),
        **_named("canaries", {} if passes.canaries is None else to_arrays(passes.canaries)),
        **_named("known", {} if passes.known is None else to_arrays(passes.known)),
        **_named("computed", audited.computed),
        "nll": np.array([passes.nll]),
        "responses": pad(passes.responses),
        "refused": np.frombuffer(json.dumps(dict(audited.refused), sort_keys=True).encode(), np.uint8),
    }
    for name, statistics in audited.variants.items():
        tensors |= _named(f"variants/{name}", to_arrays(statistics))
    if audited.continuations is not None:
        continued = audited.continuations
        tensors |= {"continuations/plain": continued.plain, "continuations/published": continued.published}
    with replacing_file(path) as fresh:
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, fresh)
        fresh.chmod(0o600)


def read_passes(path: Path, records: Sequence[EncodedRecord] = ()) -> ModelPasses:
    """What `write_passes` wrote. records: those that were continued, for whoever needs the continuations.

    Raises KdleakError for a file that is not there or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        statistics = from_arrays(_below("records", tensors))
        continued = _below("continuations", tensors)
        variants = dict.fromkeys(name.split("/")[1] for name in tensors if name.startswith("variants/"))
        audited = PassResults(
            statistics,
            {name: from_arrays(_below(f"variants/{name}", tensors)) for name in variants},
            _below("computed", tensors),
            Continuations(records, statistics, **continued) if continued else None,
            json.loads(tensors["refused"].tobytes()),
        )
        responses = unpad(tensors["responses"])
        canaries, known = (_statistics(place, tensors) for place in ("canaries", "known"))
        return ModelPasses(audited, tensors["nll"].item(), responses, canaries, known)
    except FileNotFoundError:
        raise KdleakError(f"{path}: no such file; run the stage that writes it ('dvc repro')") from None
    except (SafetensorError, KeyError, ValueError):
        raise KdleakError(f"{path}: damaged (not the passes of a model); delete it and run 'dvc repro'") from None


def _named(place: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{place}/{name}": tensor for name, tensor in tensors.items()}


def _below(place: str, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{place}/"): t for name, t in tensors.items() if name.startswith(f"{place}/")}


def _statistics(place: str, tensors: Mapping[str, np.ndarray]) -> TokenStatistics | None:
    arrays = _below(place, tensors)
    return from_arrays(arrays) if arrays else None


def pad(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """(n, longest) int64, each row ended by `_ENDED` where it is shorter."""
    padded = np.full((len(rows), max(map(len, rows), default=0)), _ENDED, np.int64)
    for row, tokens in zip(padded, rows, strict=True):
        row[: len(tokens)] = tokens
    return padded


def unpad(rows: np.ndarray) -> list[list[int]]:
    """The inverse of `pad`."""
    return [row[row != _ENDED].tolist() for row in rows]
