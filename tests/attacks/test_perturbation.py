"""Claims on MoPe: its definition, weights untouched, blocks equal to full passes, bounded memory, an honest error."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdleak.attacks import block_perturbation, perturbation
from kdleak.attacks.block_perturbation import block_mope
from kdleak.attacks.likelihood import mean_log_prob
from kdleak.attacks.perturbation import Noise, PerturbationScores, mope, perturbed, shifts
from kdleak.core.errors import KdleakError
from kdleak.inference.block_forward import transformer_blocks
from kdleak.inference.scoring import token_statistics
from kdleak.stats import auc
from tests.support.architectures import model_of
from tests.support.tiny_models import FAMILIES, random_records, tiny_model

RECORDS = random_records(9)


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_mope_equals_a_plain_loop_over_perturbed_copies(family):
    noise = Noise(sigma=0.05, draws=2, relative=False, seed=3)
    found = mope(tiny_model(family), RECORDS, noise, max_tokens=150)
    clean = mean_log_prob(token_statistics(tiny_model(family), RECORDS))
    for draw in range(2):
        falls = []
        for sign in (1, -1):
            copy = tiny_model(family)
            names = {id(p): name for name, p in copy.named_parameters()}
            for i, block in enumerate(transformer_blocks(copy)):
                names |= {id(p): f"block.{i}.{name}" for name, p in block.named_parameters()}
            for p in copy.parameters():
                seed = perturbation._seed(3, draw, names[id(p)])
                shift = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
                p.data += sign * 0.05 * shift
            falls.append(clean - mean_log_prob(token_statistics(copy, RECORDS)))
        np.testing.assert_allclose(found.drops[draw], np.mean(falls, 0), rtol=1e-4, atol=1e-5)


def templated(records):
    """The same behind two templates of twenty tokens, but for the first."""
    templates = [tuple(range(k, k + 20)) for k in (1, 30)]
    return [r if not i else replace(r, prompt=templates[i % 2] + r.prompt) for i, r in enumerate(records)]


@pytest.mark.parametrize("architecture", [*FAMILIES, "mistral", "qwen3_moe", "mamba"])
@pytest.mark.parametrize("antithetic", [True, False])
def test_block_scores_equal_full_passes_with_that_block_perturbed(architecture, antithetic):
    """Whether prompts share a template or not, and where a layer keeps no key of it for ever (mistral's window)."""
    model = tiny_model(architecture) if architecture in FAMILIES else model_of(architecture)
    noise = Noise(sigma=0.3, draws=2, antithetic=antithetic, seed=1)
    for records in (RECORDS, templated(RECORDS)):
        check_blocks(model, records, noise)


def check_blocks(model, records, noise):
    found = block_mope(model, records, noise, max_tokens=150)
    clean = mean_log_prob(token_statistics(model, records))
    assert len(found) == len(transformer_blocks(model)) == 3
    for index, block in enumerate(transformer_blocks(model)):
        weights = [(f"block.{index}.{name}", p) for name, p in block.named_parameters()]
        for draw in range(noise.draws):
            falls = []
            for sign in noise.signs:
                with perturbed(weights, shifts(weights, noise, draw), sign):
                    falls.append(clean - mean_log_prob(token_statistics(model, records)))
            np.testing.assert_allclose(found[index].drops[draw], np.mean(falls, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_bit_for_bit(dtype):
    model = tiny_model().to(dtype)
    before = weights_of(model)
    noise = Noise(sigma=0.1, draws=2)
    mope(model, RECORDS, noise)
    block_mope(model, RECORDS, noise)
    weights = list(model.named_parameters())
    with pytest.raises(ZeroDivisionError), perturbed(weights, shifts(weights, noise, 0), 1):
        assert not torch.equal(model.transformer.wte.weight, before["transformer.wte.weight"])
        raise ZeroDivisionError
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_scores_do_not_depend_on_batches_shards_or_known_likelihoods():
    model, noise = tiny_model(), Noise(sigma=0.1, draws=2)
    clean = mean_log_prob(token_statistics(model, RECORDS))
    whole, parts = mope(model, RECORDS, noise), mope(model, RECORDS, noise, clean=clean, max_tokens=1)
    np.testing.assert_allclose(whole.scores, parts.scores, atol=1e-5)
    whole = block_mope(model, RECORDS, noise)
    parts = block_mope(model, RECORDS, noise, clean=clean, max_tokens=60, cache_bytes=1)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_the_cache_of_hidden_states_keeps_its_bound():
    records = random_records(40)
    for shard in block_perturbation._shards(records, 200, 500):
        sizes = [len(b) * max(len(records[i].prompt) + len(records[i].response) for i in b) for b in shard]
        assert sum(sizes) <= 500
    covered = [i for shard in block_perturbation._shards(records, 200, 500) for b in shard for i in b]
    assert sorted(covered) == list(range(40))


def test_the_same_seed_gives_the_same_scores_and_another_seed_others():
    model = tiny_model()
    first, again, other = (mope(model, RECORDS, Noise(sigma=0.1, draws=1, seed=s)).scores for s in (0, 0, 1))
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_relative_noise_follows_the_scale_of_the_block():
    """A block whose matrices are three times as large gets noise three times as large."""
    block = [("w", torch.nn.Parameter(torch.randn(50, 40))), ("b", torch.nn.Parameter(torch.zeros(40)))]
    noise = Noise(sigma=0.1, draws=1)
    moved = []
    for scale in (1.0, 3.0):
        with torch.no_grad():
            block[0][1].mul_(scale)
        before = [p.detach().clone() for _, p in block]
        with perturbed(block, shifts(block, noise, 0), 1):
            moved.append([(p - b).detach() for (_, p), b in zip(block, before, strict=True)])
    rms = float(before[0].square().mean().sqrt())
    assert float(moved[1][0].std()) == pytest.approx(0.1 * rms, rel=0.05)
    for small, large in zip(*moved, strict=True):
        torch.testing.assert_close(large, 3 * small, rtol=1e-3, atol=1e-5)


def test_antithetic_pairs_buy_variance():
    """At equal passes, scores from pairs scatter less over seeds than scores from single draws."""
    model = tiny_model()
    single = [mope(model, RECORDS, Noise(0.02, draws=4, antithetic=False, seed=s)).scores for s in range(8)]
    paired = [mope(model, RECORDS, Noise(0.02, draws=2, seed=s)).scores for s in range(8)]
    assert np.std(paired, 0).mean() < 0.5 * np.std(single, 0).mean()


def test_the_reported_errors_are_those_over_repeated_audits():
    generator, is_member = np.random.default_rng(0), np.arange(200) < 100
    signal = is_member * 0.5 + generator.normal(size=200)
    runs = [PerturbationScores(signal + 2 * generator.normal(size=(8, 200))) for _ in range(200)]
    assert np.mean([r.standard_errors.mean() for r in runs]) == pytest.approx(2 / np.sqrt(8), rel=0.1)
    areas = [auc(r.scores[is_member], r.scores[~is_member]).value for r in runs]
    assert np.mean([r.auc_error(is_member) for r in runs]) == pytest.approx(np.std(areas), rel=0.3)
    assert np.isnan(PerturbationScores(np.ones((1, 4))).auc_error(np.array([True, False, True, False])))


def test_the_published_noise_is_absolute_single_draws():
    """What the study's code adds: sigma .01 to students, .005 to the teacher and the no-KD student, ten times."""
    student, teacher = Noise.as_published(distilled=True, seed=4), Noise.as_published(distilled=False)
    assert (student.sigma, teacher.sigma, student.draws, student.signs, student.seed) == (0.01, 0.005, 10, (1,), 4)
    weights = [("w", torch.nn.Parameter(10 * torch.randn(200, 200)))]
    (shift,) = shifts(weights, student, 0)
    assert float(shift.std()) == pytest.approx(0.01, rel=0.02)


def test_an_unknown_architecture_is_named():
    class Strange(torch.nn.Module):
        base_model_prefix = "body"
        body = torch.nn.Linear(1, 1)

    with pytest.raises(KdleakError, match="Linear: its list of transformer blocks"):
        transformer_blocks(Strange())
