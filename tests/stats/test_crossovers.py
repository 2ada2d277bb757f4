import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats
from tests.stats import coverage

GRID = np.array([0.0, 10.0, 20.0, 30.0, 40.0])


def lines(*crossings, slope=0.1):
    """Curves that cross a flat one at the given times: one a seed."""
    first = {seed: (GRID, slope * (GRID - crossing)) for seed, crossing in enumerate(crossings)}
    return first, dict.fromkeys(first, (GRID, 0 * GRID))


@given(st.floats(11, 39), st.floats(0.01, 10))
@settings(max_examples=30, deadline=None)
def test_crossover_of_shifted_lines_is_where_they_cross(crossing, slope):
    first, second = lines(crossing, slope=slope)
    found = stats.crossover(first, second, resamples=10)
    assert (found.winner, found.from_start, found.interval, found.probability) == (0, False, None, None)
    assert found.position == pytest.approx(crossing)


def test_crossover_of_parallel_leads_has_the_t_interval_of_their_crossings():
    crossings = (23, 24, 25, 26, 27)
    found = stats.crossover(*lines(*crossings), resamples=40_000)
    assert found.position == pytest.approx(25)
    assert found.interval == pytest.approx(stats.mean_interval(crossings).interval, abs=0.05)
    assert found.probability > 0.99
    assert found == stats.crossover(*lines(*crossings), resamples=40_000)


@pytest.mark.parametrize("seeds", [3, 5])
def test_crossover_intervals_cover_what_they_promise(seeds):
    ours, plain = coverage.crossover_coverage(seeds, 400)
    assert 91 < ours < 98.5
    assert plain < 90


def test_crossover_turns_round_with_its_sides_and_with_the_metric():
    first, second = lines(23, 25, 29)
    forward, backward = stats.crossover(first, second), stats.crossover(second, first)
    assert (forward.winner, backward.winner) == (0, 1)
    assert (forward.position, forward.interval, forward.probability) == (
        backward.position,
        backward.interval,
        backward.probability,
    )
    assert stats.crossover(first, second, higher_is_better=False).winner == 1


def test_a_leader_from_the_start_crosses_nothing():
    found = stats.crossover(*lines(5))
    assert found.from_start
    assert found.position == found.start == 10  # the untrained point does not count


def test_the_last_crossing_counts():
    quality = np.array([0.0, 1.0, -1.0, 1.0, 1.0])
    found = stats.crossover({0: (GRID, quality)}, {0: (GRID, 0 * GRID)})
    assert found.position == pytest.approx(25)


def test_curves_that_end_level_have_no_winner():
    assert stats.crossover(*lines(40.0)).winner is None
    assert stats.crossover({0: (GRID, GRID)}, {1: (GRID, GRID)}) is None


def test_an_unsure_winner_has_an_open_interval():
    found = stats.crossover(*lines(15, 20, 60))  # the third seed never crosses
    assert found.winner == 0
    assert math.isinf(found.interval.high)
    assert found.probability < 0.9


def test_curves_may_have_other_positions():
    steps = np.array([0.0, 7.0, 40.0])
    found = stats.crossover({0: (GRID, GRID)}, {0: (steps, 0 * steps + 25)})
    assert found.position == pytest.approx(25)


def test_a_broken_curve_is_refused():
    with pytest.raises(ValueError, match="strictly increasing"):
        stats.crossover({0: ([0, 2, 1], [1, 2, 3])}, {0: ([0, 1], [1, 2])})
