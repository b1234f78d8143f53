"""Model families: where the weights of a teacher and its students come from."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdleak.config.schema import Training
from kdleak.core.errors import KdleakError, brief, nearest
from kdleak.core.yaml_file import read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Setting = str | int | float | bool | None


class Package(_Entry):
    """A model that a Python package carries: the wheel of `name` and `version` whose sha256 is pinned, and the GGUF
    `file` in it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9][A-Za-z0-9.!+_-]*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    file: Annotated[str, Field(min_length=1)]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Heal(Training):
    """What mends a pruned model before use: a language-modelling loss on all texts of `role`, in which no member
    is in."""

    role: Literal["public", "auxiliary"]


class Prune(_Entry):
    """The blocks of the family's teacher that are kept, counted from 0 at the bottom; embeddings, final norm and head
    stay. heal: how they are trained to do without the others; None: not at all."""

    keep: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    heal: Heal | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Prune:
        if sorted(set(self.keep)) != self.keep:
            raise ValueError("keep: blocks must stand in order, each once")
        return self


class Origin(_Entry):
    """Where one model comes from, one of:

    scratch: built from the fields of a Transformers configuration, and pretrained on auxiliary.
    hub:     a model id at a `revision`, or a local folder in hub layout.
    package: what a Python package carries.
    prune:   some blocks of the family's teacher; of students alone.

    params: settings of params.yaml that go with it, by dotted key.
    """

    scratch: dict[str, Any] | None = None
    hub: str | None = None
    revision: str | None = None
    package: Package | None = None
    prune: Prune | None = None
    params: dict[str, Setting] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_origin(self) -> Origin:
        if sum(origin is not None for origin in (self.scratch, self.hub, self.package, self.prune)) != 1:
            raise ValueError("give one of scratch, hub, package and prune")
        if self.scratch is not None and "model_type" not in self.scratch:
            raise ValueError("scratch needs model_type")
        if self.hub is not None and self.revision is None and self.folder is None:
            queued = " (queued experiments need an absolute path)"
            raise ValueError(f"hub: '{self.hub}' is no folder here{queued}, and as a hub id it needs a revision")
        return self

    @property
    def folder(self) -> Path | None:
        """The local folder that `hub` names; None where it names none."""
        path = None if self.hub is None else Path(expanduser(self.hub))
        return path if path is not None and path.is_dir() else None

    def __str__(self) -> str:
        if self.scratch is not None:
            return f"a new {self.scratch['model_type']}"
        if self.prune is not None:
            return f"{len(self.prune.keep)} blocks of the teacher"
        return str(self.package) if self.package is not None else f"{self.hub}@{(self.revision or '')[:8]}"


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
    """One entry of families.yaml. fine_tuned: of teacher.epochs 0, the teacher as it was fine-tuned on the private
    records elsewhere, from `teacher`: a folder or a hub id."""

    tokenizer: TokenizerSpec | None = None
    lora: Lora | None = None
    params: dict[str, Setting] = Field(default_factory=dict)
    teacher: Origin
    external: Origin
    fine_tuned: Origin | None = None
    students: Annotated[dict[str, Origin], Field(min_length=1)]

    @model_validator(mode="after")
    def _scratch_needs_tokenizer(self) -> Family:
        origins = [self.teacher, self.external, *self.students.values()]
        if any(o.scratch is not None for o in origins) and self.tokenizer is None:
            raise ValueError("models built from scratch need tokenizer.vocab_size")
        if self.teacher.prune is not None or self.external.prune is not None:
            raise ValueError("prune: of students alone; give teacher and external another origin")
        if self.fine_tuned is not None and self.fine_tuned.hub is None:
            raise ValueError("fine_tuned: needs hub, a local folder or a model id")
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
