import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from bench import stats
from tests.stats import candidates, coverage

values = st.lists(st.floats(-100, 100).map(lambda value: round(value, 3)), min_size=2, max_size=6)


@given(values, values)
def test_the_interval_is_welchs_and_turns_its_sign_with_the_sides(first, second):
    there, back = stats.unpaired_difference(first, second), stats.unpaired_difference(second, first)
    assert there.mean == -back.mean
    assert there.interval == pytest.approx((-back.interval.high, -back.interval.low))
    assert there.detectable == pytest.approx(back.detectable)
    if np.ptp(first) > 0.01 and np.ptp(second) > 0.01:
        expected = distributions.ttest_ind(second, first, equal_var=False).confidence_interval()
        assert there.interval == pytest.approx((expected.low, expected.high))


def test_too_few_values_have_no_interval_and_equal_ones_no_scatter():
    assert stats.unpaired_difference([1.0], [2.0, 3.0]) == (1.5, None, None)
    assert math.isnan(stats.unpaired_difference([], [2.0, 3.0]).mean)
    mean, interval, detectable = stats.unpaired_difference([0.1] * 3, [0.4] * 6)
    assert (mean, *interval, detectable) == pytest.approx((0.3, 0.3, 0.3, 0.0))


@pytest.mark.parametrize("differences", coverage.MILD)
@pytest.mark.parametrize(("first", "second", "scatter"), [(3, 3, 1.0), (5, 5, 3.0), (10, 10, 1.0)])
def test_the_interval_covers_what_it_says(differences, first, second, scatter):
    covered = coverage.welch_coverage(differences, first, second, scatter, 4000)
    assert covered == pytest.approx(95, abs=2 + 3 * 0.34)  # 93 to 97, and three Monte-Carlo errors


def test_the_simulated_interval_is_that_of_the_library():
    first, second = (np.random.default_rng(count).normal(size=(4, count)) for count in (3, 6))
    low, high = candidates.welch(first, second)
    found = [stats.unpaired_difference(*rows).interval for rows in zip(first, second, strict=True)]
    assert np.column_stack([low, high]) == pytest.approx(np.array(found))
