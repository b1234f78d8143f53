"""A pruned model is the blocks that are kept, one on the other, of any family."""

import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json
from kdleak.inference.block_forward import transformer_blocks
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.prune import pruned
from kdleak.pipeline.base import make_bases
from tests.models.test_families import params, project_with
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import FAMILIES, tiny_model

IDS = torch.tensor([[5, 3, 17, 80, 2]])


def by_hand(model, keep):
    """The logits of `model` when the blocks that are not kept hand on what they are given."""

    def idle(forward):
        def handed_on(states, *arguments, **options):
            made = forward(states, *arguments, **options)
            return (states, *made[1:]) if isinstance(made, tuple) else states

        return handed_on

    for index, block in enumerate(transformer_blocks(model)):
        if index not in keep:
            block.forward = idle(block.forward)
    return model(IDS).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_model_is_the_model_whose_other_blocks_do_nothing(family):
    model, keep = tiny_model(family, layers=4), [0, 1, 3]
    smaller = pruned(model, keep)
    assert len(transformer_blocks(smaller)) == smaller.config.num_hidden_layers == 3
    torch.testing.assert_close(smaller(IDS).logits, by_hand(model, keep), rtol=0, atol=1e-5)


def test_all_blocks_kept_are_the_model_and_its_weights_are_its_own():
    model = tiny_model("llama")
    same = pruned(model, [0, 1, 2])
    assert torch.equal(same(IDS).logits, model(IDS).logits)
    with torch.no_grad():
        next(same.parameters()).zero_()
    assert next(model.parameters()).abs().sum() > 0


def test_a_block_that_is_not_there_is_named():
    with pytest.raises(KdleakError, match=r"prune.keep: no block 3; a GPT2LMHeadModel of 3 has 0 to 2"):
        pruned(tiny_model("gpt2"), [0, 3])


def family_with(teacher, prune):
    external = {"scratch": {"model_type": "opt", "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16,
                            "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 512}}  # fmt: skip
    student = {"prune": prune}
    return {"tokenizer": {"vocab_size": 300}, "teacher": teacher, "students": {"small": student}, "external": external}


@pytest.mark.parametrize("role", [None, "public", "auxiliary"])
def test_a_pruned_student_is_made_of_its_teachers_base_and_healed(role, tmp_path):
    tokenizer = tokenizer_of(people(48, 4))
    teacher = tiny_model("llama", layers=3, vocabulary=len(tokenizer), positions=512)
    save_checkpoint(teacher, tokenizer, tmp_path / "hub")
    heal = None if role is None else {"role": role, "lr": 0.01, "epochs": 1, "batch_size": 4}
    family = family_with({"hub": str(tmp_path / "hub")}, {"keep": [0, 2], "heal": heal})
    project = project_with(tmp_path, {"mine": family})
    make_bases(params(**{"model.family": "mine"}), project)
    student, expected = load_model(project.base_student), pruned(teacher, [0, 2])
    assert load_tokenizer(project.base_student).get_vocab() == tokenizer.get_vocab()
    same = all(torch.equal(a, b) for a, b in zip(student.parameters(), expected.parameters(), strict=True))
    assert same is (role is None)
    training = read_json(project.base_training("student"))
    assert training["records"] == {None: 0, "public": 12, "auxiliary": 6}[role]
    assert len(training["history"]) == (role is not None)


def test_a_teacher_that_is_pretrained_here_can_be_pruned_too(tmp_path):
    scratch = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 512}
    project = project_with(tmp_path, {"mine": family_with({"scratch": scratch}, {"keep": [1]})})
    make_bases(params(**{"model.family": "mine"}), project)
    teacher, student = load_model(project.base_teacher), load_model(project.base_student)
    assert student.config.n_layer == 1
    assert torch.equal(student.transformer.h[0].mlp.c_fc.weight, teacher.transformer.h[1].mlp.c_fc.weight)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"students": {"small": {"prune": {"keep": [1, 0]}}}}, "keep: blocks must stand in order, each once"),
        ({"teacher": {"prune": {"keep": [0]}}}, "prune: of students alone; give teacher and external another origin"),
        ({"teacher": {"hub": ".", "prune": {"keep": [0]}}}, "give one of scratch, hub, package and prune"),
        ({"fine_tuned": {"scratch": {"model_type": "gpt2"}}}, "fine_tuned: needs hub, a local folder or a model id"),
    ],
)
def test_what_is_no_family_is_refused(change, said, tmp_path):
    project = project_with(tmp_path, {"mine": family_with({"hub": "."}, {"keep": [0]}) | change})
    with pytest.raises(KdleakError, match=said):
        make_bases(params(**{"model.family": "mine"}), project)
