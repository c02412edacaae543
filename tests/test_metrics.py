import math

import numpy as np
import pytest

from pipeline import metrics


def test_accuracy_and_flips():
    assert metrics.accuracy([0, 1, 2, 2], [0, 1, 1, 2]) == 0.75
    assert metrics.flips([0, 1, 1, 1], [0, 2, 2, 0]) == {(1, 2): 2, (1, 0): 1}


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
