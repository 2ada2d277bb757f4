import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions

from bench import stats

numbers = st.floats(-100, 100).map(lambda value: round(value, 3))
by_seed = st.dictionaries(st.integers(0, 40), numbers, min_size=1, max_size=30)


def test_one_value_has_no_interval():
    assert stats.mean_interval([3.0]) == stats.Estimate(3.0, None, 1)
    difference = stats.paired_difference({0: 2.0}, {0: 1.5})
    assert (difference.mean, difference.interval, difference.p_better, difference.detectable) == (0.5, None, None, None)
    assert not difference.significant


def test_no_value_is_nan_without_interval():
    estimate = stats.mean_interval([])
    assert math.isnan(estimate.value)
    assert estimate.interval is None


def test_t_interval_of_three_values():
    estimate = stats.mean_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)  # t(0.975, 2) from tables, standard deviation 1
    assert estimate.interval == pytest.approx((2 - half, 2 + half))


def test_agrees_with_scipys_paired_t_test():
    generator = np.random.default_rng(3)
    first, second = generator.normal(1, 1, 7), generator.normal(0, 1, 7)
    ours = stats.paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    theirs = distributions.ttest_rel(first, second, alternative="greater")
    assert ours.interval == pytest.approx(tuple(distributions.ttest_rel(first, second).confidence_interval(0.95)))
    assert ours.p_better == pytest.approx(1 - theirs.pvalue)


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_of_few_seeds_cover_what_they_promise(seeds):
    generator = np.random.default_rng(seeds)
    draws = generator.normal(0.3, 1.0, size=(4000, seeds))
    covered = [stats.mean_interval(row).interval.contains(0.3) for row in draws]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_bootstrap_takes_over_and_agrees_with_t_at_many_values():
    values = np.random.default_rng(0).normal(5, 2, 400)
    boot = stats.mean_interval(values).interval
    half = 1.96 * values.std(ddof=1) / 20
    assert boot == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert stats.mean_interval(values[:19], seed=0) == stats.mean_interval(values[:19], seed=1)  # t: no randomness
    assert stats.mean_interval(values[:20], seed=0) != stats.mean_interval(values[:20], seed=1)  # bootstrap


@given(st.lists(numbers, min_size=1, max_size=50), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_bootstrap_is_reproducible_and_stays_within_the_values(values, seed):
    means = stats.bootstrap_means(values, resamples=200, seed=seed)
    assert means.shape == (200,)
    assert np.array_equal(means, stats.bootstrap_means(values, resamples=200, seed=seed))
    assert means.min() >= min(values) - 1e-9
    assert means.max() <= max(values) + 1e-9


def test_bootstrap_of_many_samples_works_in_pieces():
    means = stats.bootstrap_means(np.arange(3000.0), resamples=2000)
    assert means.shape == (2000,)
    assert means.std() == pytest.approx(np.arange(3000.0).std() / math.sqrt(3000), rel=0.1)


@given(by_seed, by_seed)
@settings(max_examples=60, deadline=None)
def test_pairing_is_antisymmetric_and_uses_common_seeds_only(first, second):
    forward, backward = stats.paired_difference(first, second), stats.paired_difference(second, first)
    assert forward.count == backward.count == len(first.keys() & second.keys())
    if forward.count == 0:
        assert math.isnan(forward.mean)
        return
    assert forward.mean == pytest.approx(-backward.mean, abs=1e-9)
    if forward.count > 1:
        assert forward.interval.low == pytest.approx(-backward.interval.high, abs=1e-7)
        assert forward.p_better + backward.p_better == pytest.approx(1, abs=1e-9)
        assert forward.detectable == pytest.approx(backward.detectable, rel=1e-9)


def test_lower_is_better_turns_the_probability_only():
    first, second = {0: 1.0, 1: 1.2, 2: 0.9}, {0: 2.0, 1: 1.9, 2: 2.2}
    higher, lower = (stats.paired_difference(first, second, higher_is_better=value) for value in (True, False))
    assert higher.mean == lower.mean < 0
    assert lower.p_better == pytest.approx(1 - higher.p_better)
    assert lower.p_better > 0.97


def test_equal_arms_tie():
    twin = stats.paired_difference({0: 1.1, 1: 2.3}, {0: 1.1, 1: 2.3})
    assert (twin.mean, twin.interval, twin.p_better, twin.detectable) == (0, (0, 0), 0.5, 0)
    constant = stats.paired_difference(
        {seed: 0.3 + seed / 7 for seed in range(5)}, {seed: seed / 7 for seed in range(5)}
    )
    assert constant.p_better > 0.99


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


def test_median_interval_is_made_of_order_statistics():
    values = [5, 3, 9, 1, 7, 2, 8, 4, 6, 10]
    assert stats.median_interval(values) == (5.5, (2, 9), 10)  # 10 values: second smallest and largest, 97.9 %
    assert stats.median_interval([1, 2, 3]) == (2, None, 3)
    coverage = [
        stats.median_interval(row).interval.contains(0) for row in np.random.default_rng(1).standard_normal((2000, 30))
    ]
    assert np.mean(coverage) > 0.94


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


def test_crossover_interval_spans_the_seeds_and_is_reproducible():
    found = stats.crossover(*lines(23, 25, 27))
    assert found.position == pytest.approx(25)
    assert 23 <= found.interval.low < 25 < found.interval.high <= 27
    assert found.probability > 0.99
    assert found == stats.crossover(*lines(23, 25, 27))


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


def test_bold_is_shared_by_what_is_not_significantly_worse():
    best = {0: 10.0, 1: 11.0, 2: 12.0}
    near = {0: 10.3, 1: 10.6, 2: 11.9}
    far = {0: 9.0, 1: 10.01, 2: 10.99}
    assert stats.not_worse_than_best([far, best, near]) == [False, True, True]
    assert stats.not_worse_than_best([far, best, near], higher_is_better=False)[0]


def test_bold_ties_after_rounding():
    first, second = {0: 1.001, 1: 1.001}, {0: 1.002, 1: 1.002}
    assert stats.not_worse_than_best([first, second], digits=2) == [True, True]
    assert stats.not_worse_than_best([first, second], digits=3) == [False, True]


def test_nothing_is_bold_with_one_seed_or_none():
    assert stats.not_worse_than_best([{0: 1.0}, {0: 2.0}]) == [False, False]
    assert stats.not_worse_than_best([{}, {}]) == [False, False]


def test_an_arm_that_lost_its_hard_seed_is_not_the_best():
    whole, lucky = {0: 20.0, 1: 18.0, 2: 14.0}, {0: 20.2, 1: 18.1}
    assert stats.not_worse_than_best([whole, lucky]) == [True, False]
    assert stats.not_worse_than_best([lucky, whole]) == [False, True]
    assert stats.not_worse_than_best([whole, {**lucky, 2: 14.1}]) == [True, True]


def test_a_missing_seed_does_not_hide_a_significant_lead():
    whole = {0: 20.0, 1: 18.0, 2: 14.0, 3: 16.0}
    ahead = {0: 21.0, 1: 19.01, 2: 15.02}
    assert stats.not_worse_than_best([whole, ahead]) == [True, True]
    assert stats.not_worse_than_best([whole, ahead], higher_is_better=False) == [True, False]


def test_the_best_are_compared_on_the_seeds_that_they_share():
    # the means are 15 and 18, but on seeds 0 and 1 the first is ahead
    first, second = {0: 20.0, 1: 20.0, 2: 5.0}, {0: 17.0, 1: 17.01, 3: 20.0}
    assert stats.not_worse_than_best([first, second]) == [True, False]


def test_nothing_is_bold_where_the_best_share_fewer_than_two_seeds():
    assert stats.not_worse_than_best([{0: 1.0, 1: 2.0}, {0: 1.5, 2: 9.0}]) == [False, False]


@given(st.lists(by_seed, min_size=1, max_size=5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_bold_rows_do_not_depend_on_their_order(rows, higher):
    bold = stats.not_worse_than_best(rows, higher_is_better=higher)
    assert bold[::-1] == stats.not_worse_than_best(rows[::-1], higher_is_better=higher)
    if any(bold):
        most = max(len(row) for row in rows)
        assert any(one and len(row) == most for one, row in zip(bold, rows, strict=True))
