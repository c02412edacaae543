import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.maths import metrics, stacking


def test_accuracy():
    assert metrics.accuracy([0, 1, 2, 2], [0, 1, 1, 2]) == 0.75


def test_log_loss_is_that_of_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    shares = np.random.default_rng(0).dirichlet([0.3] * 4, 50)
    shares[0] = [1, 0, 0, 0]
    truth = [1, *np.random.default_rng(1).integers(0, 4, 49)]
    expected = sklearn_metrics.log_loss(truth, shares, labels=range(4))
    assert metrics.log_loss(shares, truth) == pytest.approx(expected, rel=1e-12)


def test_mean_average_precision_is_that_of_scikit_learn():
    """With one true label of each image it is the precision at its place."""
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    values = np.random.default_rng(0).random((50, 4))
    truth = np.random.default_rng(1).integers(0, 4, 50)
    order = (-values).argsort(axis=1)
    expected = sklearn_metrics.label_ranking_average_precision_score(np.eye(4)[truth], values)
    assert metrics.mean_average_precision(order, truth) == pytest.approx(expected, rel=1e-12)
    assert metrics.mean_average_precision([[2, 0], [1, 0], [3, 1]], [0, 1, 2]) == pytest.approx(0.5)


def test_noise_of_the_board_in_the_seed_competition():
    assert metrics.accuracy_noise(0.92024, 4050) == pytest.approx(0.0043, abs=1e-4)


def test_difference_noise_is_that_of_simulated_submissions():
    """Two equally good submissions differing in 200 of 8,100 rows, scored on random halves."""
    rng = np.random.default_rng(0)
    gain = np.zeros(8100)
    gain[:200] = np.repeat([1, -1], 100)
    differences = [gain[rng.permutation(8100)[:4050]].sum() / 4050 for _ in range(2000)]
    bound = metrics.difference_noise(200, 8100, 4050)
    assert np.std(differences) <= bound
    assert np.std(differences) > bound / 2
    assert metrics.difference_noise(0, 8100, 4050) == 0
    assert metrics.difference_noise(4, 8, 8) == pytest.approx(math.sqrt(4) / 8)


@st.composite
def measured(draw) -> metrics.Predictions:
    """Predictions for 1 to 40 images of up to 7 classes, not all of which need occur."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    rows, classes = draw(st.integers(1, 40)), draw(st.integers(2, 7))
    probs = rng.dirichlet(np.full(classes, 0.3), rows)
    top = np.argsort(-probs, axis=1)[:, :5]
    return metrics.Predictions(rng.integers(0, classes, rows), top, probs.max(axis=1), classes)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@given(measured(), st.integers(0, 2**31))
def test_scores_equal_scikit_learns(predictions, seed):
    """Also of a bootstrap resample, written out as repeated rows."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    counts = next(metrics.resamples(len(predictions.truth), 1, seed))
    rows = np.repeat(np.arange(len(counts)), counts)
    for given_counts, index in ((None, slice(None)), (counts, rows)):
        truth, said = predictions.truth[index], predictions.top[index, 0]
        scores = metrics.scores(predictions, given_counts)
        assert tuple(scores) == metrics.SCORES
        assert scores["acc1"] == pytest.approx(accuracy_score(truth, said))
        assert scores["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro", zero_division=0))
        assert scores["mean_per_class_recall"] == pytest.approx(balanced_accuracy_score(truth, said))


@given(measured())
def test_measures_by_class_equal_scikit_learns(predictions):
    """Pages show these, and their means are the ones of a benchmark, also where a class is absent."""
    from sklearn.metrics import precision_recall_fscore_support

    truth, said, classes = predictions.truth, predictions.top[:, 0], predictions.classes
    found = metrics.ByClass.of(truth, said, classes)
    expected = precision_recall_fscore_support(truth, said, labels=range(classes), zero_division=0)
    for one, other in zip((found.precision, found.recall, found.f1, found.true), expected, strict=True):
        np.testing.assert_allclose(one, other)
    scores = metrics.scores(predictions)
    assert (scores["macro_f1"], scores["mean_per_class_recall"]) == (found.macro_f1, found.mean_recall)
    assert stacking.class_accuracy(predictions.right, truth) == pytest.approx(found.mean_recall)


@given(measured())
def test_calibration_equals_scikit_learns(predictions):
    from sklearn.calibration import calibration_curve

    found = metrics.Calibration.of(predictions.right, predictions.confidence)
    right, confidence = calibration_curve(predictions.right, predictions.confidence, n_bins=metrics.ECE_BINS)
    full = found.images > 0
    np.testing.assert_allclose(found.right[full] / found.images[full], right)
    np.testing.assert_allclose(found.confidence[full] / found.images[full], confidence)


def test_the_interval_of_a_mean_is_scipys():
    from scipy.stats import sem, t

    values = [0.71, 0.74, 0.69, 0.75]
    assert metrics.mean_interval(values)[1:] == pytest.approx(t.interval(0.95, 3, np.mean(values), sem(values)))
    assert metrics.mean_interval([0.5]) == (0.5, 0.5, 0.5)


def test_acc5_equals_scikit_learns():
    from sklearn.metrics import top_k_accuracy_score

    rng = np.random.default_rng(0)
    probs, truth = rng.dirichlet(np.ones(9), 200), rng.integers(0, 9, 200)
    predictions = metrics.Predictions(truth, np.argsort(-probs, axis=1)[:, :5], probs.max(axis=1), 9)
    expected = top_k_accuracy_score(truth, probs, k=5, labels=range(9))
    assert metrics.scores(predictions)["acc5"] == pytest.approx(expected)


@given(measured())
def test_calibration_error_equals_its_definition(predictions):
    error = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [n for n, c in enumerate(predictions.confidence) if low <= c < high or (number == 14 and c == 1)]
        if inside:
            sure = np.mean([predictions.confidence[n] for n in inside])
            right = np.mean([predictions.right[n] for n in inside])
            error += len(inside) / len(predictions.truth) * abs(right - sure)
    assert metrics.scores(predictions)["ece"] == pytest.approx(error, abs=1e-9)


def test_intervals_cover_the_true_accuracy_about_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        top = np.where(rng.random(150) < 0.7, 0, 1)[:, None]
        low, high = metrics.intervals(metrics.Predictions(np.zeros(150, int), top, np.ones(150), 2), 200)["acc1"][1:]
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_paired_difference_is_surer_than_its_parts():
    before = np.arange(400) % 3 > 0
    after = before | (np.arange(400) % 40 == 0)
    value, low, high = metrics.difference(after, before)
    assert value == pytest.approx((after.sum() - before.sum()) / 400)
    assert 0 < low < value < high < 0.03
    assert metrics.difference(after, after) == (0, 0, 0)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_mcnemar_equals_the_binomial_test(only_a, only_b, both):
    from scipy.stats import binomtest

    right_a = np.repeat([True, False, True], [only_a, only_b, both])
    right_b = np.repeat([False, True, True], [only_a, only_b, both])
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert metrics.mcnemar(right_a, right_b) == pytest.approx(expected)
