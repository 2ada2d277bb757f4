"""The generated region at work: a year of weather moves the water in every cell and every catchment."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from bench.data.hydrology import gr4j
from bench.data.hydrology.region import catchment_attributes, catchment_parameters, make_region
from bench.data.hydrology.spec import HydrologySpec
from bench.data.hydrology.weather import WeatherMaker, climate

GRID_NAMES, GRID_UNITS = ("rain", "soil_moisture", "temperature"), ("mm/d", "1", "degC")
SERIES_NAMES, SERIES_UNITS = ("evaporation", "flow"), ("mm/d", "mm/d")
GAUGE_NOISE = 0.05
"""Standard deviation of the relative error of measured flow."""


class Simulation:
    """Simulates one year after the other; `state` is all that the next year depends on."""

    def __init__(self, spec: HydrologySpec) -> None:
        """Make the region of `spec` and begin on January 1 of the first year of the spin-up.

        Raises:
            UserError: the land has not room for the catchments.
        """
        self._spec = spec
        self.region = make_region(spec)
        self.statics = catchment_attributes(self.region, *climate(self.region), spec.stream("survey"))
        """float32 [C, A]"""
        self._weather = WeatherMaker(spec, self.region)
        self._cells = np.flatnonzero(self.region.land)
        self._capacity = self.region.soil_capacity.ravel()[self._cells]
        self._soil = 0.6 * self._capacity
        self._parameters = catchment_parameters(self.region, spec.stream("catchments"))
        self._catchments = gr4j.initial_state(self._parameters)

    @property
    def state(self) -> dict[str, NDArray[np.generic]]:
        """Named arrays; assign them to another simulation of the same spec to go on from here."""
        return {**self._weather.state, "soil": self._soil, **asdict(self._catchments)}

    @state.setter
    def state(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        self._weather.state = arrays
        self._soil = arrays["soil"].astype(np.float64)
        self._catchments = gr4j.GR4JState(
            **{name: arrays[name].astype(np.float64) for name in asdict(self._catchments)}
        )

    def year(self, year: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Simulate a calendar year; years are asked for in their order.

        Returns:
            grids: float32 [3, D, H, W] in the order of `GRID_NAMES`, 0 in the sea.
            series: float32 [C, 2, D] in the order of `SERIES_NAMES`.
        """
        weather = self._weather.year(year)
        days, height, width = weather.rain.shape
        rain, pet = (values.reshape(days, -1) for values in (weather.rain, weather.pet))
        moisture = np.zeros((days, height * width), np.float32)
        for day in range(days):
            self._soil = gr4j.production_step(
                self._soil,
                self._capacity,
                rain[day, self._cells].astype(np.float64),
                pet[day, self._cells].astype(np.float64),
            ).store
            moisture[day, self._cells] = self._soil / self._capacity
        mean = self.region.catchment_means
        self._catchments, fluxes = gr4j.run(self._parameters, self._catchments, mean(rain), mean(pet))
        error = self._spec.stream("gauge noise", year).standard_normal(fluxes.flow.shape)
        measured = fluxes.flow * np.maximum(1 + GAUGE_NOISE * error, 0)
        grids = np.stack([weather.rain, moisture.reshape(weather.rain.shape), weather.temperature])
        grids[:, :, ~self.region.land] = 0
        return grids, np.stack([fluxes.evaporation, measured]).transpose(2, 0, 1).astype(np.float32)
