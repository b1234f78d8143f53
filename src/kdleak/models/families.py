"""Model families: where the weights of a teacher and its students come from."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdleak.core.errors import KdleakError, brief, nearest
from kdleak.core.yaml_file import read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Setting = str | int | float | bool | None


class Origin(_Entry):
    """Where one model comes from: built from `scratch` (a Transformers configuration), or `hub`: a model id at a
    `revision`, or a local folder in hub layout. params: settings of params.yaml that go with it, by dotted key."""

    scratch: dict[str, Any] | None = None
    hub: str | None = None
    revision: str | None = None
    params: dict[str, Setting] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_origin(self) -> Origin:
        if (self.scratch is None) == (self.hub is None):
            raise ValueError("give either scratch or hub")
        if self.scratch is not None and "model_type" not in self.scratch:
            raise ValueError("scratch needs model_type")
        if self.hub is not None and self.revision is None and not Path(expanduser(self.hub)).is_dir():
            raise ValueError(f"hub: '{self.hub}' is no folder here, and as a hub id it needs a revision")
        return self

    def __str__(self) -> str:
        return f"a new {self.scratch['model_type']}" if self.scratch else f"{self.hub}@{(self.revision or '')[:8]}"


class TokenizerSpec(_Entry):
    """A byte-level BPE to train on auxiliary."""

    vocab_size: Annotated[int, Field(ge=257 + 1)]


class Lora(_Entry):
    """Low-rank adapters (Hu et al. 2022, arXiv 2106.09685): rank r, scale alpha / r, on the named projections."""

    r: Annotated[int, Field(ge=1)]
    alpha: Annotated[int, Field(ge=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[list[str], Field(min_length=1)]


class Family(_Entry):
    """One entry of families.yaml."""

    tokenizer: TokenizerSpec | None = None
    lora: Lora | None = None
    params: dict[str, Setting] = Field(default_factory=dict)
    teacher: Origin
    external: Origin
    students: Annotated[dict[str, Origin], Field(min_length=1)]

    @model_validator(mode="after")
    def _scratch_needs_tokenizer(self) -> Family:
        origins = [self.teacher, self.external, *self.students.values()]
        if any(o.scratch is not None for o in origins) and self.tokenizer is None:
            raise ValueError("models built from scratch need tokenizer.vocab_size")
        return self

    def student(self, size: str) -> Origin:
        """The student of that size; KdleakError names the nearest one there is."""
        if size not in self.students:
            raise KdleakError(f"model.student: unknown size '{size}'; {nearest(size, self.students)}")
        return self.students[size]

    def settings(self, size: str) -> dict[str, Setting]:
        """The settings of params.yaml that go with this family and that size, by dotted key."""
        return self.params | self.student(size).params


def load_family(path: Path, name: str) -> Family:
    """Read and validate the entry `name` of families.yaml."""
    entries = read_yaml(path, f"'git checkout {path}' brings it back")
    if not isinstance(entries, dict):
        raise KdleakError(f"{path}: must hold families by name; 'git checkout {path}' brings it back")
    if name not in entries:
        raise KdleakError(f"model.family: '{name}' is not in {path}; {nearest(name, entries)}")
    try:
        return Family.model_validate(entries[name])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        raise KdleakError(f"{path}: {where}: {first['msg']}") from None


def build_from_scratch(spec: dict[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A freshly initialised causal LM whose vocabulary and special tokens are the tokenizer's."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {k: v for k, v in spec.items() if k != "model_type"}
    ids = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    try:
        config = AutoConfig.for_model(spec["model_type"], vocab_size=len(tokenizer), pad_token_id=None, **ids, **fields)
    except ValueError as error:
        raise KdleakError(
            f"families.yaml: cannot build a '{spec['model_type']}' ({brief(error)}); "
            "give the fields of its Transformers configuration"
        ) from None
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)
