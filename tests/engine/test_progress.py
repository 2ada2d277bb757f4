from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.progress import CURVES, Budget, ReplayedBudget, learning_rate_curve

costs = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60)


def spend(budget: Budget, costs: list[float], backlog: int = 0) -> list[float]:
    """Take steps of these costs, then of the last one, until the budget stops; the positions taken."""
    spent, known, trace = budget.spent, [], []
    for cost in itertools.chain(costs, itertools.repeat(max(costs[-1], budget.total / 100))):
        if budget.exhausted:
            break
        trace.append(budget.progress())
        budget.step_launched()
        known.append(cost)
        while len(known) > backlog:
            spent += known.pop(0)
            budget.step_taken(spent)
    while known:
        spent += known.pop(0)
        budget.step_taken(spent)
    return trace


@given(costs=costs, total=st.floats(0.1, 1e4), expected=st.floats(0.0, 1e3))
def test_overshoot_is_at_most_the_last_step_less_half_the_expected_one(
    costs: list[float], total: float, expected: float
) -> None:
    budget = Budget(total, expected)
    before = []
    step_taken = budget.step_taken
    budget.step_taken = lambda spent: (before.append(budget.expected), step_taken(spent))  # type: ignore[method-assign]
    trace = spend(budget, costs)
    if trace:
        bound = max(0.0, budget.last - 0.5 * before[-1])
        assert budget.overshoot_bound == pytest.approx(bound, abs=1e-9 * total + 1e-9 * budget.spent)
        assert budget.overshoot <= budget.overshoot_bound * (1 + 1e-12) + 1e-9
        assert budget.spent + 0.5 * budget.expected > total
    else:
        assert expected > 2 * total
        assert budget.overshoot == 0


@given(costs=costs, total=st.floats(1.0, 1e4), backlog=st.integers(0, 3))
def test_overshoot_stays_in_its_bound_behind_a_backlog(costs: list[float], total: float, backlog: int) -> None:
    budget = Budget(total, expected=costs[0])
    trace = spend(budget, costs, backlog)
    assert budget.pending == 0
    assert budget.overshoot <= budget.overshoot_bound * (1 + 1e-12) + 1e-9
    assert all(0.0 <= p <= 1.0 for p in trace)


@given(cost=st.floats(1e-3, 10.0), steps=st.floats(0.6, 300.0), backlog=st.integers(0, 2))
def test_equal_steps_fill_the_budget_evenly(cost: float, steps: float, backlog: int) -> None:
    budget = Budget(cost * steps, expected=cost)
    trace = spend(budget, [cost] * 400, backlog)
    assert len(trace) == pytest.approx(steps, abs=0.5 + 1e-6), "a budget for n steps takes n steps, to the nearest"
    assert trace == sorted(trace)
    for index, p in enumerate(trace):
        assert p == pytest.approx((index + 0.5) / steps, rel=1e-6)
    assert budget.overshoot <= 0.5 * cost * (1 + 1e-6)


@given(costs=costs, total=st.floats(0.1, 1e4))
def test_progress_stays_in_bounds(costs: list[float], total: float) -> None:
    budget = Budget(total)
    assert all(0.0 <= p <= 1.0 for p in spend(budget, costs))
    assert 0.0 <= budget.fraction <= 1.0


@given(count=st.integers(1, 500), batch=st.integers(1, 9), unit=st.sampled_from(["steps", "samples"]))
def test_counted_budgets_are_met_exactly(count: int, batch: int, unit: str) -> None:
    cost = 1.0 if unit == "steps" else float(batch)
    trace = spend(Budget(count * cost, expected=cost), [cost] * 600)
    assert trace == pytest.approx([(index + 0.5) / count for index in range(count)])
    assert len(trace) == count


@given(costs=costs, total=st.floats(1.0, 1e4), stop=st.integers(0, 20))
def test_a_budget_goes_on_from_its_state(costs: list[float], total: float, stop: int) -> None:
    costs = costs + [max(costs[-1], total / 100)] * 150
    whole, first, second = Budget(total, 1.0), Budget(total, 1.0), Budget(total, 123.0)
    spent = 0.0
    for cost in costs[:stop]:
        if first.exhausted:
            break
        first.step_launched()
        first.step_taken(spent := spent + cost)
    second.restore(first.state())
    trace = spend(whole, costs)
    assert spend(second, costs[stop:]) == trace[stop:]
    assert (second.spent, second.overshoot, second.overshoot_bound) == (
        whole.spent,
        whole.overshoot,
        whole.overshoot_bound,
    )


@given(trace=st.lists(st.floats(0, 1), max_size=50), backlog=st.integers(0, 2), cost=st.floats(1e-3, 1e6))
def test_a_replay_gives_the_trace_back(trace: list[float], backlog: int, cost: float) -> None:
    assert spend(ReplayedBudget(trace), [cost], backlog) == trace


@pytest.mark.parametrize("total", [0, -5, float("inf"), float("nan")])
def test_a_budget_is_positive_and_finite(total: float) -> None:
    with pytest.raises(ValueError, match=f"got {total}"):
        Budget(total)


positions = st.floats(0.0, 1.0)
warmups = st.floats(0.0, 0.99)
names = st.sampled_from(CURVES)


@given(name=names, warmup=warmups, cooldown=st.floats(0.01, 1.0), p=positions)
def test_the_rate_is_a_share_and_exactly_zero_at_the_end(name: str, warmup: float, cooldown: float, p: float) -> None:
    curve = learning_rate_curve(name, warmup, cooldown)
    assert curve(1.0) == 0.0
    assert 0.0 <= curve(p) <= 1.0


@given(name=names, warmup=st.floats(0.01, 0.9), cooldown=st.floats(0.05, 1.0), p=st.floats(0.001, 0.999))
def test_the_rate_has_no_jump(name: str, warmup: float, cooldown: float, p: float) -> None:
    curve = learning_rate_curve(name, warmup, cooldown)
    steepest = max(1 / warmup, 2 / (1 - warmup) / min(cooldown, 1.0))
    for place in (p, warmup):
        assert abs(curve(place + 1e-6) - curve(place - 1e-6)) <= 2e-6 * steepest * 1.01 + 1e-12
    assert curve(warmup) == pytest.approx(1.0)


@given(name=names, warmup=warmups, one=positions, other=positions)
def test_the_rate_rises_to_the_end_of_warm_up_and_falls_from_there(
    name: str, warmup: float, one: float, other: float
) -> None:
    curve = learning_rate_curve(name, warmup)
    early, late = sorted((one, other))
    if late <= warmup:
        assert curve(early) <= curve(late) + 1e-12
    elif early >= warmup:
        assert curve(early) >= curve(late) - 1e-12


def test_shapes() -> None:
    cosine, linear = learning_rate_curve("cosine", 0.0), learning_rate_curve("linear", 0.0)
    assert cosine(0.5) == pytest.approx(0.5)
    assert cosine(0.25) == pytest.approx(0.8535533905932737)
    assert linear(0.25) == pytest.approx(0.75)
    trapezoid = learning_rate_curve("trapezoid", 0.1, 0.2)
    assert trapezoid(0.05) == pytest.approx(0.5)
    assert trapezoid(0.5) == 1.0
    assert trapezoid(0.1 + 0.9 * 0.8) == pytest.approx(1.0)
    assert trapezoid(0.1 + 0.9 * 0.9) == pytest.approx(0.5)


def test_an_unknown_curve_is_named() -> None:
    with pytest.raises(ValueError, match="'sine'"):
        learning_rate_curve("sine", 0.1)
