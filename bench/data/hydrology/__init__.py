"""Hydrology: daily grids and gauged catchments, generated or read from the published layouts.

`data` says what every source gives; `generate` makes the embedded region, the readers bring real ones.
"""

from bench.data.hydrology.data import Gauges, Grids, HydrologyData

__all__ = ["Gauges", "Grids", "HydrologyData"]
