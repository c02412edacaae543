"""Grids, random parts of them, and distances in them."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.labelled.sweep.grid import Grid, neighbours, simplex

SPACE = Grid({"pooling": ("mean", "max"), "weights": tuple(simplex(2, 4)), "threshold": (0.0, 0.001, 0.01)})


@given(st.integers(1, 4), st.integers(1, 7))
def test_the_simplex_is_every_way_to_share_1(parts, steps):
    points = simplex(parts, steps)
    assert len(points) == len(set(points)) == comb(steps + parts - 1, parts - 1)
    for point in points:
        assert sum(point) == pytest.approx(1)
        assert all(value >= 0 and value * steps == pytest.approx(round(value * steps)) for value in point)


def test_the_last_key_varies_fastest():
    grid = SPACE.candidates()
    assert len(grid) == len(set(grid)) == SPACE.size == 30
    assert grid[:4] == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)]
    assert SPACE.of((1, 4, 2)) == {"pooling": "max", "weights": (1.0, 0.0), "threshold": 0.01}


@given(st.integers(1, 40), st.integers(0, 5))
def test_a_random_part_is_a_seeded_part_of_the_grid_in_its_order(most, seed):
    part, grid = SPACE.candidates(most, seed), SPACE.candidates()
    assert len(part) == min(most, 30)
    assert part == sorted(set(part))
    assert set(part) <= set(grid)
    assert part == SPACE.candidates(most, seed)


def test_another_seed_draws_others():
    assert SPACE.candidates(5, 0) != SPACE.candidates(5, 1)


def test_neighbours_differ_in_little():
    grid = SPACE.candidates()
    near = list(neighbours(grid, SPACE, 2))
    assert all(number not in others and len(others) == 2 for number, others in enumerate(near))
    assert [grid[n] for n in near[grid.index((0, 2, 0))]] == [(0, 2, 1), (0, 1, 0)]
    assert [len(others) for others in neighbours(grid[:1], SPACE, 2)] == [0]
