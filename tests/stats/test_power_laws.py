import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from bench import stats
from bench.errors import UserError
from tests.stats import coverage

X = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])


@given(st.floats(-50, 50), st.sampled_from([-6.0, 0.4, 30.0]), st.floats(0.05, 3), st.sampled_from([1e-3, 1.0, 1e6]))
@settings(max_examples=40, deadline=None)
def test_a_saturating_curve_is_found_again(offset, scale, exponent, unit):
    law = stats.fit_power_law(unit * X, offset + scale * X**-exponent, form="saturating")
    assert law.exponent.value == pytest.approx(exponent, rel=1e-3)
    assert law.offset.value == pytest.approx(offset, abs=0.01 * abs(scale))
    assert law.scale.value * unit**-exponent == pytest.approx(scale, rel=0.01)
    assert law.predict(64 * unit).value == pytest.approx(offset + scale * 64**-exponent, abs=1e-3 * abs(scale))
    assert not law.at_bound
    assert law.exponent.interval is None, "one replicate a point"


@given(st.floats(1e-9, 1e9), st.floats(0.1, 4))
@settings(max_examples=40, deadline=None)
def test_a_cost_is_found_again(scale, exponent):
    law = stats.fit_power_law(X, scale * X**exponent, form="cost")
    assert (law.offset.value, law.scale.value, law.exponent.value) == pytest.approx((0, scale, exponent), rel=1e-4)
    shifted = stats.fit_power_law(X, scale * (3 + X**exponent), form="cost-with-offset")
    assert (shifted.offset.value, shifted.exponent.value) == pytest.approx((3 * scale, exponent), rel=1e-2)


def test_no_start_of_scipys_search_finds_a_better_fit():
    generator = np.random.default_rng(0)
    for _ in range(5):
        y = 20 - 5 * X**-0.4 + generator.normal(0, 0.3, X.size)
        law = stats.fit_power_law(X, y, form="saturating")
        ours = sum((law.predict(x).value - value) ** 2 for x, value in zip(X, y, strict=True))
        for sign in (-1, 1):
            for start in (-2.0, -0.5, 0.7):
                found = optimize.least_squares(
                    lambda p, s=sign, y=y: p[0] + s * np.exp(p[1]) * X ** -np.exp(p[2]) - y,
                    (y.mean(), 0.0, start),
                    bounds=([-np.inf, -np.inf, np.log(0.01)], [np.inf, np.inf, np.log(8)]),
                )
                assert ours <= 2 * found.cost * (1 + 1e-6)


def test_intervals_cover_what_they_promise():
    exponent, miss = coverage.power_law_coverage("cost", 3, 100)
    assert exponent >= 88
    assert miss >= 88


def test_fits_are_seeded_and_narrow_down_with_replicates():
    y = (20 - 5 * X**-0.4)[:, None] + np.random.default_rng(1).normal(0, 0.2, (6, 12))
    few, many = (stats.fit_power_law(X, y[:, :n], form="saturating") for n in (3, 12))
    assert many == stats.fit_power_law(X, y, form="saturating")
    width = [law.exponent.interval.high - law.exponent.interval.low for law in (few, many)]
    assert width[1] < 0.8 * width[0]
    assert many.exponent.interval.contains(many.exponent.value)
    uneven = [list(row[: 2 + index]) for index, row in enumerate(y)]
    assert stats.fit_power_law(X, uneven, form="saturating").exponent.interval is not None


def test_sigma_weighs_the_points():
    y = X**1.5
    y[0] = 5.0
    free = stats.fit_power_law(X, y, form="cost")
    told = stats.fit_power_law(X, y, form="cost", sigma=[1e6, 1, 1, 1, 1, 1])
    assert told.exponent.value == pytest.approx(1.5, abs=1e-3)
    assert abs(free.exponent.value - 1.5) > 0.05


def test_the_largest_point_is_predicted_from_the_others():
    y = (3e-3 * X**2)[:, None] * np.exp(np.random.default_rng(2).normal(0, 0.02, (6, 5)))
    held = stats.predict_largest(X[::-1], y[::-1], form="cost")
    assert held.x == 32
    assert held.law == stats.fit_power_law(X[:-1][::-1], y[:-1][::-1], form="cost")
    assert held.predicted == held.law.predict(32)
    assert held.miss.value == pytest.approx(y[-1].mean() - held.predicted.value)
    assert held.miss.interval.contains(0)
    bent = y.copy()
    bent[-1] *= 1.5  # a cache that overflows
    assert not stats.predict_largest(X, bent, form="cost").miss.interval.contains(0)


def test_nothing_to_fit_is_none():
    assert stats.fit_power_law([1, 2], [3, 4], form="saturating") is None
    assert stats.fit_power_law([], [], form="cost") is None
    assert stats.fit_power_law(X, np.full(6, 0.3), form="saturating") is None
    assert stats.predict_largest([1, 2, 4], [3, 4, 5], form="cost") is None
    assert stats.predict_largest([], [], form="cost") is None


def test_what_is_no_power_law_says_so():
    assert stats.fit_power_law(X, np.log(X), form="saturating").at_bound
    assert stats.fit_power_law(X, [0.0, 1, 1, 1, 1, 1], form="saturating").at_bound


@pytest.mark.parametrize(
    ("x", "y", "form", "more", "said"),
    [
        ([0, 1, 2], [1, 2, 3], "cost", {}, r"x\[0\] must be > 0 and finite, got 0"),
        ([1, -2, 3], [1, 2, 3], "saturating", {}, r"x\[1\] must be > 0 and finite, got -2"),
        ([1, 2, 3], [1, 0, 3], "cost", {}, r"y\[1\] must be > 0 as a cost, got 0"),
        ([1, 2, 3], [1, [], 3], "saturating", {}, r"y\[1\] must be a finite number"),
        ([1, 2, 3], [1, 2, np.nan], "saturating", {}, r"y\[2\] must be a finite number"),
        ([1, 2, 3], [1, 2], "saturating", {}, "as many points as x, got 2 for 3"),
        ([1, 2, 2], [1, 2, 3], "saturating", {}, "x must name each position once"),
        ([[1, 2]], [1, 2], "saturating", {}, "x must be a list of numbers"),
        ([1, 2, 3], [1, 2, 3], "saturating", {"sigma": [1, 2]}, "sigma must have one value a point, got 2 for 3"),
        ([1, 2, 3], [1, 2, 3], "saturating", {"sigma": [1, 0, 1]}, r"sigma\[1\] must be > 0"),
    ],
)
def test_what_is_out_of_range_is_refused(x, y, form, more, said):
    for function in (stats.fit_power_law, stats.predict_largest):
        with pytest.raises(UserError, match=said):
            function(x, y, form=form, **more)
