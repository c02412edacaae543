"""Methods on features in memory: equal to scikit-learn, to their formulas, and to themselves; sampling; stacking."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from pipeline.core.errors import Damaged, Mismatch, NotFound
from pipeline.learn import measure, sampling
from pipeline.maths import stacking
from pipeline.maths.zeroshot import normalise
from pipeline.models import heads
from pipeline.models.heads import Captions, Examples, TrainingData, _descent
from pipeline.models.heads._choice import Choice

from ..conftest import refused

WIDTH, SCALE = 24, 20.0


def clouds(counts, seed=0, spread=0.9) -> tuple[Examples, Captions]:
    """Unit features around a random centre per class, and captions not far from the centres."""
    generator = torch.Generator().manual_seed(99)
    centres = normalise(torch.randn(len(counts), WIDTH, generator=generator))
    captions = normalise(centres + 0.25 * torch.randn(len(counts), WIDTH, generator=generator))
    generator.manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = torch.randn(len(labels), WIDTH, generator=generator) / WIDTH**0.5
    return Examples(normalise(centres[labels] + spread * noise), labels), Captions(captions, SCALE)


def measured_above(choice, right) -> bool:
    """Whether the chosen head is at least as often right as something else."""
    return choice.measures()["acc1"] > float(right.float().mean()) - 1e-6


def fitted(method, counts=(30, 20, 10), seed=0, balance="none", spread=0.9, **arguments):
    train, captions = clouds(counts, spread=spread)
    validation, _ = clouds([12] * len(counts), seed=1, spread=spread)
    data = TrainingData(train, len(counts), captions, balance, seed)
    choice = Choice(measure.on(validation), ("macro_f1",))
    heads.fit((method, arguments or None), data, choice, "here")
    return data, validation, choice


@pytest.mark.parametrize("counts", [(30, 20, 10), (30, 12)])
@pytest.mark.parametrize("balance", ["none", "weights"])
def test_linear_probe_is_scikit_learns(counts, balance):
    data, validation, choice = fitted("linear_probe", counts, balance=balance, C=10.0)
    weight = "balanced" if balance == "weights" else None
    reference = LogisticRegression(C=10.0, max_iter=1000, class_weight=weight)
    reference.fit(data.train.features.numpy(), data.train.labels.numpy())
    expected = reference.predict_proba(validation.features.numpy())
    np.testing.assert_allclose(choice.head().probs(validation.features), expected, atol=1e-5)


def test_the_sweep_ends_at_a_peak_of_an_eighth_of_a_decade():
    _, _, choice = fitted("linear_probe", spread=3.0)
    scores = {round(float(np.log10(one["C"])), 3): (one["macro_f1"], -one["loss"]) for one in choice.history}
    best = round(float(np.log10(choice.setting()["C"])), 3)
    assert set(range(-2, 7, 2)) <= set(scores) and len(scores) == len(choice.history) <= 15
    assert scores[best] == max(scores.values())
    assert {best - 0.125, best + 0.125} <= set(scores)


def test_the_refit_of_a_chosen_probe_does_not_collapse():
    """C of 1e-6 was chosen on balanced classes; with the validation images' other frequencies all became one class."""
    data, validation, choice = fitted("linear_probe", (30, 30, 30), spread=3.0)
    more = validation.take(torch.arange(len(validation.labels)) % 12 < 1 + 5 * validation.labels)
    both = TrainingData(
        type(more)(torch.cat([data.train.features, more.features]), torch.cat([data.train.labels, more.labels])),
        3,
        data.captions,
    )
    again = Choice(measure.on(validation), ("macro_f1",))
    again.settings = [choice.setting()]
    heads.fit(("linear_probe", None), both, again, "here")
    assert again.head().probs(validation.features).argmax(dim=1).unique().numel() == 3


def test_a_class_without_an_image_is_never_predicted():
    train, captions = clouds([9, 9, 9])
    data = TrainingData(train.take(train.labels != 1), 3, captions)
    choice = Choice(measure.on(train), ("acc1",))
    heads.fit(("linear_probe", {"C": 1.0}), data, choice, "here")
    assert 1 not in choice.head().probs(train.features).argmax(dim=1)


def test_tip_adapter_is_its_formula():
    data, validation, choice = fitted("tip_adapter", alpha=1.7, beta=4.2)
    keys, labels, captions = data.train.features, data.train.labels, data.captions.features
    for number in range(5):
        f = validation.features[number]
        expected = SCALE * (captions @ f)
        for key, label in zip(keys, labels, strict=True):
            expected[label] += 1.7 * torch.exp(-4.2 * (1 - key @ f))
        torch.testing.assert_close(choice.head()(f[None])[0], expected, rtol=1e-4, atol=1e-4)


def test_tip_adapter_without_its_cache_is_zero_shot():
    _, validation, choice = fitted("tip_adapter", alpha=0.0, beta=1.0)
    _, captions = clouds([1, 1, 1])
    expected = (SCALE * validation.features @ captions.features.T).softmax(dim=1)
    torch.testing.assert_close(choice.head().probs(validation.features), expected)


def test_clip_adapter_is_its_formula():
    _, validation, choice = fitted("clip_adapter", ratio=0.3, epochs=3)
    head, f = choice.head(), validation.features
    first, second = head.adapter[0].weight, head.adapter[2].weight
    adapted = 0.3 * torch.relu(torch.relu(f @ first.T) @ second.T) + 0.7 * f
    expected = SCALE * (adapted / adapted.norm(dim=1, keepdim=True)) @ head.captions.T
    torch.testing.assert_close(head(f), expected)


@pytest.mark.parametrize("method", ["mlp", "clip_adapter", "cosine", "tip_adapter", "tip_adapter_f", "linear_probe"])
def test_every_method_learns_and_keeps_the_state_it_measured(method):
    data, validation, choice = fitted(method)
    zero_shot = (data.captions.features @ validation.features.T).argmax(dim=0)
    assert choice.measures()["acc1"] >= 0.8 and measured_above(choice, zero_shot == validation.labels)
    losses = [state["train_loss"] for state in choice.history if "train_loss" in state]
    assert not losses or losses[-1] < losses[0]
    again = measure.of(choice.head(), validation)
    assert again == pytest.approx(choice.measures(), abs=1e-6)
    assert choice.measures()["macro_f1"] == max(state["macro_f1"] for state in choice.history)


def test_training_stops_when_validation_no_longer_gets_better():
    _, _, choice = fitted("mlp", patience=4, epochs=100)
    best = choice.setting()["epoch"]
    scores = [state["macro_f1"] for state in choice.history]
    assert len(scores) < 100 and best - 1 >= scores.index(max(scores)) == len(scores) - 5


def test_the_contrastive_cosine_head_differs_from_the_pulling_one():
    pulling, contrastive = (fitted("cosine", loss=loss, epochs=5)[2].history[-1] for loss in ("cosine", "contrastive"))
    assert 0 < pulling["train_loss"] < 1 and pulling["train_loss"] != contrastive["train_loss"]


@pytest.mark.parametrize("method", heads.METHODS)
def test_a_seed_decides_every_byte(method, tmp_path):
    def written(seed: int) -> str:
        torch.rand(seed + 3)  # what others drew before does not matter
        _, _, choice = fitted(method, seed=seed, balance="none")
        heads.save(tmp_path / "head.safetensors", method, choice.head(), ("a", "b", "c"))
        return hashlib.blake2b((tmp_path / "head.safetensors").read_bytes()).hexdigest()

    assert written(0) == written(0)


def test_a_saved_head_gives_the_same_probabilities(tmp_path):
    for method in heads.METHODS:
        _, validation, choice = fitted(method)
        head = heads.with_bias(choice.head(), torch.tensor([True, False, True]), 0.7)
        heads.save(tmp_path / f"{method}.safetensors", method, head, ("a", "b", "c"))
        again = heads.load(tmp_path / f"{method}.safetensors", "here")
        assert torch.equal(again.probs(validation.features), head.probs(validation.features))
        assert heads.describe(tmp_path / f"{method}.safetensors", "here")["class_names"] == ["a", "b", "c"]


def test_damaged_and_absent_heads_are_told(tmp_path):
    with refused(NotFound, "here", "none.safetensors"):
        heads.describe(tmp_path / "none.safetensors", "here")
    (tmp_path / "head.safetensors").write_bytes(b"\x00" * 40)
    with refused(Damaged, "here", "head.safetensors"):
        heads.describe(tmp_path / "head.safetensors", "here")


def test_columns_by_name():
    assert heads.columns(["sea", "Forest", "street"], ("Street", "forest", "Sea"), "x") == [2, 1, 0]
    with refused(Mismatch, "['Glacier']", "['street']"):
        heads.columns(["sea", "street"], ("Sea", "Glacier"), "x")


def test_unknown_methods_and_arguments():
    train, captions = clouds([3, 3])
    with refused(NotFound, "'tip-adapter'", "Did you mean 'tip_adapter'"):
        heads.fit(("tip-adapter", None), TrainingData(train, 2), None, "here")
    with refused(NotFound, "mlp", "'epoch'", "Did you mean 'epochs'"):
        heads.fit(("mlp", {"epoch": 3}), TrainingData(train, 2), None, "here")
    with refused(Mismatch, "tip_adapter", "linear_probe, mlp"):
        heads.fit(("tip_adapter", None), TrainingData(train, 2), None, "here")
    other = Captions(captions.features[:, :5], 1.0)
    with refused(Mismatch, "tip_adapter", "cosine"):
        heads.fit(("tip_adapter", None), TrainingData(train, 2, other), None, "here")


def test_balanced_sampling_really_rebalances():
    train, _ = clouds([900, 90, 10])
    torch.manual_seed(0)
    rows = _descent.balanced_rows(TrainingData(train, 3, balance="sampling"))
    counts = torch.bincount(train.labels[rows]) / len(rows)
    assert len(rows) == 1000 and counts.min() > 0.29
    assert len(set(rows.tolist())) < len(rows), "with replacement, or it could not"
    torch.manual_seed(0)
    plain = torch.cat(_descent.batches(TrainingData(train, 3), 64))
    assert sorted(plain.tolist()) == list(range(1000))


def test_class_weights_make_classes_count_the_same():
    train, _ = clouds([90, 9, 1])
    data = TrainingData(train, 4, balance="weights")
    weights = data.class_weights
    assert weights[3] == 0 and torch.allclose(weights[:3] * data.counts[:3], torch.tensor(100 / 3))


def test_no_batch_of_one():
    train, _ = clouds([33, 32])
    assert [len(rows) for rows in _descent.batches(TrainingData(train, 2), 64)] == [65]


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 3))
def test_validation_images_are_a_share_of_each_class(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    held = sampling.held_out(labels, 0.25, seed)
    for label, count in enumerate(counts):
        assert held[labels == label].sum() == max(round(count / 4), min(1, count - 1))
    assert np.array_equal(held, sampling.held_out(labels, 0.25, seed))


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(1, 40))
def test_k_shots(counts, k):
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = sampling.shots(labels, k, 0)
    assert np.bincount(labels[rows]).tolist() == [k] * len(counts)
    for label, count in enumerate(counts):
        own = rows[labels[rows] == label]
        assert len(set(own)) == min(k, count), "no image comes twice before every one came once"
    assert set(rows) <= set(sampling.shots(labels, 2 * k, 0))


@given(st.integers(0, 10_000))
def test_the_curve_is_that_of_every_bias(seed):
    random = np.random.default_rng(seed)
    logits, truth = random.normal(size=(40, 5)), np.concatenate([np.arange(5), random.integers(0, 5, 35)])
    seen = np.array([True, False, True, True, False])
    curve = stacking.curve(logits, truth, seen)
    for bias in (-9.0, -1.0, 0.0, 0.37, 2.0, 9.0, curve.best):
        right = (logits - bias * seen).argmax(axis=1) == truth
        expected = [np.mean([right[truth == c].mean() for c in np.flatnonzero(group)]) for group in (seen, ~seen)]
        assert curve.at(bias)[:2] == pytest.approx(expected)
    assert curve.at(curve.best)[2] == pytest.approx(curve.harmonic.max())
    assert curve.unseen[0] == 0 and curve.seen[-1] == 0 and 0 <= curve.area <= 1


def test_area_and_harmonic_mean():
    logits = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert stacking.curve(logits, np.array([0, 1]), np.array([True, False])).area == 1.0
    assert stacking.harmonic_mean(0.0, 0.0) == 0 and stacking.harmonic_mean(0.5, 1.0) == pytest.approx(2 / 3)
