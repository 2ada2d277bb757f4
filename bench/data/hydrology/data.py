"""What every source of hydrological data gives: daily grids, gauged catchments, or both, on one calendar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError


@dataclass(frozen=True)
class Grids:
    """K daily fields on a grid of H x W cells over D days."""

    names: tuple[str, ...]
    """K names, e.g. ``rain``, ``soil_moisture``, ``temperature``."""
    units: tuple[str, ...]
    """K units, e.g. ``mm/d``; ``1`` where there is none."""
    values: NDArray[np.float32]
    """float32 [K, D, H, W], may be memory-mapped. NaN is missing; what stands in the sea has no meaning, see `land`."""
    land: NDArray[np.bool_]
    """bool [H, W]: True on land."""

    def __post_init__(self) -> None:
        """Raise `UserError` if names, units, values and land do not agree in shape."""
        if self.values.ndim != 4 or self.values.shape[0] != len(self.names) or len(self.units) != len(self.names):
            raise UserError(
                f"grids.values must be [K, D, H, W] with a name and a unit for each of K fields, got {self.values.shape}, "
                f"{len(self.names)} names and {len(self.units)} units"
            )
        if self.land.shape != self.values.shape[2:] or self.land.dtype != bool:
            raise UserError(
                f"grids.land must be bool of shape {self.values.shape[2:]}, got {self.land.dtype} of {self.land.shape}"
            )


@dataclass(frozen=True)
class Gauges:
    """S daily series and A static attributes of C catchments over D days."""

    ids: tuple[str, ...]
    """C identifiers as the source spells them, leading zeros included."""
    names: tuple[str, ...]
    """S names, e.g. ``evaporation``, ``flow``."""
    units: tuple[str, ...]
    """S units, e.g. ``mm/d``."""
    values: NDArray[np.float32]
    """float32 [C, S, D]; NaN is missing."""
    static_names: tuple[str, ...]
    """A names of attributes."""
    statics: NDArray[np.float32]
    """float32 [C, A]; NaN is unknown."""

    def __post_init__(self) -> None:
        """Raise `UserError` if ids, names, units, values and statics do not agree in shape."""
        expected: dict[str, Any] = {
            "values": (len(self.ids), len(self.names), *self.values.shape[2:]),
            "statics": (len(self.ids), len(self.static_names)),
        }
        for field, shape in expected.items():
            got = getattr(self, field).shape
            if got != shape or (field == "values" and len(got) != 3):
                raise UserError(f"gauges.{field} must have shape {shape} by its names and ids, got {got}")
        if len(self.units) != len(self.names):
            raise UserError(f"gauges.units must have {len(self.names)} entries, one a name, got {len(self.units)}")
        if len(set(self.ids)) != len(self.ids):
            raise UserError("gauges.ids must all differ")


@dataclass(frozen=True)
class HydrologyData:
    """One region: a calendar without gaps and what was observed on it."""

    dates: NDArray[np.datetime64]
    """datetime64[D] [D], daily, ascending, no gaps."""
    grids: Grids | None
    gauges: Gauges | None
    fingerprint: str
    """Digest of the content; for generated data of its spec and checksums."""
    notices: tuple[str, ...] = ()
    """Lines that must stand under every table made from this data."""

    def __post_init__(self) -> None:
        """Raise `UserError` if the calendar has gaps or a part does not fit it."""
        if self.dates.dtype != np.dtype("datetime64[D]"):
            raise UserError(f"dates must be datetime64[D], got {self.dates.dtype}")
        if len(self.dates) == 0 or (np.diff(self.dates) != np.timedelta64(1, "D")).any():
            raise UserError("dates must be daily, ascending and without gaps")
        days = {
            "grids": self.grids.values.shape[1] if self.grids else None,
            "gauges": self.gauges.values.shape[2] if self.gauges else None,
        }
        for part, count in days.items():
            if count not in (None, len(self.dates)):
                raise UserError(f"{part}.values has {count} days, the calendar {len(self.dates)}")
