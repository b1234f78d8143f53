"""The teacher stage: supervised fine-tuning on private, the members, and on the canaries planted beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_parquet, write_json
from kdleak.core.seeds import derive
from kdleak.core.variants import TEACHER, Variant
from kdleak.data.canaries import planted_rows
from kdleak.data.encoding import Encoder
from kdleak.data.records import read_role
from kdleak.defend.choice import acting
from kdleak.defend.registry import Acts, Defence, Fitting, shard_folder
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.families import load_family
from kdleak.models.hub import model_folder
from kdleak.models.lora import merged, read_lora, with_lora
from kdleak.models.vocabulary import trimmed, vocabulary_size
from kdleak.pipeline.taught import taught_rows
from kdleak.training.run import run_training, training_seed

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def fine_tune_teacher(params: Params, project: Project, name: str | Variant = TEACHER) -> None:
    """Write the checkpoint of the teacher that `name` stands for, and its training.json.

    A defence of params.yaml that acts on the teacher says how it is trained, and on how many shards of the records one
    teacher each; the first is the checkpoint, whose history training.json has, and the others stand in its folder.
    Of teacher.epochs 0 it is not trained but taken over from the family; the control's is its base then, which has seen
    no member either.

    The control's is fine-tuned on as many auxiliary records as private has, and on the same canaries: same base, same
    recipe, as many steps, and no member. Auxiliary, not population: it is large enough, of the same domain by hash, and
    population stays out of every training. The bases have seen it once, which no member and no non-member has.
    """
    variant, base = Variant.of(name), project.base_teacher
    if params.teacher.epochs == 0 and not variant.control:
        _take_over(params, project)
        return
    tokenizer = load_tokenizer(base)
    encoder = Encoder(tokenizer, params.model.max_prompt_tokens, params.model.max_tokens)
    own, planted = taught_rows(variant, project), planted_rows(read_parquet(project.canaries))
    records = encoder.encode_frame(own) + encoder.encode_frame(planted)

    def record_tokens() -> float:
        public = encoder.encode_frame(read_role(project.records, "public"))
        return sum(len(r.response) for r in public) / len(public)

    defence = acting(params, Acts.TEACHER, Acts.ENSEMBLE)
    groups = {
        "near-duplicates": int(own["group_id"].value_counts().max()),
        "planted canaries": int(planted["repetitions"].max()) if len(planted) else 0,
    }
    seed = training_seed(params, TEACHER)
    shards = defence.shards([*own["group_id"].astype(str), *planted["record_id"]])
    trained = []
    for number in range(max(shards) + 1):
        part = [record for record, shard in zip(records, shards, strict=True) if shard == number]
        fitting = Fitting(load_model(base), part, params.teacher, seed, groups, record_tokens, lora=read_lora(base))
        fitting, state = defence.teacher(fitting), project.resume(variant)
        state = state.with_name(f"{state.name}-shard-{number}") if number else state
        model, history = _train(fitting, defence, params, state)
        save_checkpoint(model, tokenizer, shard_folder(project.model(variant), number))
        trained.append((history, fitting.spent))
    (history, spent), counts = trained[0], {"records": len(records) - len(planted), "canary_rows": len(planted)}
    write_json({"history": history, **counts, **defence.described(spent)}, project.training(variant))


def _train(fitting: Fitting, defence: Defence, params: Params, state: Path) -> tuple[PreTrainedModel, list[dict]]:
    """The fine-tuned model, adapters merged, and its history."""
    model = with_lora(fitting.model, fitting.lora, derive(params.seed, "lora/teacher"))
    history = run_training(
        model,
        fitting.records,
        fitting.objective,
        fitting.training,
        params,
        name=TEACHER,
        state=state,
        identity=() if defence.acts_on is None else (repr(defence),),
        source=fitting.batches,
        optimizer=fitting.optimizer,
        rule=fitting.rule,
    )
    return merged(model), history


def _take_over(params: Params, project: Project) -> None:
    """Write the checkpoint of the teacher that was fine-tuned elsewhere (an adapter merged), and a training.json that
    says so. KdleakError where it has another vocabulary than the base that it was fine-tuned from."""
    origin = load_family(project.families, params.model.family).fine_tuned
    assert origin is not None and origin.hub is not None  # kdleak.pipeline.validate has refused a family without
    source = model_folder(origin.hub, origin.revision)
    tokenizer, base = load_tokenizer(source), load_tokenizer(project.base_teacher)
    if tokenizer.get_vocab() != base.get_vocab():
        raise KdleakError(
            f"fine_tuned {origin} has another vocabulary than its family's teacher; name the base that it was "
            "fine-tuned from as teacher in families.yaml"
        )
    model = trimmed(load_model(source), vocabulary_size(project.base_teacher))
    save_checkpoint(model, tokenizer, project.model(TEACHER))
    write_json({"history": [], "records": 0, "canary_rows": 0}, project.training(TEACHER))
