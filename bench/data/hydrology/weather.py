"""Weather of a region, day by day: rain that the wind carries, temperature, and the evaporation they allow."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.hydrology.fields import DriftingField, Field
from bench.data.hydrology.region import Region
from bench.data.hydrology.spec import HydrologySpec

WESTERLY = np.array([0.5, 2.5])
"""Mean wind in cells a day (southward, eastward)."""
GUSTS = 2.0
"""Standard deviation of each component."""
WIND_PERSISTENCE = 0.8

RAIN_FIELDS = {"fronts": (8.0, 0.6, 0.65), "showers": (3.0, 0.5, 0.35)}
"""Name -> correlation length in cells, persistence from day to day, share of the variance."""
WET_SHARE, WINTER_WETTER = 0.39, 0.08
"""Share of wet days over the year, and how much above it midwinter lies."""
RAIN_SCALE = 11.3
"""mm/d at one standard deviation above the threshold, before the orographic factor."""

MEAN_TEMPERATURE = 11.0
"""Degrees C at sea level in the middle of the grid."""
SEASON = 6.5
"""Half the range from winter to summer, K; the coldest day is January 20."""
LAPSE = 6.5e-3
"""K colder per metre of height."""
NORTHWARD = 0.6
"""K colder per degree of latitude."""
SYNOPTIC, SYNOPTIC_LENGTH, SYNOPTIC_PERSISTENCE = 2.0, 16.0, 0.85
"""K, cells, and what is left of it on the next day."""
RAIN_COOLING = 1.2
"""K colder in heavy rain than on a dry day."""


class Weather(NamedTuple):
    """Some days of weather, each float32 [D, H, W]."""

    rain: NDArray[np.float32]
    """mm/d"""
    temperature: NDArray[np.float32]
    """Degrees C."""
    pet: NDArray[np.float32]
    """Potential evaporation, mm/d."""


class WeatherMaker:
    """Makes the weather of one year after the other; `state` is all that the next year depends on."""

    def __init__(self, spec: HydrologySpec, region: Region) -> None:
        """Begin at a random day's weather."""
        self._spec, self._region = spec, region
        shape = region.land.shape
        self._rain = {
            name: DriftingField(shape, length, persistence, spec.stream(f"{name} at the start"))
            for name, (length, persistence, _) in RAIN_FIELDS.items()
        }
        self._warmth = DriftingField(shape, SYNOPTIC_LENGTH, SYNOPTIC_PERSISTENCE, spec.stream("warmth at the start"))
        self._gust = spec.stream("wind at the start").standard_normal(2)

    @property
    def state(self) -> dict[str, NDArray[np.generic]]:
        """Named arrays; assign them to another maker of the same spec to go on from here."""
        spectra = {name: field.spectrum for name, field in self._rain.items()}
        return {**spectra, "warmth": self._warmth.spectrum, "gust": self._gust}

    @state.setter
    def state(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        for name, field in self._rain.items():
            field.spectrum = arrays[name].astype(np.complex128)
        self._warmth.spectrum = arrays["warmth"].astype(np.complex128)
        self._gust = arrays["gust"].astype(np.float64)

    def year(self, year: int) -> Weather:
        """The weather of a calendar year; years are asked for in their order."""
        days = np.arange(np.datetime64(f"{year}-01-01"), np.datetime64(f"{year + 1}-01-01"))
        streams = {name: self._spec.stream(name, year) for name in (*RAIN_FIELDS, "warmth")}
        gusts = self._spec.stream("wind", year).standard_normal((len(days), 2))
        rain, temperature, pet = (np.empty((len(days), *self._region.land.shape), np.float32) for _ in range(3))
        winter = _winter(np.arange(1, len(days) + 1))
        normal = normal_temperature(self._region)
        for day, threshold in enumerate(_thresholds(winter)):
            self._gust = WIND_PERSISTENCE * self._gust + np.sqrt(1 - WIND_PERSISTENCE**2) * gusts[day]
            wind = WESTERLY + GUSTS * self._gust
            latent = sum(
                np.sqrt(share) * self._rain[name].step(wind, streams[name])
                for name, (_, _, share) in RAIN_FIELDS.items()
            )
            rain[day] = RAIN_SCALE * self._region.orographic * _rain_of(latent - threshold)
            warmth = SYNOPTIC * self._warmth.step(wind, streams["warmth"])
            temperature[day] = normal - SEASON * winter[day] + warmth - RAIN_COOLING * np.tanh(rain[day] / 5)
            pet[day] = oudin(temperature[day], self._region.latitude[:, None], day + 1)
        return Weather(rain, temperature, pet)


def normal_temperature(region: Region) -> Field:
    """[H, W]: mean of the year on dry days, degrees C."""
    north = region.latitude - region.latitude.mean()
    return MEAN_TEMPERATURE - LAPSE * np.maximum(region.elevation, 0) - NORTHWARD * north[:, None]


def climate(region: Region) -> tuple[Field, Field]:
    """Expected rain and potential evaporation of a year without leap day, mm, each [H, W]."""
    winter = _winter(np.arange(1, 366))
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    share = _rain_of(nodes - _thresholds(winter)[:, None])
    rain = RAIN_SCALE * float((share @ weights).sum() / weights.sum()) * region.orographic
    normal = normal_temperature(region) - RAIN_COOLING * WET_SHARE * 0.6  # of the cooling, on a usual wet day
    pet = sum(oudin(normal - SEASON * cold, region.latitude[:, None], day) for day, cold in enumerate(winter, start=1))
    return rain, np.asarray(pet, dtype=np.float64)


def oudin(temperature: NDArray[np.floating], latitude: NDArray[np.floating], day_of_year: int) -> NDArray[np.float64]:
    """Potential evaporation, mm/d, of Oudin et al. (2005): radiation at the top of the air times (T + 5) / 100.

    A kilogram of water takes 2.45 MJ to evaporate.

    Args:
        temperature: degrees C, any shape that `latitude` broadcasts to.
        latitude: degrees, within the polar circles.
        day_of_year: 1..366.
    """
    radiation = _extraterrestrial_radiation(latitude, day_of_year)
    return radiation / 2.45 * np.maximum(temperature + 5.0, 0) / 100


def _extraterrestrial_radiation(latitude: NDArray[np.floating], day_of_year: int) -> NDArray[np.float64]:
    """MJ/m2/d (Allen et al. 1998, FAO-56, equation 21)."""
    angle = 2 * np.pi * day_of_year / 365
    distance = 1 + 0.033 * np.cos(angle)
    declination = 0.409 * np.sin(angle - 1.39)
    phi = np.radians(latitude)
    sunset = np.arccos(-np.tan(phi) * np.tan(declination))
    height = sunset * np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.sin(sunset)
    return 24 * 60 / np.pi * 0.0820 * distance * height


def _rain_of(excess: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rain, at scale 1, of what a latent value has above its threshold: its power 1.5."""
    wet = np.maximum(excess, 0)
    return wet * np.sqrt(wet)


def _winter(day_of_year: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 on January 20, -1 half a year later."""
    return np.cos(2 * np.pi * (day_of_year - 20) / 365.25)


def _thresholds(winter: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a standard normal number must exceed for rain, so that the share of wet days follows the season."""
    return np.array([NormalDist().inv_cdf(1 - WET_SHARE - WINTER_WETTER * cold) for cold in winter])
