"""Properties of the maths; shapes as in zeroshot.py."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.maths import zeroshot

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


@pytest.mark.parametrize("how", ["mean", "max", "median"])
def test_pooling_gives_the_same_bits_however_the_table_lies(how):
    probs, labels = torch.rand(50, 9), torch.arange(9) % 3
    by_column = probs.T.contiguous().T
    uneven = torch.arange(9.0) if how == "mean" else torch.ones(9)
    for weights in (torch.ones(9), torch.tensor([0.0, 1, 1] + [1] * 6), uneven):
        rows, columns = (zeroshot.pool(table, labels, weights, 3, how) for table in (probs, by_column))
        assert torch.equal(rows, columns)
    for wrong in (torch.nan, torch.inf):
        assert zeroshot.all_finite(by_column)
        by_column[7, 3] = wrong
        assert not zeroshot.all_finite(by_column)
        by_column[7, 3] = 0


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


@given(seeds, st.sampled_from(["mean", "median", "max"]))
def test_class_probs_are_the_pooled_ones_with_rows_that_sum_to_1(seed, how):
    probs, prompt_class, weight, _ = random_case(seed)
    pooled = zeroshot.pool(probs, prompt_class, weight, 4, how)
    shared = zeroshot.class_probs(probs, prompt_class, weight, 4, how)
    torch.testing.assert_close(shared.sum(dim=1), torch.ones(7))
    torch.testing.assert_close(shared, pooled / pooled.sum(dim=1, keepdim=True))


@given(seeds, st.sampled_from(["mean", "median", "max"]))
def test_pooled_logits_can_be_had_from_probabilities(seed, how):
    _, prompt_class, weight, generator = random_case(seed)
    logits = 20 * torch.rand(7, len(prompt_class), generator=generator)
    expected = zeroshot.pool(logits, prompt_class, weight, 4, how).softmax(dim=1)
    found = zeroshot.class_probs(logits.softmax(dim=1), prompt_class, weight, 4, f"logit_{how}")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@given(seeds, st.integers(1, 5))
def test_confident_views_equal_plain_loops(seed, keep):
    probs = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(seed)).mul(4).softmax(dim=2)
    found = zeroshot.confident_views(probs, keep)
    for n in range(3):
        entropy = [-sum(p * p.log() for p in probs[n, v]).item() for v in range(5)]
        kept = sorted(range(5), key=lambda v: entropy[v])[:keep]
        torch.testing.assert_close(found[n], torch.stack([probs[n, v] for v in kept]).mean(dim=0))
    torch.testing.assert_close(zeroshot.confident_views(probs, 5), probs.mean(dim=1))


def test_a_view_that_is_certain_has_no_entropy():
    probs = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    assert torch.equal(zeroshot.confident_views(probs, 1), torch.tensor([[1.0, 0.0]]))


@given(seeds, st.floats(0.05, 20))
def test_tempering_equals_the_softmax_of_scaled_logits(seed, temperature):
    logits = 3 * torch.randn(7, 9, generator=torch.Generator().manual_seed(seed))
    probs = logits.softmax(dim=1)
    before = probs.clone()
    torch.testing.assert_close(zeroshot.temper(probs, temperature), (logits / temperature).softmax(dim=1))
    assert torch.equal(probs, before)
    assert torch.equal(zeroshot.temper(probs, 1.0), probs)


@given(seeds, st.floats(0.1, 10))
def test_the_matching_temperature_undoes_a_scale(seed, scale):
    logits = 3 * torch.randn(30, 9, generator=torch.Generator().manual_seed(seed))
    calls = []

    def confidence(temperature: float) -> float:
        calls.append(temperature)
        return zeroshot.temper((scale * logits).softmax(dim=1), temperature).amax(dim=1).double().mean().item()

    target = logits.softmax(dim=1).amax(dim=1).double().mean().item()
    assert zeroshot.matching_temperature(confidence, target) == pytest.approx(scale, rel=1e-3)
    assert len(calls) <= 20


def test_a_confidence_that_no_temperature_gives_ends_at_the_last_one():
    assert zeroshot.matching_temperature(lambda _: 0.25, 0.5) == pytest.approx(1 / 256)
    assert zeroshot.matching_temperature(lambda _: 0.25, 0.1) == pytest.approx(256)
    assert zeroshot.matching_temperature(lambda _: 0.25, 0.25) == 1


@given(seeds, st.floats(0.01, 0.99))
def test_a_blend_of_logarithms_is_the_weighted_geometric_mean(seed, weight):
    first, *_ = random_case(seed)
    second = first.roll(1, dims=0)
    copies = first.clone(), second.clone()
    blended = zeroshot.blend([first, second], [weight, 1 - weight], "log")
    product = first**weight * second ** (1 - weight)
    torch.testing.assert_close(blended, product / product.sum(dim=1, keepdim=True))
    torch.testing.assert_close(zeroshot.blend([second, first], [1 - weight, weight], "log"), blended)
    torch.testing.assert_close(zeroshot.blend([first, first], [weight, 1 - weight], "log"), first)
    torch.testing.assert_close(zeroshot.blend([first], [weight], "log"), first)
    assert torch.equal(first, copies[0])
    assert torch.equal(second, copies[1])


def test_a_blend_of_logarithms_bears_zeros():
    blended = zeroshot.blend([torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0.5, 0.0, 0.5]])], [1, 1], "log")
    assert blended.isfinite().all()
    assert blended.sum() == pytest.approx(1)


@given(seeds, st.sampled_from(["mean", "median", "max", "logit_mean"]), st.booleans())
def test_labels_without_each_prompt_equal_pooling_without_it(seed, how, weighted):
    probs, prompt_class, weight, generator = random_case(seed)
    if how != "logit_mean":
        probs[0] = 0  # as a threshold leaves a row
    if weighted and how.endswith("mean"):
        weight = torch.rand(len(weight), generator=generator) + 0.1
    before = probs.clone()
    scores, without = zeroshot.scores_without_each(probs, prompt_class, weight, 4, how)
    labels = zeroshot.labels_without_each(scores, without, prompt_class)
    assert torch.equal(probs, before)
    for p in range(len(weight)):
        left = weight.clone()
        left[p] = 0
        if not left[prompt_class == prompt_class[p]].any():
            left = weight
        naive = zeroshot.class_scores(probs.double(), prompt_class, left, 4, how)
        torch.testing.assert_close(without[:, p], naive[:, prompt_class[p]], rtol=1e-6, atol=1e-9)
        assert (labels[:, p] == naive.argmax(dim=1)).all()


def test_a_prompt_of_weight_0_is_not_missed():
    probs, prompt_class, weight, _ = random_case(3)
    weight[(prompt_class == prompt_class.mode().values).nonzero()[0]] = 0
    scores, without = zeroshot.scores_without_each(probs, prompt_class, weight, 4, "mean")
    off = weight == 0
    assert torch.equal(without[:, off], scores[:, prompt_class[off]])


@pytest.mark.parametrize("space", zeroshot.SPACES)
def test_every_space_keeps_one_member_and_knows_no_order(space):
    first, second = torch.rand(2, 5, 7).softmax(dim=-1)
    torch.testing.assert_close(zeroshot.blend([first], [3.0], space), first)
    blended = zeroshot.blend([first, second], [0.3, 0.7], space)
    torch.testing.assert_close(zeroshot.blend([second, first], [0.7, 0.3], space), blended)
