import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions

from bench import stats
from bench.errors import UserError
from tests.stats import coverage


def test_detectable_difference_is_found_as_often_as_promised():
    draws = np.random.default_rng(0).normal(0, 1, (6000, 5))
    # known scatter 1: what 5 pairs can detect is 1.682 standard deviations (G*Power, exact)
    spread = np.array([-1.0, -1.0, 0.0, 1.0, 1.0])
    shift = stats.detectable_difference(spread) / spread.std(ddof=1)
    assert shift == pytest.approx(1.682, abs=2e-3)
    shifted = draws + shift
    t = shifted.mean(1) / (shifted.std(1, ddof=1) / math.sqrt(5))
    assert np.mean(np.abs(t) > distributions.t.ppf(0.975, 4)) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("number", [2, 3, 10, 40, 200])
def test_detectable_difference_exists_at_every_number_of_pairs(number):
    assert stats.detectable_difference(np.arange(number)) > 0


def test_power_is_that_of_the_paired_t_test():
    # G*Power, difference between two dependent means, two-sided
    assert stats.power(5, difference=-1.682, scatter=1.0) == pytest.approx(0.8, abs=1e-3)
    assert stats.power(34, difference=0.5, scatter=1.0) == pytest.approx(0.8078, abs=1e-3)
    assert stats.power(7, difference=0.0, scatter=2.0) == pytest.approx(0.05)
    assert stats.power(2, difference=0.1, scatter=0.0) == 1


@given(st.floats(0.05, 20), st.floats(0.3, 0.99), st.floats(0.001, 0.2))
@settings(max_examples=40, deadline=None)
def test_seeds_needed_are_enough_and_one_less_is_not(shift, power, alpha):
    seeds = stats.seeds_needed(2.0, 2.0 * shift, power=power, alpha=alpha)
    assert stats.power(seeds, difference=2.0 * shift, scatter=2.0, alpha=alpha) >= power
    if seeds > 2:
        assert stats.power(seeds - 1, difference=2.0 * shift, scatter=2.0, alpha=alpha) < power


def test_seeds_needed_of_a_pilot_are_those_of_its_scatter():
    pilot = [0.3, -0.2, 0.9, 0.1]
    assert stats.seeds_needed(pilot, 0.4) == stats.seeds_needed(float(np.std(pilot, ddof=1)), 0.4)
    assert stats.seeds_needed(1.0, 1.0) == 10
    assert stats.seeds_needed([0.5, 0.5, 0.5], 0.1) == 2, "no scatter"
    # as many as the pilot has find just what the pilot can detect
    assert stats.seeds_needed(pilot, 1.0001 * stats.detectable_difference(pilot)) == 4


@pytest.mark.parametrize("difference", [1.5, 1.0, 0.65])
def test_the_power_that_is_promised_is_reached(difference):
    _, plus, minus = coverage.power_at_needed("normal", difference, 4000)
    assert min(plus, minus) > 80 - 3 * 0.63


@given(st.integers(2, 60), st.floats(0.1, 0.95))
@settings(max_examples=25, deadline=None)
def test_what_so_many_seeds_detect_needs_so_many_seeds(seeds, power):
    smallest = stats.detectable_at(seeds, power=power)
    assert stats.power(seeds, difference=smallest, scatter=1.0) == pytest.approx(power, abs=1e-6)
    assert stats.seeds_needed(1.0, 1.000001 * smallest, power=power) <= seeds


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_the_interval_of_the_scatter_holds_it_in_95_of_100(count):
    data = np.random.default_rng(count).normal(3.0, 2.0, (3000, count))
    found = [stats.scatter_interval(row) for row in data]
    assert np.mean([each.interval.contains(2.0) for each in found]) == pytest.approx(0.95, abs=0.015)
    assert all(each.interval.contains(each.value) for each in found)
    assert found[0].value == pytest.approx(data[0].std(ddof=1))
    assert stats.scatter_interval([1.0]).interval is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: stats.seeds_needed(1.0, 0.0), "difference must not be 0"),
        (lambda: stats.seeds_needed([1.0], 1.0), "at least 2 differences, got 1"),
        (lambda: stats.seeds_needed(-1.0, 1.0), "scatter must be finite and >= 0, got -1"),
        (lambda: stats.seeds_needed(1.0, math.nan), "difference must be finite"),
        (lambda: stats.seeds_needed(1.0, 1.0, power=0.01), "power must lie between alpha"),
        (lambda: stats.seeds_needed(1.0, 1e-6), "more than 1,000,000 seeds"),
        (lambda: stats.power(1, difference=1.0, scatter=1.0), "seeds must be >= 2, got 1"),
        (lambda: stats.power(3, difference=1.0, scatter=1.0, alpha=0.0), "alpha must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_planned_is_refused(call, said):
    with pytest.raises(UserError, match=said):
        call()
