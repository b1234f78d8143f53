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
from kdleak.defend.registry import Acts, Fitting
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.families import load_family
from kdleak.models.hub import model_folder
from kdleak.models.lora import merged, read_lora, with_lora
from kdleak.models.vocabulary import trimmed, vocabulary_size
from kdleak.training.run import run_training, training_seed

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def fine_tune_teacher(params: Params, project: Project, name: str | Variant = TEACHER) -> None:
    """Write the checkpoint of the teacher that `name` stands for, and its training.json.

    A defence of params.yaml that acts on the teacher says how it is trained. Of teacher.epochs 0 it is not trained but
    taken over from the family; the control's is its base then, which has seen no member either.

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
    own, planted = _data(variant, project), planted_rows(read_parquet(project.canaries))
    records = encoder.encode_frame(own) + encoder.encode_frame(planted)

    def record_tokens() -> float:
        public = encoder.encode_frame(read_role(project.records, "public"))
        return sum(len(r.response) for r in public) / len(public)

    defence = acting(params, Acts.TEACHER)
    groups = {
        "near-duplicates": int(own["group_id"].value_counts().max()),
        "planted canaries": int(planted["repetitions"].max()) if len(planted) else 0,
    }
    seed = training_seed(params, TEACHER)
    fitting = Fitting(load_model(base), records, params.teacher, seed, groups, record_tokens, lora=read_lora(base))
    fitting = defence.teacher(fitting)
    model = with_lora(fitting.model, fitting.lora, derive(params.seed, "lora/teacher"))
    history = run_training(
        model,
        records,
        fitting.objective,
        fitting.training,
        params,
        name=TEACHER,
        state=project.resume(variant),
        identity=() if defence.acts_on is None else (repr(defence),),
        source=fitting.batches,
        optimizer=fitting.optimizer,
        rule=fitting.rule,
    )
    save_checkpoint(merged(model), tokenizer, project.model(variant))
    counts = {"records": len(records) - len(planted), "canary_rows": len(planted)}
    write_json({"history": history, **counts, **defence.described(fitting.spent)}, project.training(variant))


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


def _data(variant: Variant, project: Project) -> pd.DataFrame:
    """What the teacher is fine-tuned on, by record id."""
    private = read_role(project.records, "private")
    return read_role(project.records, "auxiliary").head(len(private)) if variant.control else private
