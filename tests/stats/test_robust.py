import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats as distributions

from bench import stats
from bench.errors import UserError
from tests.stats import coverage

matrices = arrays.arrays(np.float64, (4, 3), elements=st.floats(-50, 50).map(lambda value: round(value, 2)))


@given(arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(-100, 100)))
@settings(max_examples=60, deadline=None)
def test_the_interquartile_mean_is_the_mean_of_the_middle_half(values):
    assert stats.interquartile_mean(values) == pytest.approx(distributions.trim_mean(values, 0.25), abs=1e-9)


def test_one_odd_run_does_not_carry_the_interquartile_mean():
    values = np.arange(12.0).reshape(3, 4)
    assert stats.interquartile_mean(values) == 5.5
    values[2, 3] = 1e6
    assert stats.interquartile_mean(values) == 5.5


@given(matrices, matrices, st.sampled_from(["tasks", "samples"]))
@settings(max_examples=30, deadline=None)
def test_exchanging_the_sides_turns_the_difference(first, second, columns):
    forward, backward = (
        stats.iqm_difference(*sides, columns=columns, resamples=200) for sides in ((first, second), (second, first))
    )
    assert forward.value == pytest.approx(-backward.value, abs=1e-9)
    assert forward.interval.low == pytest.approx(-backward.interval.high, abs=1e-6)
    assert forward == stats.iqm_difference(first, second, columns=columns, resamples=200)


def test_pairing_removes_what_a_seed_does_to_both():
    generator = np.random.default_rng(0)
    luck = generator.normal(0, 10, (5, 4))
    first, second = (luck + generator.normal(shift, 0.1, (5, 4)) for shift in (1, 0))
    low, high = stats.iqm_difference(first, second, columns="tasks").interval
    alone = stats.iqm_interval(first, columns="tasks").interval
    assert high - low < 0.25 * (alone.high - alone.low)


def test_the_seed_is_heeded():
    data, other = np.random.default_rng(0).normal(size=(2, 8, 3))
    for function in (
        lambda seed: stats.iqm_interval(data, columns="tasks", seed=seed),
        lambda seed: stats.probability_of_improvement(data, other, seed=seed),
    ):
        assert function(0) == function(0) != function(1)


def test_samples_are_no_runs():
    generator = np.random.default_rng(0)
    data = generator.normal(0, 1, (5, 1)) + generator.normal(0, 0.1, (5, 200))
    (low, high), (few, many) = (stats.iqm_interval(data, columns=columns).interval for columns in ("samples", "tasks"))
    assert high - low > 5 * (many - few), "five networks, not a thousand"


@pytest.mark.parametrize("columns", ["tasks", "samples"])
def test_intervals_of_few_runs_cover_what_they_promise(columns):
    assert 91 < coverage.iqm_coverage(5, 6, columns, 400) < 98.5


def test_probability_of_improvement_is_mann_whitneys_averaged_over_tasks():
    generator = np.random.default_rng(2)
    first, second = generator.normal(0.5, 1, (6, 3)), generator.normal(0, 1, (6, 3))
    theirs = [distributions.mannwhitneyu(first[:, t], second[:, t]).statistic / 36 for t in range(3)]
    found = stats.probability_of_improvement(first, second)
    assert found.value == pytest.approx(np.mean(theirs))
    assert found == stats.probability_of_improvement(first, second), "seeded"
    lower = stats.probability_of_improvement(first, second, higher_is_better=False)
    assert lower.value == pytest.approx(1 - found.value)
    assert (lower.interval.low, lower.interval.high) == pytest.approx((1 - found.interval.high, 1 - found.interval.low))


def test_winning_every_time_is_not_certainty():
    found = stats.probability_of_improvement(np.ones((3, 1)), np.zeros((3, 1)))
    assert found.value == found.interval.high == 1
    assert 0.4 < found.interval.low < 0.5, "three wins of three: Wilson's interval"
    tied = stats.probability_of_improvement(np.ones((3, 2)), np.ones((3, 2)))
    assert tied.value == 0.5
    assert tied.interval.contains(0.5)


@pytest.mark.parametrize("truth", [0.5, 0.75, 0.95])
def test_probability_intervals_cover_where_a_plain_bootstrap_fails(truth):
    ours, plain = coverage.improvement_coverage(3, 1, truth, 500)
    assert ours > 91.5
    assert plain < 85


def test_one_run_has_no_interval():
    assert stats.iqm_interval([[1.0, 2.0]], columns="tasks").interval is None
    assert stats.probability_of_improvement([[1.0]], [[0.0]]) == (1.0, None, 1)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([1.0, 2.0], [1.0, 2.0], r"matrix \[runs, columns\]"),
        ([[1.0, 2.0]], [[1.0]], "same runs and columns"),
        ([[1.0, np.nan]], [[1.0, 2.0]], "must be finite"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "matrix"),
    ],
)
def test_what_is_no_pair_of_matrices_is_refused(first, second, said):
    with pytest.raises(UserError, match=said):
        stats.probability_of_improvement(first, second)
    with pytest.raises(UserError, match=said):
        stats.iqm_difference(first, second, columns="tasks")
