"""GR4J: water is neither made nor lost, and the equations are those of the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.hydrology.gr4j import GR4JParameters, GR4JState, initial_state, production_step, run, unit_hydrographs


def parameters(x1, x2, x3, x4) -> GR4JParameters:
    return GR4JParameters(*(np.array(values, dtype=np.float64, ndmin=1) for values in (x1, x2, x3, x4)))


def drawn(seed: int, places: int = 5) -> GR4JParameters:
    rng = np.random.default_rng(seed)
    return GR4JParameters(
        rng.uniform(20, 1500, places),
        rng.uniform(-6, 4, places),
        rng.uniform(5, 400, places),
        rng.uniform(0.5, 6, places),
    )


def forcing(seed: int, days: int, places: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 1])
    rain = rng.gamma(0.4, 12, (days, places)) * (rng.random((days, places)) < 0.5)
    return rain, rng.uniform(0, 6, (days, places))


def scalar_gr4j(x1, x2, x3, x4, production, routing, rain, pet) -> tuple[list[float], list[float]]:
    """The paper's equations, one place and one day at a time; flow and evaporation."""

    def short(day):
        return 0 if day <= 0 else min(day / x4, 1) ** 2.5

    def long(day):
        if day <= 0:
            return 0
        if day <= x4:
            return 0.5 * (day / x4) ** 2.5
        return 1 - 0.5 * (2 - day / x4) ** 2.5 if day < 2 * x4 else 1

    effective: list[float] = []
    flows, evaporations = [], []
    for p, e in zip(rain, pet, strict=True):
        net_rain, net_pet = max(p - e, 0), max(e - p, 0)
        stored = used = 0.0
        if net_rain > 0:
            tanh = math.tanh(net_rain / x1)
            stored = x1 * (1 - (production / x1) ** 2) * tanh / (1 + production / x1 * tanh)
        else:
            tanh = math.tanh(net_pet / x1)
            used = production * (2 - production / x1) * tanh / (1 + (1 - production / x1) * tanh)
        production += stored - used
        percolation = production * (1 - (1 + (4 / 9 * production / x1) ** 4) ** -0.25)
        production -= percolation
        effective.append(percolation + net_rain - stored)
        slow = sum(0.9 * w * (short(k + 1) - short(k)) for k, w in enumerate(reversed(effective)))
        fast = sum(0.1 * w * (long(k + 1) - long(k)) for k, w in enumerate(reversed(effective)))
        exchange = x2 * (routing / x3) ** 3.5
        routing = max(0, routing + slow + exchange)
        released = routing * (1 - (1 + (routing / x3) ** 4) ** -0.25)
        routing -= released
        flows.append(released + max(0, fast + exchange))
        evaporations.append(used + min(p, e))
    return flows, evaporations


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_water_balance_closes_in_every_place(seed, production, routing):
    model = drawn(seed)
    start = initial_state(model, production, routing)
    rain, pet = forcing(seed, 40)
    end, fluxes = run(model, start, rain, pet)
    change = rain.sum(0) - fluxes.evaporation.sum(0) - fluxes.flow.sum(0) + fluxes.exchange.sum(0)
    np.testing.assert_allclose(end.total() - start.total(), change, rtol=0, atol=1e-9)
    assert min(values.min() for values in (*fluxes[:2], *vars(end).values())) >= 0
    assert (end.production <= model.x1).all()
    assert (fluxes.evaporation <= pet + 1e-12).all()


@pytest.mark.parametrize("seed", range(4))
def test_many_places_at_once_are_the_papers_equations_one_by_one(seed):
    model, (rain, pet) = drawn(seed), forcing(seed, 30)
    start = initial_state(model)
    _, fluxes = run(model, start, rain, pet)
    for place in range(5):
        numbers = [float(getattr(model, name)[place]) for name in ("x1", "x2", "x3", "x4")]
        stores = start.production[place], start.routing[place]
        flow, evaporation = scalar_gr4j(*numbers, *stores, rain[:, place], pet[:, place])
        np.testing.assert_allclose(fluxes.flow[:, place], flow, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(fluxes.evaporation[:, place], evaporation, rtol=1e-10, atol=1e-12)


@given(st.lists(st.floats(0.5, 20), min_size=1, max_size=5))
def test_unit_hydrographs_pass_on_all_water(bases):
    for ordinates in unit_hydrographs(np.array(bases)):
        np.testing.assert_allclose(ordinates.sum(1), 1, rtol=0, atol=1e-12)
        assert (ordinates >= 0).all()


def test_unit_hydrographs_of_whole_days():
    short, long = unit_hydrographs(np.array([1.0, 2.0]))
    half = 0.5**2.5
    np.testing.assert_allclose(short, [[1, 0], [half, 1 - half]])
    np.testing.assert_allclose(long, [[0.5, 0.5, 0, 0], [half / 2, 0.5 - half / 2, 0.5 - half / 2, half / 2]])


def test_run_in_two_pieces_is_run_in_one():
    model, (rain, pet) = drawn(3), forcing(3, 50)
    whole_end, whole = run(model, initial_state(model), rain, pet)
    middle, first = run(model, initial_state(model), rain[:17], pet[:17])
    end, second = run(model, middle, rain[17:], pet[17:])
    for name in whole._fields:
        together = np.concatenate([getattr(first, name), getattr(second, name)])
        np.testing.assert_array_equal(together, getattr(whole, name))
    for name, values in vars(whole_end).items():
        np.testing.assert_array_equal(getattr(end, name), values)


def test_the_state_at_the_start_is_left_alone():
    model, (rain, pet) = drawn(0), forcing(0, 5)
    start = initial_state(model)
    before = {name: values.copy() for name, values in vars(start).items()}
    run(model, start, rain, pet)
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(start, name), values)


def test_without_rain_the_river_falls_dry_and_without_water_nothing_evaporates():
    model = parameters(300, 0, 90, 1.5)
    dry, thirst = np.zeros((3000, 1)), np.full((3000, 1), 3.0)
    end, fluxes = run(model, initial_state(model), dry, thirst)
    assert (np.diff(fluxes.flow[5:, 0]) < 0).all()
    assert fluxes.flow[-1, 0] < 1e-2 * fluxes.flow[5, 0]
    assert end.production[0] < 1e-3
    empty = GR4JState(*(np.zeros_like(values) for values in vars(end).values()))
    _, nothing = run(model, empty, dry[:10], thirst[:10])
    assert not np.concatenate(nothing).any()


def test_all_rain_flows_off_where_nothing_evaporates_and_nothing_is_exchanged():
    model = parameters([50, 300], [0, 0], [20, 90], [0.5, 4])
    _, fluxes = run(model, initial_state(model), np.full((4000, 2), 5.0), np.zeros((4000, 2)))
    assert not fluxes.exchange.any()
    np.testing.assert_allclose(fluxes.flow[-1], 5.0, rtol=1e-6)


def test_the_sign_of_x2_tells_gain_from_loss():
    model = parameters([300] * 3, [-2, 0, 2], [90] * 3, [1.5] * 3)
    rain, pet = (np.repeat(values[:, :1], 3, axis=1) for values in forcing(0, 400))
    flow = run(model, initial_state(model), rain, pet)[1].flow.sum(0)
    assert flow[0] < flow[1] < flow[2]


def test_a_full_store_takes_no_rain_and_an_empty_one_gives_no_water():
    capacity = np.array([100.0, 100.0])
    full = production_step(np.array([100.0, 0.0]), capacity, np.array([20.0, 0.0]), np.array([0.0, 5.0]))
    percolation = 100 * (1 - (1 + (4 / 9) ** 4) ** -0.25)
    np.testing.assert_allclose(full.effective_rain, [20 + percolation, 0])
    np.testing.assert_allclose(full.evaporation, [0, 0])
    np.testing.assert_allclose(full.store, [100 - percolation, 0])


@pytest.mark.parametrize(("name", "value"), [("x1", 0.0), ("x3", -1.0), ("x4", 0.4), ("x4", math.nan)])
def test_parameters_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be >="):
        parameters(**{"x1": 300, "x2": 0, "x3": 90, "x4": 1.5, name: value})


def test_parameters_of_different_places_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        parameters([300, 300], 0, 90, 1.5)
