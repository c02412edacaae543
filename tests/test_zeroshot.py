"""Properties of the maths; shapes as in zeroshot.py."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import zeroshot

seeds = st.integers(0, 2**31)


def random_case(seed: int, classes: int = 4, most: int = 6):
    """Probabilities (N, P) over unequal numbers of prompts per class, and what the columns are."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, most + 1, (classes,), generator=generator).tolist()
    prompt_class = torch.tensor([label for label, count in enumerate(counts) for _ in range(count)])
    probs = torch.rand(7, len(prompt_class), generator=generator).softmax(dim=1)
    return probs, prompt_class, torch.ones(len(prompt_class)), generator


@given(seeds, st.sampled_from(["mean", "median", "max"]))
def test_pooling_does_not_depend_on_the_order_of_prompts(seed, how):
    probs, prompt_class, weight, generator = random_case(seed)
    order = torch.randperm(len(prompt_class), generator=generator)
    pooled = zeroshot.pool(probs, prompt_class, weight, 4, how)
    shuffled = zeroshot.pool(probs[:, order], prompt_class[order], weight, 4, how)
    torch.testing.assert_close(pooled, shuffled)


@given(seeds, st.sampled_from(["mean", "median", "max"]))
def test_permuting_classes_permutes_the_pooled_columns(seed, how):
    probs, prompt_class, weight, generator = random_case(seed)
    renamed = torch.randperm(4, generator=generator)
    pooled = zeroshot.pool(probs, prompt_class, weight, 4, how)
    torch.testing.assert_close(zeroshot.pool(probs, renamed[prompt_class], weight, 4, how)[:, renamed], pooled)


@given(seeds)
def test_pooling_equals_plain_loops_with_unequal_prompt_counts(seed):
    probs, prompt_class, weight, _ = random_case(seed)
    for how, function in {
        "mean": lambda x: sum(x) / len(x),
        "max": max,
        "median": lambda x: (sorted(x)[(len(x) - 1) // 2] + sorted(x)[len(x) // 2]) / 2,
    }.items():
        pooled = zeroshot.pool(probs, prompt_class, weight, 4, how)
        for n in range(len(probs)):
            for label in range(4):
                own = [probs[n, p].item() for p in range(len(prompt_class)) if prompt_class[p] == label]
                assert pooled[n, label].item() == pytest.approx(function(own), abs=1e-6)


def test_equal_counts_equal_the_notebooks_reshape():
    probs, _, weight, _ = random_case(1, most=1)
    probs = torch.rand(7, 12)
    prompt_class = torch.arange(4).repeat_interleave(3)
    pooled = zeroshot.pool(probs, prompt_class, torch.ones(12), 4, "mean")
    torch.testing.assert_close(pooled, probs.reshape(7, 4, 3).mean(dim=-1))


@given(seeds, st.floats(0.01, 100))
def test_only_ratios_of_weights_matter(seed, factor):
    first, *_ = random_case(seed)
    second, *_ = random_case(seed)
    blended = zeroshot.blend([first, second.flip(0)], [0.3, 0.7])
    torch.testing.assert_close(zeroshot.blend([first, second.flip(0)], [0.3 * factor, 0.7 * factor]), blended)


@given(seeds, st.floats(0.01, 100))
def test_a_blend_of_one_is_that_one(seed, weight):
    probs, *_ = random_case(seed)
    assert torch.equal(zeroshot.blend([probs], [weight]), probs)


@given(seeds)
def test_threshold_zero_is_identity(seed):
    probs, *_ = random_case(seed)
    assert torch.equal(zeroshot.threshold(probs, 0.0), probs)


def test_threshold_is_strict_and_does_not_renormalise():
    probs = torch.tensor([[0.002, 0.0020001, 0.5, 0.0]])
    assert zeroshot.threshold(probs, probs[0, 0].item()).tolist()[0] == [0.0, probs[0, 1].item(), 0.5, 0.0]


@given(seeds)
@settings(max_examples=30)
def test_prompt_probs_is_a_joint_softmax(seed):
    generator = torch.Generator().manual_seed(seed)
    images = zeroshot.normalise(torch.randn(5, 8, generator=generator))
    texts = zeroshot.normalise(torch.randn(9, 8, generator=generator))
    probs = zeroshot.prompt_probs(images, texts, 100.0)
    expected = torch.stack([torch.softmax(100 * torch.stack([i @ t for t in texts]), dim=0) for i in images])
    torch.testing.assert_close(probs, expected, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(5))


def test_a_weight_counts_as_that_many_equal_prompts():
    probs = torch.tensor([[0.1, 0.2, 0.7]])
    weighted = zeroshot.pool(probs, torch.tensor([0, 0, 1]), torch.tensor([3.0, 1.0, 1.0]), 2, "mean")
    torch.testing.assert_close(weighted, torch.tensor([[0.125, 0.7]]))


def test_a_weight_of_zero_leaves_a_prompt_out():
    probs = torch.tensor([[0.1, 0.9, 0.2, 0.3]])
    for how in ("mean", "median", "max"):
        pooled = zeroshot.pool(probs, torch.tensor([0, 0, 0, 1]), torch.tensor([1.0, 0.0, 1.0, 1.0]), 2, how)
        expected = zeroshot.pool(probs[:, [0, 2, 3]], torch.tensor([0, 0, 1]), torch.ones(3), 2, how)
        torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize("how", ["median", "max"])
def test_unequal_weights_need_the_mean(how):
    with pytest.raises(ValueError, match="prompt weights need pooling 'mean'"):
        zeroshot.pool(torch.rand(2, 2), torch.tensor([0, 1]), torch.tensor([1.0, 2.0]), 2, how)
