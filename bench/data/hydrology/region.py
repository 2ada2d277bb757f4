"""The part of a generated region that stays: terrain, soils, catchments, their attributes and their GR4J parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.hydrology.drainage import choose_catchments, drainage
from bench.data.hydrology.fields import Field, smooth_field
from bench.data.hydrology.gr4j import GR4JParameters
from bench.data.hydrology.spec import HydrologySpec

CELL_KM = 5.0
KM_PER_DEGREE = 111.2
CENTRE = (52.0, -2.0)
"""Latitude and longitude of the middle of the grid, degrees."""
LAND_SHARE = 0.55
HIGHEST = 900.0
"""Metres."""

STATIC_NAMES = (
    "latitude",
    "longitude",
    "altitude_min",
    "altitude_10",
    "altitude_50",
    "altitude_90",
    "altitude_max",
    "area",
    "slope",
    "wetness",
    "baseflow_index",
)
"""Degrees; metres above the sea at these shares of the area; km2; m/km; rain / (rain + potential evaporation); 0..1."""


@dataclass(frozen=True)
class Region:
    """A generated region; H x W cells, C catchments."""

    elevation: Field
    """[H, W] metres; negative in the sea."""
    land: NDArray[np.bool_]
    """[H, W]"""
    latitude: NDArray[np.floating]
    """[H] degrees."""
    orographic: Field
    """[H, W] factor of the rain, mean 1 on land."""
    soil_capacity: Field
    """[H, W] capacity of a cell's production store, mm."""
    permeability: Field
    """[H, W] of the rock, mean 0 and variance 1 on land: what makes baseflow."""
    catchments: list[NDArray[np.int64]]
    """Flat indices of the cells of each."""

    def catchment_means(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """[..., C] from values [..., H * W]."""
        sizes = np.array([len(cells) for cells in self.catchments])
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        gathered = values[..., np.concatenate(self.catchments)]
        return np.add.reduceat(gathered, starts, axis=-1, dtype=np.float64) / sizes


def make_region(spec: HydrologySpec) -> Region:
    """Make the region of `spec`.

    Raises:
        UserError: the land has not room for that many catchments.
    """
    shape = (spec.height, spec.width)
    extent = min(shape)
    relief = smooth_field(spec.stream("terrain"), shape, (extent / 6, extent / 16, 2.0), (1.0, 0.25, 0.06))
    level = np.quantile(relief, 1 - LAND_SHARE)
    height = (relief - level) / (relief.max() - level)
    elevation = HIGHEST * np.sign(height) * np.abs(height) ** 1.4
    land = elevation > 0
    rock = smooth_field(spec.stream("geology"), shape, (extent / 8,), (1.0,))
    permeability = (rock - rock[land].mean()) / rock[land].std()
    soil = smooth_field(spec.stream("soil"), shape, (extent / 12, 2.5), (1.0, 0.5))
    capacity = 240 * np.exp(0.25 * permeability + 0.25 * soil - 0.6 * np.maximum(elevation, 0) / HIGHEST)
    cells, downstream = drainage(elevation, land)
    rows = CENTRE[0] + (spec.height / 2 - 0.5 - np.arange(spec.height)) * CELL_KM / KM_PER_DEGREE
    return Region(
        elevation=elevation,
        land=land,
        latitude=rows,
        orographic=_orographic(elevation, land),
        soil_capacity=capacity,
        permeability=permeability,
        catchments=choose_catchments(cells, downstream, spec.catchments, spec.stream("gauges")),
    )


def _orographic(elevation: Field, land: NDArray[np.bool_]) -> Field:
    """More rain on high ground and on slopes that face the prevailing westerly wind."""
    ground = np.maximum(elevation, 0)
    rise = np.gradient(ground, CELL_KM, axis=1)  # m/km towards the east
    factor = np.exp(0.9 * ground / HIGHEST + 0.015 * np.clip(rise, -20, 20))
    return factor / factor[land].mean()


def slopes(elevation: Field) -> Field:
    """[H, W]: steepness of the ground, m/km."""
    return np.hypot(*np.gradient(np.maximum(elevation, 0), CELL_KM))


def catchment_parameters(region: Region, rng: np.random.Generator) -> GR4JParameters:
    """GR4J parameters of each catchment: they follow its attributes, give or take what no attribute tells.

    All lie in the 80 % ranges of Perrin et al. (2003): x1 100 to 1200 mm, x2 -5 to 3 mm/d, x3 20 to 300 mm, x4 1.1 to 2.9
    days, x4 of small and steep catchments below.
    """
    count = len(region.catchments)
    permeability = region.catchment_means(region.permeability.ravel())
    slope = region.catchment_means(slopes(region.elevation).ravel())
    area = np.array([len(cells) for cells in region.catchments]) * CELL_KM**2
    own = rng.standard_normal((3, count))
    return GR4JParameters(
        x1=region.catchment_means(region.soil_capacity.ravel()),
        x2=np.clip(-0.35 - 0.4 * permeability + 0.3 * own[0], -3, 1),
        x3=140 * np.exp(0.5 * permeability + 0.15 * own[1]),
        x4=np.clip(1.7 * (area / 400) ** 0.3 * np.exp(-0.03 * (slope - 15) + 0.1 * own[2]), 0.5, 6),
    )


def catchment_attributes(
    region: Region, annual_rain: Field, annual_pet: Field, rng: np.random.Generator
) -> NDArray[np.float32]:
    """[C, A] in the order of `STATIC_NAMES`, measured with noise.

    Args:
        region: the region.
        annual_rain: [H, W] expected rain, mm.
        annual_pet: [H, W] expected potential evaporation, mm.
        rng: noise of the survey.
    """
    height, width = region.land.shape
    degrees_wide = CELL_KM / (KM_PER_DEGREE * np.cos(np.radians(CENTRE[0])))
    longitude = CENTRE[1] + (np.arange(width) + 0.5 - width / 2) * degrees_wide
    noise = rng.standard_normal((len(STATIC_NAMES), len(region.catchments)))
    mean = region.catchment_means
    altitudes = [np.quantile(region.elevation.ravel()[c], (0, 0.1, 0.5, 0.9, 1)) for c in region.catchments]
    rain, pet = mean(annual_rain.ravel()), mean(annual_pet.ravel())
    columns = [
        mean(np.repeat(region.latitude, width)) + 0.01 * noise[0],
        mean(np.tile(longitude, height)) + 0.01 * noise[1],
        *(np.transpose(altitudes) + 10 * noise[2]),  # one datum a catchment: the quantiles stay in order
        np.array([len(cells) for cells in region.catchments]) * CELL_KM**2 * np.exp(0.03 * noise[7]),
        mean(slopes(region.elevation).ravel()) * np.exp(0.05 * noise[8]),
        rain / (rain + pet) + 0.01 * noise[9],
        1 / (1 + np.exp(-mean(region.permeability.ravel()))) + 0.03 * noise[10],
    ]
    return np.stack(columns, axis=1).astype(np.float32)
