"""GR4J, the daily rainfall-runoff model of Perrin, Michel and Andreassian (2003, J. Hydrol. 279), for many places at once.

Rain beyond evaporation fills a production store (capacity x1), which loses water by evaporation and percolation. What does
not stay reaches the river through two unit hydrographs (time base x4): nine tenths by way of a routing store (capacity x3),
one tenth directly. Both branches exchange water with the ground outside the catchment (x2: gain if positive).

Water is in mm, time in days; n places (cells or catchments) stand on the first axis.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

SLOW_SHARE = 0.9
"""Share of the effective rain that goes through the routing store."""


@dataclass(frozen=True)
class GR4JParameters:
    """One value a place, each [n]."""

    x1: Values
    """Capacity of the production store, mm, > 0."""
    x2: Values
    """Exchange with the ground outside at a full routing store, mm/d; negative is a loss."""
    x3: Values
    """Capacity of the routing store, mm, > 0."""
    x4: Values
    """Time base of the first unit hydrograph, days, >= 0.5."""

    def __post_init__(self) -> None:
        """Raise `ValueError` on a parameter out of range."""
        for name, least in (("x1", 1e-3), ("x3", 1e-3), ("x4", 0.5)):
            if not (getattr(self, name) >= least).all():
                raise ValueError(f"{name} must be >= {least:g} everywhere, got {getattr(self, name).min():g}")
        if len({getattr(self, field.name).shape for field in fields(self)}) != 1:
            raise ValueError("x1, x2, x3 and x4 must have one shape [n]")


@dataclass(frozen=True)
class GR4JState:
    """Water in a place at the end of a day, in mm."""

    production: Values
    """[n]"""
    routing: Values
    """[n]"""
    slow: Values
    """[n, L1]: on the way through the first unit hydrograph; entry j arrives in j + 1 days."""
    fast: Values
    """[n, L2]: on the way through the second."""

    def total(self) -> Values:
        """[n]: all water in the place."""
        return self.production + self.routing + self.slow.sum(1) + self.fast.sum(1)


class Production(NamedTuple):
    """A day of the production store, each [n]."""

    store: Values
    """Content at the end of the day, mm."""
    effective_rain: Values
    """What goes on to the river, mm/d."""
    evaporation: Values
    """mm/d"""


class Fluxes(NamedTuple):
    """A day of the whole model, each [n] in mm/d."""

    flow: Values
    evaporation: Values
    exchange: Values
    """What came in from the ground outside; negative is a loss."""


def production_step(store: Values, x1: Values, rain: Values, pet: Values) -> Production:
    """A day of the production store.

    Args:
        store: [n] content at the start, 0..x1 mm.
        x1: [n] capacity, mm.
        rain: [n] mm/d.
        pet: [n] potential evaporation, mm/d.

    `store + rain = store' + evaporation + effective_rain` holds exactly (Perrin et al., equations 1 to 8).
    """
    intercepted = np.minimum(rain, pet)
    net_rain, net_pet = rain - intercepted, pet - intercepted
    fill = store / x1
    wetting, drying = np.tanh(net_rain / x1), np.tanh(net_pet / x1)
    infiltration = x1 * (1 - fill * fill) * wetting / (1 + fill * wetting)
    uptake = store * (2 - fill) * drying / (1 + (1 - fill) * drying)
    store = store + infiltration - uptake
    percolation = store * (1 - _fourth_root_share(store / x1 * (4 / 9)))
    return Production(store - percolation, percolation + net_rain - infiltration, uptake + intercepted)


def initial_state(parameters: GR4JParameters, production: float = 0.6, routing: float = 0.5) -> GR4JState:
    """Stores filled to these shares of their capacities, nothing on the way."""
    slow, fast = (np.zeros_like(ordinates) for ordinates in unit_hydrographs(parameters.x4))
    return GR4JState(production * parameters.x1, routing * parameters.x3, slow, fast)


def run(parameters: GR4JParameters, state: GR4JState, rain: Values, pet: Values) -> tuple[GR4JState, Fluxes]:
    """Run over D days.

    Args:
        parameters: of n places.
        state: at the start; see `initial_state`.
        rain: [D, n] mm/d.
        pet: [D, n] potential evaporation, mm/d.

    Returns:
        the state after the last day, and fluxes [D, n].
    """
    x1, x2, x3 = parameters.x1, parameters.x2, parameters.x3
    first, second = unit_hydrographs(parameters.x4)
    production, routing, slow, fast = (getattr(state, field.name).copy() for field in fields(state))
    result = Fluxes(*(np.empty_like(rain) for _ in Fluxes._fields))
    for day in range(len(rain)):
        production, effective, evaporation = production_step(production, x1, rain[day], pet[day])
        arrived_slow = _arrive(slow, first, SLOW_SHARE * effective)
        arrived_fast = _arrive(fast, second, effective - SLOW_SHARE * effective)
        level = routing / x3
        exchange = x2 * level**3 * np.sqrt(level)
        gain_slow = np.maximum(exchange, -(routing + arrived_slow))  # nobody can lose more than there is
        gain_fast = np.maximum(exchange, -arrived_fast)
        filled = routing + arrived_slow + gain_slow
        routing = filled * _fourth_root_share(filled / x3)
        result.flow[day] = filled - routing + arrived_fast + gain_fast
        result.evaporation[day] = evaporation
        result.exchange[day] = gain_slow + gain_fast
    return replace(state, production=production, routing=routing, slow=slow, fast=fast), result


def unit_hydrographs(x4: Values) -> tuple[Values, Values]:
    """Ordinates [n, L1] and [n, L2] of both unit hydrographs for time bases x4 [n]; each row sums to 1.

    They are the daily steps of the S-curves t^2.5 and its mirrored twin of twice the length, t counted in x4.
    """
    longest = float(x4.max())
    ordinates = []
    for lengths, curve in ((1, _s_curve_short), (2, _s_curve_long)):
        days = np.arange(int(np.ceil(lengths * longest)) + 1)
        ordinates.append(np.diff(curve(days / x4[:, None]), axis=1))
    return ordinates[0], ordinates[1]


def _s_curve_short(time: Values) -> Values:
    return np.minimum(time, 1.0) ** 2.5


def _s_curve_long(time: Values) -> Values:
    return np.where(time <= 1, 0.5 * np.minimum(time, 1) ** 2.5, 1 - 0.5 * np.clip(2 - time, 0, 1) ** 2.5)


def _arrive(pipe: Values, ordinates: Values, inflow: Values) -> Values:
    """Send `inflow` [n] into `pipe` [n, L], in place, and return what leaves it today."""
    pipe += ordinates * inflow[:, None]
    leaving = pipe[:, 0].copy()
    pipe[:, :-1] = pipe[:, 1:]
    pipe[:, -1] = 0
    return leaving


def _fourth_root_share(level: Values) -> Values:
    """(1 + level^4)^(-1/4): the share that stays in a store."""
    squared = level * level
    return 1 / np.sqrt(np.sqrt(1 + squared * squared))
