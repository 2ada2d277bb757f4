"""What the task ``hydrology`` makes of a region: normalised patches and series, its calendar's splits, its statistics.

Everything that is measured from the data (scales, climatologies) comes from training years and training catchments alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import of_name
from bench.errors import UserError
from bench.tasks.hydrology_scales import Scale, Values, climatology

if TYPE_CHECKING:
    from bench.data.hydrology import Gauges, Grids, HydrologyData
    from bench.tasks.hydrology_config import HydrologyConfig

LAND_SHARE = 0.5
"""A patch with a smaller share of land cells is left out."""

IMAGE_OFFSET, SERIES_OFFSET = 1.0, 0.1
"""Added before the logarithm of skewed values; in mm/d where those are."""


@dataclass(frozen=True)
class Span:
    """Consecutive days of a split, as places in the calendar: start <= day < stop."""

    start: int
    stop: int

    def __len__(self) -> int:
        """Number of days."""
        return self.stop - self.start


def spans(dates: NDArray[np.datetime64], config: HydrologyConfig) -> dict[str, Span]:
    """Training days, then the validation years, then the test years, which end with the record.

    Raises:
        UserError: a split is shorter than a window.
    """
    end = dates[-1] + np.timedelta64(1, "D")
    years = config.test_years
    if years is None:
        years = 2 if dates[0] <= _years_before(end, 4 + config.validation_years) else 1
    test = _place(dates, _years_before(end, years))
    validation = _place(dates, _years_before(end, years + config.validation_years))
    found = {"train": Span(0, validation), "validation": Span(validation, test), "test": Span(test, len(dates))}
    for split, span in found.items():
        needed = config.longest if split == "train" else config.days
        if len(span) < needed:
            raise UserError(
                f"task.days: a window of {needed} days does not fit into the {len(span)} days of {split}; of {len(dates)} days "
                f"{config.validation_years} + {years} years are kept for validation and test"
            )
    return found


def _known_days(data: HydrologyData, config: HydrologyConfig) -> int:
    """Days of the record up to the last one on which every series was observed anywhere; all where one never was."""
    if data.gauges is None:
        return len(data.dates)
    chosen = [place for place, name in enumerate(data.gauges.names) if name in config.series_names]
    seen: NDArray[np.bool_] = np.any(np.isfinite(data.gauges.values[:, chosen]), axis=0)
    if not seen.any(axis=1).all():
        return len(data.dates)
    return len(data.dates) - max((int(own[::-1].argmax()) for own in seen), default=0)


def _years_before(date: np.datetime64, years: int) -> np.datetime64:
    """The same day so many years before; February 29 becomes March 1 where there is none."""
    month = date.astype("datetime64[M]")
    return (month - 12 * years).astype("datetime64[D]") + (date - month.astype("datetime64[D]"))


def check_generated(config: HydrologyConfig) -> None:
    """Refuse options that the generated region cannot have, before it is generated.

    Raises:
        UserError: an unknown name, too few catchments or years.
    """
    from bench.data.hydrology import region, simulate

    for field, wanted, known in (
        ("images", config.images, simulate.GRID_NAMES),
        ("series", config.series_names, simulate.SERIES_NAMES),
        ("statics", config.static_names, region.STATIC_NAMES),
    ):
        _places(field, wanted, known)
    if config.series_names:
        held_out(tuple(map(str, range(config.region.catchments))), config.held_out_catchments)
    spans(config.region.calendar(), config)


def _place(dates: NDArray[np.datetime64], date: np.datetime64) -> int:
    return int(max(0, (date - dates[0]).astype(int)))


def held_out(ids: tuple[str, ...], count: int) -> NDArray[np.bool_]:
    """[C]: the catchments that are never trained on, by their identifiers alone.

    Raises:
        UserError: none would be left.
    """
    if count >= len(ids):
        raise UserError(f"task.held_out_catchments must be less than the {len(ids)} catchments, got {count}")
    chosen = np.zeros(len(ids), bool)
    chosen[np.argsort([of_name(f"held out {name}") for name in ids], kind="stable")[:count]] = True
    return chosen


class Region:
    """A region, ready to be served. Axes: D days, K images, N valid patches of P pixels, C catchments, S series, A statics.

    Without series there is one catchment, the region itself.
    """

    def __init__(self, data: HydrologyData, config: HydrologyConfig) -> None:
        """Normalise `data`.

        Raises:
            UserError: the data lack something that the options name, or a split does not hold a window.
        """
        self.fingerprint, self.notices = data.fingerprint, list(data.notices)
        known = _known_days(data, config)
        self.dates, self.spans = data.dates, spans(data.dates[:known], config)
        if known < len(data.dates):
            self.notices.append(
                f"days after {data.dates[known - 1]} are left out: a series ends there in all catchments"
            )
        self.day_of_year = (data.dates - data.dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
        self.scales: list[Scale] = []
        self.units: dict[str, str] = {}
        """Of the modalities, as the data say them."""
        self._take_grids(data.grids, config)
        self._take_gauges(data.gauges, config)
        self._tell_unscored(config)
        self.season: tuple[Values, Values] | None = None
        """What was taken off, normalised: of patches [K, 366, N, P], of series [C, S, 366]; None: nothing was."""
        if config.anomalies:
            self.season = self.patch_climatology, self.series_climatology
            for values, usual in zip(self.patches, self.patch_climatology, strict=True):
                values -= usual[self.day_of_year]
            self.series -= self.series_climatology[..., self.day_of_year]
            del self.patch_climatology, self.series_climatology
        for values, seen in ((self.patches, self.patch_seen), (self.series, self.series_seen)):
            np.copyto(values, 0, where=~seen)

    def _take_grids(self, grids: Grids | None, config: HydrologyConfig) -> None:
        days, pixels = len(self.dates), config.patch_cells**2
        self.patch_positions = np.zeros((0, 2), np.float32)
        """float32 [N, 2]: row and column of each patch."""
        self.patches = np.zeros((0, days, 0, pixels), np.float32)
        """float32 [K, D, N, P], normalised; 0 in the sea and where nothing was observed."""
        self.patch_seen = np.zeros((0, days, 0, pixels), bool)
        """bool [K, D, N, P]: on land and observed; [1, 1, N, P] where all land always is."""
        self.land = np.zeros((0, pixels), np.float32)
        """float32 [N, P]: 1 on land, NaN in the sea."""
        self.patch_grid = (0, 0)
        if not config.images:
            return
        if grids is None:
            raise UserError("task.images: the data have no grids; set task.images: []")
        chosen = _places("images", config.images, grids.names)
        self.units |= dict(zip(grids.names, grids.units, strict=True))
        land = cut(grids.land, config.patch_cells)
        self.patch_grid = (grids.land.shape[0] // config.patch_cells, grids.land.shape[1] // config.patch_cells)
        valid = land.mean(axis=-1) >= LAND_SHARE
        if config.kept(int(valid.sum())) == 0:
            raise UserError(
                f"task.patch_cells: of the {valid.sum()} patches of {config.patch_cells} cells that are half land a mask ratio of "
                f"{config.mask_ratio} keeps none; make patches smaller"
            )
        self.land = np.where(land[valid], 1, np.nan).astype(np.float32)
        self.patch_positions = np.stack(np.divmod(np.flatnonzero(valid), self.patch_grid[1]), axis=1).astype(np.float32)
        self.patches = np.empty((len(chosen), days, int(valid.sum()), pixels), np.float32)
        for place, own in enumerate(chosen):
            values = cut(grids.values[own], config.patch_cells)[:, valid] * self.land
            offset = IMAGE_OFFSET if config.images[place] in config.skewed else None
            scale = Scale.of(_observed(values[self._training], config.images[place]), offset)
            self.patches[place] = scale.normalise(values)
            self.scales.append(scale)
        self.patch_seen = np.isfinite(self.patches)
        if np.array_equal(self.patch_seen.all(axis=(0, 1)), land[valid]):
            self.patch_seen = land[valid][None, None]
        whole = (len(valid), int(valid.sum()))
        self.notices.append(f"images: {whole[1]} of {whole[0]} patches are at least half land and are used")

    def _take_gauges(self, gauges: Gauges | None, config: HydrologyConfig) -> None:
        days = len(self.dates)
        self.ids: tuple[str, ...] = ("region",)
        self.held_out = np.zeros(1, bool)
        """bool [C]."""
        self.series = np.zeros((1, 0, days), np.float32)
        """float32 [C, S, D], normalised; 0 where nothing was observed."""
        self.series_seen = np.zeros((1, 0, days), bool)
        """bool [C, S, D]: observed; [1, 1, 1] where all always were."""
        self.statics = np.zeros((1, 0), np.float32)
        """float32 [C, A], normalised; 0 where unknown."""
        if not config.series_names:
            return
        if gauges is None:
            raise UserError("task.series: the data have no gauges; set task.series: []")
        self.ids, self.held_out = gauges.ids, held_out(gauges.ids, config.held_out_catchments)
        chosen = _places("series", config.series_names, gauges.names)
        self.units |= dict(zip(gauges.names, gauges.units, strict=True))
        self.series = np.empty((len(gauges.ids), len(chosen), days), np.float32)
        for place, own in enumerate(chosen):
            offset = SERIES_OFFSET if config.series_names[place] in config.skewed else None
            seen = gauges.values[~self.held_out, own, self._training]
            self.scales.append(Scale.of(_observed(seen, config.series_names[place]), offset))
            self.series[:, place] = self.scales[-1].normalise(gauges.values[:, own])
        self.series_seen = np.isfinite(self.series)
        if self.series_seen.all():
            self.series_seen = np.ones((1, 1, 1), bool)
        statics = gauges.statics[:, _places("statics", config.static_names, gauges.static_names)]
        self.statics = np.zeros(statics.shape, np.float32)
        for place, name in enumerate(config.static_names):
            scale = Scale.of(_observed(statics[~self.held_out, place], name), None)
            self.statics[:, place] = np.nan_to_num(scale.normalise(statics[:, place]))
        if self.held_out.any():
            names = ", ".join(name for name, out in zip(self.ids, self.held_out, strict=True) if out)
            self.notices.append(
                f"held out: {self.held_out.sum()} of {len(self.ids)} catchments are never trained on"
                + (f" ({names})" if self.held_out.sum() <= 8 else "")
            )

    def _tell_unscored(self, config: HydrologyConfig) -> None:
        """A line for every modality that a split does not observe."""
        for split in ("validation", "test"):
            days = slice(self.spans[split].start, self.spans[split].stop)
            known = [*self.patches[:, days], *self.series[~self.held_out][..., days].swapaxes(0, 1)]
            for name, values in zip(config.modalities, known, strict=True):
                if not np.isfinite(values).any():
                    self.notices.append(f"{split}: no {name} was observed in these years, so none is scored")

    @property
    def _training(self) -> slice:
        return slice(self.spans["train"].start, self.spans["train"].stop)

    @cached_property
    def patch_there(self) -> NDArray[np.bool_] | None:
        """Which patches have an observed pixel, bool [K, D, N]; None where all have."""
        there: NDArray[np.bool_] = np.any(self.patch_seen, axis=-1)
        return None if there.all() else there

    @cached_property
    def day_there(self) -> NDArray[np.bool_] | None:
        """Which days were observed, bool [C, S, D]; None where all were."""
        return None if self.series_seen.all() else self.series_seen

    def training_pairs(self, config: HydrologyConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Catchments [n] and first days [n] of all training samples: windows that never leave the training days.

        Without images, windows in which nothing was observed are left out.
        """
        span = self.spans["train"]
        starts = np.arange(span.start, span.stop - config.longest + 1)
        known = np.flatnonzero(~self.held_out)
        catchments, starts = np.repeat(known, len(starts)), np.tile(starts, len(known))
        if not config.images and self.day_there is not None:
            seen = np.cumsum(np.pad(self.day_there.any(axis=1), ((0, 0), (1, 0))), axis=1)
            kept = seen[catchments, starts + config.shortest] > seen[catchments, starts]
            catchments, starts = catchments[kept], starts[kept]
        if not len(starts):
            raise UserError(
                "task.series: nothing was observed in the training years; set fewer validation and test years"
            )
        return catchments, starts

    def windows(self, split: str, days: int) -> NDArray[np.int64]:
        """First days [W] of the windows of an evaluated split: one after the other, none overlaps.

        Raises:
            UserError: there is no such split.
        """
        if split not in self.spans:
            raise UserError(f"split {split} is unknown; known: {', '.join(self.spans)}")
        span = self.spans[split]
        return np.arange(span.start, span.stop - days + 1, days)

    def season_of_patches(self, place: int, day_of_year: NDArray[np.int64], number: NDArray[np.int64]) -> Values:
        """What was taken off field `place` at tokens `number` [B, M] of windows on the days `day_of_year` [B, T]; [B, M, P]."""
        if self.season is None:
            return np.zeros(1, np.float32)
        day, patch = np.divmod(np.maximum(number, 0), len(self.patch_positions))
        return self.season[0][place, np.take_along_axis(day_of_year, day, axis=1), patch]

    def season_of_series(
        self, place: int, catchments: NDArray[np.int64], day_of_year: NDArray[np.int64], number: NDArray[np.int64]
    ) -> Values:
        """What was taken off series `place` of `catchments` [B] on the days `number` [B, M] of the windows; [B, M]."""
        if self.season is None:
            return np.zeros(1, np.float32)
        days = np.take_along_axis(day_of_year, np.maximum(number, 0), axis=1)
        return self.season[1][catchments[:, None], place, days]

    # ------------------------------------------------------------------------------------------------- climatologies

    @cached_property
    def patch_climatology(self) -> Values:
        """Mean of `patches` on the days of the year around, over the training years; float32 [K, 366, N, P]."""
        found = np.empty((len(self.patches), 366, *self.patches.shape[2:]), np.float32)
        seen = np.broadcast_to(self.patch_seen, self.patches.shape)
        for place, own in enumerate(self.patches):
            known = np.where(seen[place, self._training], own[self._training], np.nan)
            found[place] = climatology(known, self._training_days)
        return found

    @cached_property
    def series_climatology(self) -> Values:
        """The same of `series`; of a catchment that is held out, the mean over the others; float32 [C, S, 366]."""
        known = np.where(self.series_seen, self.series, np.nan)[..., self._training]
        days = np.moveaxis(known, -1, 0)
        found = np.moveaxis(climatology(days, self._training_days), 0, -1)
        found[self.held_out] = found[~self.held_out].mean(axis=0)
        return found

    @property
    def _training_days(self) -> NDArray[np.int64]:
        return self.day_of_year[self._training]


def cut(frames: NDArray[Any], cells: int) -> NDArray[Any]:
    """Frames [..., H, W] into patches [..., patches, cells * cells], row by row; what is left at right and bottom is dropped."""
    *others, height, width = frames.shape
    rows, columns = height // cells, width // cells
    whole = frames[..., : rows * cells, : columns * cells].reshape(*others, rows, cells, columns, cells)
    return np.ascontiguousarray(whole.swapaxes(-3, -2)).reshape(*others, rows * columns, cells * cells)


def _places(field: str, wanted: tuple[str, ...], known: tuple[str, ...]) -> list[int]:
    """Where the names stand in the data.

    Raises:
        UserError: one does not.
    """
    if lacking := [name for name in wanted if name not in known]:
        raise UserError(f"task.{field}: the data have no {', '.join(lacking)}; they have {', '.join(known)}")
    return [known.index(name) for name in wanted]


def _observed(values: Values, name: str) -> Values:
    """The values, of which some must be finite."""
    if not np.isfinite(values).any():
        raise UserError(f"{name}: nothing was observed in the training years; leave it out")
    return values
