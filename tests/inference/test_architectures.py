"""Whatever the architecture: scores and continuations are those of the model's own forward, or it is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertLMHeadModel

from kdleak.attacks.block_perturbation import block_mope
from kdleak.attacks.perturbation import Noise, mope
from kdleak.core.errors import KdleakError
from kdleak.data.batching import collate
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.forward import hidden_states, response_logits
from kdleak.inference.generation import Sampling, generate
from kdleak.inference.greedy import ENDED, greedy_continuations
from kdleak.inference.scoring import token_statistics
from kdleak.models.output_head import identity, output_head, output_logits
from kdleak.training.finetune import cross_entropy
from tests.support.architectures import ARCHITECTURES, WINDOW, model_of
from tests.support.tiny_models import VOCABULARY, tiny_model

EOS, NEVER = 0, VOCABULARY
K = 6
TEMPLATE = tuple(range(1, 21))


def encoded(*lengths: int) -> list[EncodedRecord]:
    """Records with prompts of these lengths, half of which begin with one template, longer than a window."""
    generator = np.random.default_rng(0)
    records = []
    for i, n in enumerate(lengths):
        prompt = tuple(generator.integers(1, VOCABULARY, n).tolist())
        prompt = TEMPLATE + prompt[len(TEMPLATE) :] if n > len(TEMPLATE) else prompt
        records.append(EncodedRecord(f"r{i}", prompt, tuple(generator.integers(1, VOCABULARY, 9).tolist()), 9))
    return records


RECORDS = encoded(40, 7, 24, 41)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return model_of(request.param)


def own_log_probs(model: nn.Module, record: EncodedRecord) -> np.ndarray:
    """(n_scored,) by the model's own forward over the whole record, fp32."""
    with torch.no_grad():
        logits = model(torch.tensor([record.prompt + record.response])).logits[0]
    log_probs = logits[len(record.prompt) - 1 : -1].log_softmax(-1)
    return log_probs.gather(-1, torch.tensor(record.response)[:, None])[:, 0].numpy()


def test_scores_are_those_of_the_models_own_forward(model):
    assert len(RECORDS[0].prompt) > 2 * WINDOW
    expected = np.concatenate([own_log_probs(model, r) for r in RECORDS])
    for max_tokens in (1, 4096):
        found = token_statistics(model, RECORDS, max_tokens=max_tokens).log_prob
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_greedy_continuations_are_those_of_generate(model):
    found = greedy_continuations(model, RECORDS, EOS, K)
    prompts = [r.prompt for r in RECORDS]
    rollouts = generate(model, prompts, Sampling(K, 128, temperature=0.0), NEVER)
    for record, row, rollout in zip(RECORDS, found.tolist(), rollouts, strict=True):
        ids = torch.tensor([record.prompt])
        with torch.inference_mode():
            tokens = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=K)
        said = tokens[0, ids.shape[1] :].tolist()
        ended = said[: said.index(EOS)] if EOS in said else said
        assert row == ended + [ENDED] * (K - len(ended))
        assert list(rollout[: len(ended)]) == ended


def test_a_pass_from_a_block_upwards_is_the_whole_pass(model):
    """With no noise nothing falls, whole or block by block; with noise something does."""
    clean = np.array([own_log_probs(model, r).mean() for r in RECORDS])
    still, noisy = Noise(0.0, 1), Noise(0.5, 1)
    for scores in [mope(model, RECORDS, still, clean=clean), *block_mope(model, RECORDS, still, clean=clean)]:
        np.testing.assert_allclose(scores.drops, 0, atol=1e-5)
    assert np.abs(mope(model, RECORDS, noisy, clean=clean).drops).min() > 1e-6


def test_the_gradient_of_the_logits_is_that_of_the_own_forward(model):
    record = RECORDS[1]
    weight = model.get_output_embeddings().weight
    own = model(torch.tensor([record.prompt + record.response[:-1]])).logits[0, len(record.prompt) - 1 :]
    (expected,) = torch.autograd.grad(own.logsumexp(-1).sum(), weight)
    (found,) = torch.autograd.grad(response_logits(model, collate([record], [0])).logsumexp(-1).sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_most_heads_have_nothing_after_them():
    assert output_head(tiny_model()).transform is identity
    scaled = {name for name in ARCHITECTURES if output_head(model_of(name)).transform is not identity}
    assert scaled == {"gemma2", "granite", "hyperclovax", "cohere", "falcon_h1"}


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "granite", "cohere"])
def test_what_follows_the_head_is_seen_in_half_precision_too(architecture):
    whole, half = model_of(architecture), model_of(architecture).to(torch.bfloat16)
    states = torch.randn(4, 32)
    expected, found = output_logits(whole, states), output_logits(half, states.to(torch.bfloat16))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.1)


def test_a_cap_is_seen_where_logits_are_small():
    model = model_of("gemma2")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1e-3)
    states = torch.full((1, 32), 1e4)
    assert output_logits(model, states).abs().max() <= 5.0


def test_a_head_whose_logits_no_known_function_explains_is_refused_by_name():
    model = tiny_model("llama")
    forward = model.forward
    model.forward = lambda *args, **options: _halved(forward(*args, **options))
    with pytest.raises(KdleakError, match=r"LlamaForCausalLM: its own logits differ by .* use another model"):
        token_statistics(model, RECORDS)


def _halved(output):
    output.logits = output.logits / 2
    return output


def test_a_model_that_reads_ahead_or_has_no_plain_head_is_refused_by_name():
    reads_ahead = BertLMHeadModel(
        BertConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    )
    with pytest.raises(KdleakError, match="BertLMHeadModel: what its head reads is not what its decoder says"):
        output_head(reads_ahead)
    headless, odd, failing = tiny_model(), tiny_model(), tiny_model()
    headless.lm_head = None
    with pytest.raises(KdleakError, match=r"GPT2LMHeadModel has no output head, kdleak needs a plain one; use another"):
        output_head(headless)
    odd.lm_head = nn.Sequential(odd.lm_head)
    with pytest.raises(KdleakError, match="GPT2LMHeadModel has a Sequential as output head"):
        output_head(odd)
    failing.forward = lambda *args, **options: 1 / 0
    with pytest.raises(KdleakError, match=r"its forward pass fails on a short text \(division by zero"):
        output_head(failing)


def test_half_precision_does_not_round_logits():
    """A constant added to all logits changes no log-prob; bf16 would round logits near -100 by up to .25."""
    model, record = model_of("phi"), RECORDS[0]
    expected = own_log_probs(model, record)
    with torch.no_grad():
        model.get_output_embeddings().bias.sub_(100.0)
    batch = collate([record], [0])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = output_logits(model, hidden_states(model, batch).float())
    assert logits.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        states = torch.randn(5, 32)
        low = output_logits(model, states).log_softmax(-1)
    torch.testing.assert_close(low, output_logits(model, states).log_softmax(-1), rtol=0, atol=1e-4)
    np.testing.assert_allclose(token_statistics(model, [record]).log_prob, expected, rtol=0, atol=1e-4)


def test_training_sees_the_logits_of_the_own_forward(model):
    """The chunked loss and its gradients are those of the cross-entropy that the model's own forward gives."""
    model.zero_grad()
    batch = collate(RECORDS, range(len(RECORDS)))
    loss = cross_entropy(model, batch)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    own = model(batch.input_ids).logits.flatten(0, 1)[batch.positions]
    expected = nn.functional.cross_entropy(own, batch.targets)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    expected.backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(found[name], p.grad, rtol=1e-3, atol=1e-4, msg=name)
    model.zero_grad()
