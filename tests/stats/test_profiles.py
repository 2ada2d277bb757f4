import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats
from bench.errors import UserError

positive = st.floats(0.1, 100).map(lambda value: round(value, 3))
comparisons = st.dictionaries(
    st.sampled_from("uvwxyz"),
    st.dictionaries(st.sampled_from("abc"), st.fixed_dictionaries({0: positive, 1: positive}), min_size=1, max_size=3),
    min_size=1,
    max_size=4,
)


def once(**arms):
    return {arm: {0: value} for arm, value in arms.items()}


def test_profiles_of_costs_by_factor():
    found = stats.performance_profiles({"x": once(a=1.0, b=2.0), "y": once(a=3.0, b=1.0)}, [1, 2, 3])
    assert found["a"].shares.tolist() == [0.5, 0.5, 1]
    assert found["b"].shares.tolist() == [0.5, 1, 1]
    assert found["a"].low is None, "one seed has no band"


def test_profiles_of_quality():
    values = {"x": once(a=20.0, b=10.0), "y": once(a=20.0, b=21.0)}
    gaps = stats.performance_profiles(values, [0, 1, 10], by="gap", higher_is_better=True)
    assert gaps["a"].shares.tolist() == [0.5, 1, 1]
    assert gaps["b"].shares.tolist() == [0.5, 0.5, 1]
    factors = stats.performance_profiles(values, [1, 1.1, 2], higher_is_better=True)
    assert factors["a"].shares.tolist() == [0.5, 1, 1]
    assert factors["b"].shares.tolist() == [0.5, 0.5, 1]


def test_an_arm_without_a_result_is_never_within_reach():
    found = stats.performance_profiles({"x": once(a=1.0, b=1.5), "y": {"a": {0: 1.0}, "b": {}}}, [1, 1000])
    assert found["b"].shares.tolist() == [0, 0.5]
    assert found["a"].shares.tolist() == [1, 1]


def test_arms_are_compared_on_the_seeds_that_they_share():
    found = stats.performance_profiles({"x": {"a": {0: 1.0, 1: 9.0}, "b": {0: 2.0}}}, [1])
    assert found["a"].shares.tolist() == [1], "not the mean of 5 over a hard seed more"


@given(comparisons, st.booleans(), st.sampled_from(["factor", "gap"]))
@settings(max_examples=40, deadline=None)
def test_profiles_rise_from_who_is_best_to_who_has_results(values, higher, by):
    within = np.array([1.0, 1.01, 1.5, 10.0, 1e9])
    found = stats.performance_profiles(values, within, by=by, higher_is_better=higher, resamples=50)
    assert set(found) == {arm for comparison in values.values() for arm in comparison}
    for arm, profile in found.items():
        assert (np.diff(profile.shares) >= 0).all()
        assert profile.shares[-1] == pytest.approx(np.mean([arm in comparison for comparison in values.values()]))
        assert (profile.low <= profile.high).all()
    if by == "factor":
        assert sum(profile.shares[0] for profile in found.values()) >= 1 - 1e-9, "somebody is best"


def test_the_band_is_seeded_and_as_wide_as_the_scatter():
    generator = np.random.default_rng(0)

    def values(scatter):
        return {str(c): {arm: dict(enumerate(generator.normal(10, scatter, 5))) for arm in "ab"} for c in range(8)}

    quiet, noisy = values(1e-6), values(2.0)
    for value, widths in ((quiet, (0, 0)), (noisy, (0.2, 1))):
        found = stats.performance_profiles(value, [1.05])["a"]
        assert widths[0] <= found.high[0] - found.low[0] <= widths[1]
        again = stats.performance_profiles(value, [1.05])["a"]
        assert (found.low == again.low).all()


@pytest.mark.parametrize(
    ("values", "within", "said"),
    [
        ({}, [1], "at least one comparison"),
        ({"x": {"a": {}}}, [1], "x: no arm has a result"),
        ({"x": {"a": {0: 1.0}, "b": {1: 1.0}}}, [1], "x: its arms have no seed in common"),
        ({"x": once(a=0.0, b=1.0)}, [1], "x: factors of the best need numbers > 0, got 0"),
        ({"x": once(a=1.0)}, [0.5], "within must be a list of factors >= 1"),
    ],
)
def test_what_has_no_profile_is_refused(values, within, said):
    with pytest.raises(UserError, match=said):
        stats.performance_profiles(values, within)
