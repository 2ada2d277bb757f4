import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats
from bench.errors import UserError
from tests.stats import coverage

numbers = st.floats(-100, 100).map(lambda value: round(value, 3))
by_seed = st.dictionaries(st.integers(0, 40), numbers, min_size=1, max_size=30)


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


def test_holm_of_a_worked_example():
    # 4 x 0.01, then 3 x 0.0134 is less than nothing before it, 2 x 0.03, 0.04 is lifted to its predecessor
    assert stats.holm([0.03, 0.01, 0.04, 0.0134]) == pytest.approx([0.06, 0.04, 0.06, 0.0402])
    assert stats.holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_holm_lies_between_nothing_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = stats.holm(p_values)
    assert (adjusted >= p_values).all()
    assert (adjusted <= np.minimum(1, len(p_values) * np.array(p_values)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0).all()
    assert adjusted[::-1] == pytest.approx(stats.holm(p_values[::-1]))


def test_holm_wrongly_rejects_any_in_at_most_one_of_twenty_families():
    draws = np.random.default_rng(0).random((4000, 6))
    draws[:, 0] = 1e-9  # one real difference
    wrong = [(stats.holm(row)[1:] < 0.05).any() for row in draws]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.011)


@pytest.mark.parametrize("wrong", [[0.1, 1.2], [-0.1], [float("nan")]])
def test_what_is_no_p_value_is_refused(wrong):
    with pytest.raises(UserError, match="between 0 and 1"):
        stats.holm(wrong)


def test_simultaneous_intervals_hold_all_at_once():
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(800):
        reference = generator.normal(size=5)
        found = stats.simultaneous_intervals([generator.normal(size=5) - reference for _ in range(4)])
        held += all(interval.contains(0) for interval in found)
    assert held / 800 > 0.94
    alone, missing = stats.simultaneous_intervals([[1.0, 2.0, 3.0], [4.0]])
    assert missing is None
    assert alone == pytest.approx(stats.mean_interval([1.0, 2.0, 3.0]).interval), "a family of one"


def test_a_corrected_column_keeps_what_a_single_test_would_drop():
    best = {seed: 10.0 + seed for seed in range(5)}
    p_003 = {
        seed: value - 0.5 - shift
        for (seed, value), shift in zip(best.items(), (0.2, -0.3, 0.35, -0.3, 0.3), strict=True)
    }
    far = {seed: value - 5 - 0.01 * seed for seed, value in best.items()}
    near = [{seed: value - shift for seed, value in p_003.items()} for shift in (0.0, 0.001, 0.002)]
    assert stats.not_worse_than_best([best, near[0], far]) == [True, False, False]
    assert stats.not_worse_than_best([best, near[0]], correct=True) == [True, False], "one test is no family"
    assert stats.not_worse_than_best([best, *near, far], correct=True) == [True, True, True, True, False]


@given(st.lists(by_seed, min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_correction_never_takes_bold_from_a_complete_row(rows):
    whole = [{seed: row.get(seed, 0.0) for seed in range(6)} for row in rows]
    before, after = (stats.not_worse_than_best(whole, correct=correct) for correct in (False, True))
    assert all(new or not old for old, new in zip(before, after, strict=True))


def test_the_simulated_loss_of_bold_is_that_of_the_function():
    for correct in (False, True):
        said = coverage.lost_bold(4, 3, 4, correct, 50) / 100
        data = np.random.default_rng([4, 3, 4]).standard_normal((50, 4, 3))
        rows = [[dict(enumerate(row)) for row in table] for table in data]
        lost = [not stats.not_worse_than_best(table, digits=9, correct=correct)[0] for table in rows]
        assert np.mean(lost) == pytest.approx(said, abs=1e-12)
