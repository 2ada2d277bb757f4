import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions

from bench import stats

numbers = st.floats(-100, 100).map(lambda value: round(value, 3))
by_seed = st.dictionaries(st.integers(0, 40), numbers, min_size=1, max_size=30)


def test_agrees_with_scipys_paired_t_test():
    generator = np.random.default_rng(3)
    first, second = generator.normal(1, 1, 7), generator.normal(0, 1, 7)
    ours = stats.paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    theirs = distributions.ttest_rel(first, second, alternative="greater")
    assert ours.interval == pytest.approx(tuple(distributions.ttest_rel(first, second).confidence_interval(0.95)))
    assert ours.p_better == pytest.approx(1 - theirs.pvalue)


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


@given(st.lists(numbers, min_size=2, max_size=40), st.booleans())
@settings(max_examples=60, deadline=None)
def test_p_values_agree_with_the_interval(differences, higher):
    found = stats.paired_difference(
        dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0), higher_is_better=higher
    )
    assert 0 <= found.p_value <= 1
    if len(differences) < stats.BOOTSTRAP_FROM and np.ptp(differences) > 0:
        theirs = distributions.ttest_1samp(differences, 0).pvalue
        assert found.p_value == pytest.approx(theirs, abs=1e-9)
    if found.p_value < 0.04:
        assert found.significant
    if found.p_value > 0.06:
        assert not found.significant


def test_no_side_no_p_value():
    assert stats.paired_difference({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.5}, higher_is_better=None).p_value is None


def test_a_bootstrapped_probability_is_as_sure_as_students_t():
    values = np.random.default_rng(4).normal(0.3, 1, 20)
    theirs = distributions.ttest_1samp(values, 0, alternative="greater").pvalue
    assert stats.probability_positive(values) == pytest.approx(1 - theirs, abs=0.012)
