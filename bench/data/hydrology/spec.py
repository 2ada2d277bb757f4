"""What a generated region is made of: its size, its years and its streams of random numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import of_name
from bench.errors import UserError

HYDROLOGY_VERSION = 1
"""Stored in every manifest and mixed into every stream; bumped whenever a change of the generator moves a value."""

SPIN_UP_YEARS = 1
"""Generated before the first year and dropped, so that no store shows how it was filled at the start."""


@dataclass(frozen=True)
class HydrologySpec:
    """Everything that determines the generated values. Equal specs give equal bytes."""

    years: int = 8
    """Whole calendar years that are delivered."""
    height: int = 40
    """Rows of the grid, north first; a cell is 5 km wide."""
    width: int = 32
    """Columns of the grid, west first."""
    catchments: int = 24
    """Gauged catchments; they do not overlap."""
    first_year: int = 2000
    """The first day is January 1 of this year."""
    seed: int = 0
    """Another seed gives another region with other weather."""

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        limits = {
            "years": (1, 200),
            "height": (16, 600),  # beyond, the sun does not set in the north
            "width": (16, 2048),
            "catchments": (1, 10_000),
            "first_year": (1600, 2200),
            "seed": (0, 2**32 - 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise UserError(f"hydrology.{name} must be a whole number from {low} to {high}, got {value!r}")

    def calendar(self) -> NDArray[np.datetime64]:
        """The delivered days, datetime64[D] [D], leap days included."""
        return np.arange(*(np.datetime64(f"{year}-01-01") for year in (self.first_year, self.first_year + self.years)))

    def generated_years(self) -> range:
        """Every year that is computed, those of the spin-up first."""
        return range(self.first_year - SPIN_UP_YEARS, self.first_year + self.years)

    def describe(self) -> dict[str, Any]:
        """What determines the bytes: the key of the cache."""
        return asdict(self) | {"version": HYDROLOGY_VERSION, "spin_up_years": SPIN_UP_YEARS}

    def stream(self, purpose: str, year: int = 0) -> np.random.Generator:
        """Random numbers of one purpose in one year, independent of all others.

        A new purpose therefore shifts nothing, and a set of more years begins like one of fewer.
        """
        return np.random.Generator(np.random.PCG64([HYDROLOGY_VERSION, self.seed, int(of_name(purpose)), year]))


SPECS = {
    "tiny": HydrologySpec(),
    "small": HydrologySpec(years=20, height=96, width=80, catchments=120),
    "paper": HydrologySpec(years=46, height=290, width=180, catchments=604, first_year=1970),
}
"""Regions by preset: `paper` has the extent of the published model's data (Great Britain, 1970 to 2015)."""
