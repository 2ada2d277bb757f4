"""Where the task ``hydrology`` gets its data from: a generated region, or files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress
    from bench.data.hydrology import HydrologyData
    from bench.tasks.hydrology_config import HydrologyConfig


def open_data(config: HydrologyConfig, cache_dir: Path, report: Progress | None = None) -> HydrologyData:
    """The data that `config` names; generated ones are made if need be.

    Raises:
        UserError: they are not there.
    """
    if config.data == "generated":
        from bench.data.hydrology import generate

        generate.prepare(config.region, cache_dir, progress=report)
        return generate.open_generated(config.region, cache_dir, verify=False)
    gauges = _open_gauges(config, cache_dir, report) if config.series_names else None
    if config.grids_path is None:
        assert gauges is not None, "the options leave no modality"
        return gauges
    from bench.data.hydrology.combine import combine
    from bench.data.hydrology.gridded import open_grids

    path = Path(config.grids_path).expanduser()
    return combine(gauges, open_grids(path, config.images, config.grids_land, cache_dir=cache_dir, progress=report))


def _open_gauges(config: HydrologyConfig, cache_dir: Path, report: Progress | None) -> HydrologyData:
    if config.data_path is None:
        raise UserError(f"task.data_path is not set: give the folder of {config.data}, or set task.data: generated")
    root = Path(config.data_path).expanduser()
    if not root.is_dir():
        raise UserError(f"task.data_path: {root} is no folder; it must hold {config.data}")
    names: dict[str, Any] = {"series": config.series_names, "statics": config.static_names}
    names |= {"cache_dir": cache_dir, "progress": report}
    if config.data == "camels-us":
        from bench.data.hydrology.camels_us import open_camels_us

        return open_camels_us(root, config.forcing, **names)
    if config.data == "camels-gb":
        from bench.data.hydrology.camels_gb import open_camels_gb

        return open_camels_gb(root, **names)
    if config.data == "generic":
        from bench.data.hydrology.generic import open_generic

        return open_generic(root, **names)
    from bench.data.hydrology.caravan import open_caravan

    return open_caravan(root, config.caravan_source, **names)
