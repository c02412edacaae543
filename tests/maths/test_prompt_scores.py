"""ZPE and CARPRT against plain loops, and what must not change them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.maths import prompt_scores
from pipeline.maths.prompt_scores import carprt, zpe

seeds = st.integers(0, 2**31)
both = pytest.mark.parametrize("method", [zpe, carprt])


def case(seed: int, images: int = 9, classes: int = 3, templates: int = 4, own: int = 2):
    """Logits (N, P): every class has the templates, and `own` sentences that no other class has."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(templates + own)
    names = [*(f"{t} {{}}" for t in range(templates)), *[""] * own] * classes
    logits = 3 * torch.randn(images, len(labels), generator=generator)
    return logits, labels, names, generator


def weigh(method, logits, labels, names, given=None, split=4):
    given = torch.ones(len(labels)) if given is None else given
    return prompt_scores.weights(method, lambda: logits.split(split), labels, names, given, int(labels.max()) + 1)


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


@given(seeds)
def test_zpe_of_shared_templates_is_the_papers_formula(seed):
    logits, labels, names, _ = case(seed, own=0)
    columns = {(int(c), t): p for p, (c, t) in enumerate(zip(labels, names, strict=True))}
    scores = []
    for t in names[:4]:
        mean = [sum(row[columns[c, t]].item() for row in logits) / len(logits) for c in range(3)]
        top = [max(row[columns[c, t]].item() - mean[c] for c in range(3)) for row in logits]
        scores.append(sum(top) / len(top))
    expected = [4 * w for w in softmax(scores)] * 3
    assert weigh(zpe, logits, labels, names).tolist() == pytest.approx(expected, abs=1e-5)


@given(seeds)
def test_carprt_of_shared_templates_is_the_papers_formula(seed):
    logits, labels, names, _ = case(seed, images=30, own=0)
    found = weigh(carprt, logits, labels, names).tolist()
    for c in range(3):
        scores = []
        for t in names[:4]:
            classifier = [next(p for p in range(12) if labels[p] == k and names[p] == t) for k in range(3)]
            said = [row[classifier].argmax().item() for row in logits]
            own = [row[classifier[c]].item() for row, label in zip(logits, said, strict=True) if label == c]
            scores.append(sum(own) / len(own) if own else math.nan)
        known = [s for s in scores if not math.isnan(s)]
        scores = [min(known) if math.isnan(s) else s for s in scores]
        assert found[4 * c : 4 * c + 4] == pytest.approx([4 * w for w in softmax(scores)], abs=1e-5)


@both
@given(seeds)
def test_order_and_shards_change_nothing(method, seed):
    logits, labels, names, generator = case(seed)
    before = logits.clone()
    plain = weigh(method, logits, labels, names)
    images, columns = torch.randperm(9, generator=generator), torch.randperm(len(names), generator=generator)
    renamed = torch.randperm(3, generator=generator)
    torch.testing.assert_close(weigh(method, logits[images], labels, names, split=2), plain)
    shuffled = weigh(method, logits[:, columns], renamed[labels[columns]], [names[p] for p in columns])
    torch.testing.assert_close(shuffled, plain[columns])
    assert torch.equal(logits, before)


@both
@given(seeds)
def test_weights_are_positive_and_1_on_average_in_each_class(method, seed):
    logits, labels, names, _ = case(seed)
    weights = weigh(method, logits, labels, names)
    assert (weights > 0).all()
    for c in range(3):
        assert weights[labels == c].mean().item() == pytest.approx(1)


@both
def test_a_prompt_left_out_has_no_influence(method):
    logits, labels, names, _ = case(5)
    given_weights = torch.ones(len(labels))
    given_weights[3] = 0
    weights = weigh(method, logits, labels, names, given_weights)
    assert weights[3] == 0
    kept = [p for p in range(len(labels)) if p != 3]
    alone = weigh(method, logits[:, kept], labels[kept], [names[p] for p in kept])
    torch.testing.assert_close(weights[kept], alone)


@both
def test_one_image_and_one_prompt_per_class_are_enough(method):
    logits = torch.tensor([[3.0, 1.0, 2.0]])
    assert weigh(method, logits, torch.arange(3), ["{}"] * 3).tolist() == [1, 1, 1]
    assert weigh(method, logits, torch.arange(3), [""] * 3).tolist() == [1, 1, 1]


@both
def test_a_prompt_that_fits_its_class_weighs_more(method):
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(60) % 3
    labels = torch.arange(3).repeat_interleave(4)
    strength = torch.tensor([4.0, 1.0, 4.0, 1.0]).repeat(3)  # two templates and two sentences of its own
    logits = torch.randn(60, 12, generator=generator) + strength * (truth[:, None] == labels)
    weights = weigh(method, logits, labels, ["a {}", "b {}", "", ""] * 3)
    for c in range(3):
        good, bad, own_good, own_bad = weights[labels == c].tolist()
        assert min(good, own_good) > 2 * max(bad, own_bad)
        assert own_good == pytest.approx(good, rel=0.8)
