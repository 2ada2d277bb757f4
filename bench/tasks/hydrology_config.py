"""Options of the task ``hydrology`` and its presets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.data.hydrology.spec import SPECS, HydrologySpec
from bench.errors import UserError
from bench.tasks.options import is_count, is_number

Count = TypeVar("Count", int, NDArray[np.int64])

DATA = ("generated", "camels-us", "camels-gb", "caravan", "generic")
IMAGE_MASKS = ("per-day", "tube", "block")
SERIES_MASKS = ("days", "block")

OF_ONE_DATA = {"camels-us": ("forcing",), "caravan": ("caravan_source",)}
"""Options that only one kind of data has."""

FAST_IMAGES = ("rain", "rainfall", "precipitation", "precip", "prcp", "pr", "tp")
"""Fields that ``image_mask: auto`` masks per day: yesterday says little about them. All others are slow."""


@dataclass(frozen=True)
class HydrologyConfig:
    """Options of the task; every field is one key under ``task:`` in a comparison."""

    data: str = "generated"
    """``generated`` (an embedded region, made on first use), or files under `data_path`: ``camels-us``, ``camels-gb``,
    ``caravan``, or ``generic`` (NeuralHydrology's layout for catchments of one's own, whose `series` must be named)."""
    data_path: str | None = None
    """Folder of the data, unless it is generated; see ``docs/real-hydrology.md``."""
    grids_path: str | None = None
    """NetCDF file, or folder of them, of daily grids beside gauges from files; `images` names their variables."""
    grids_land: str | None = None
    """Variable of those files that is 0.5 or more on land; null: land is wherever there ever is a value."""
    forcing: str = "daymet"
    """``camels-us`` only: which of the forcing products is read."""
    caravan_source: str | None = None
    """``caravan`` only: read the catchments of this source alone; null: of all that are there."""
    region: HydrologySpec = SPECS["tiny"]
    """``generated`` only: size, years and seed of the region."""
    images: tuple[str, ...] = ("rain", "soil_moisture", "temperature")
    """Gridded fields that are masked and predicted; none where there are no grids."""
    series: tuple[str, ...] | None = None
    """Gauge series that are masked and predicted; null: the usual ones of the data; none: a sample is a window of the grids."""
    statics: tuple[str, ...] | None = None
    """Attributes of the catchments that architectures are given; null: the usual ones of the data."""
    skewed: tuple[str, ...] = (*FAST_IMAGES, "flow", "streamflow", "discharge")
    """Of `images` and `series`, those that are learned and scored as logarithms: of 1 + value for images, of 0.1 + value for
    series. The others are only scaled."""
    anomalies: bool = True
    """Learn how much values differ from the climatology of the training years (of a catchment that is held out, the mean of the
    others'), not the values: the season need not be learned. Scores mean the same either way."""
    patch_cells: int = 8
    """Height and width of an image patch in cells. Patches with less than half of their cells on land are left out."""
    days: int = 14
    """Length of a window."""
    window_jitter: float = 0.0
    """Share by which the length of a training window varies either way, uniformly."""
    mask_ratio: float = 0.75
    """Share of the tokens of every modality that are hidden and predicted."""
    image_mask: str | tuple[str, ...] = "auto"
    """``per-day`` (other patches every day), ``tube`` (the same patches all days), ``block`` (all patches on consecutive days),
    or one of these for each of `images`. ``auto``: per-day for rain, tube for what changes slowly and is trivial otherwise."""
    series_mask: str = "block"
    """``block`` (consecutive days) or ``days`` (any)."""
    unified_masks: bool = False
    """Images of one kind of mask hide the same patches, and all series the same days; otherwise each its own."""
    missing_modality: float = 0.0
    """Probability that a training sample lacks a modality altogether; it never lacks all."""
    validation_years: int = 1
    """Years before the test years that are kept for validation."""
    test_years: int | None = None
    """Last years of the record; null: 2, or 1 where that would leave fewer than 2 to train on."""
    held_out_catchments: int = 4
    """Catchments that are never trained on and scored apart, chosen by their identifiers alone."""
    eval_batch: int = 8
    """Samples in one evaluation batch: fixed, so that an arm's score does not depend on its memory."""

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        for field in fields(self):
            value = getattr(self, field.name)
            smallest = 0 if field.name == "held_out_catchments" else 1
            if field.type.startswith("int") and value is not None and not is_count(value, smallest):
                raise UserError(f"task.{field.name} must be a whole number of at least {smallest}, got {value!r}")
            if field.type == "bool" and not isinstance(value, bool):
                raise UserError(f"task.{field.name} must be true or false, got {value!r}")
            if field.type == "str | None" and value == "":
                raise UserError(f"task.{field.name} is empty: give a path or a name, or null for none")
            if field.type.startswith("tuple[str, ...]") and value is not None and len(set(value)) < len(value):
                raise UserError(f"task.{field.name} must name nothing twice, got {list(value)}")
        self._check_data()
        self._check_masks()

    def _check_data(self) -> None:
        _one_of("data", self.data, DATA)
        for data, names in OF_ONE_DATA.items():
            for name in names if data != self.data else ():
                if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                    raise UserError(f"task.{name}: only {data} has it, task.data is {self.data}; leave it out")
        if self.data == "generated":
            for name in ("data_path", "grids_path", "grids_land"):
                if getattr(self, name) is not None:
                    raise UserError(
                        f"task.{name} is {getattr(self, name)!r}, but task.data: generated makes its own; set task.data to "
                        f"{', '.join(DATA[1:-1])} or {DATA[-1]}"
                    )
        elif bool(self.images) != (self.grids_path is not None):
            raise UserError(
                f"task.images is {list(self.images)}, but task.grids_path is {self.grids_path!r}: with task.data: {self.data} "
                f"images come from that file; give both, or set task.images: [] and no file"
            )
        if self.data == "generic" and self.series is None:
            raise UserError(
                "task.series is not set: with task.data: generic name the variables of the files, e.g. [flow]"
            )
        if not self.modalities:
            raise UserError("task.images and task.series are both empty: name at least one modality")
        if both := set(self.images) & set(self.series_names):
            raise UserError(f"task.series must not have a name of task.images, got {', '.join(sorted(both))}")
        if not self.series_names and (self.static_names or self.held_out_catchments):
            raise UserError(
                "task.series is empty, so there are no catchments: set task.statics: [] and task.held_out_catchments: 0"
            )

    def _check_masks(self) -> None:
        if not (is_number(self.mask_ratio) and 0 < self.mask_ratio < 1):
            raise UserError(f"task.mask_ratio must be between 0 and 1, got {self.mask_ratio!r}")
        for name in ("window_jitter", "missing_modality"):
            if not (is_number(getattr(self, name)) and 0 <= getattr(self, name) < 1):
                raise UserError(f"task.{name} must be at least 0 and less than 1, got {getattr(self, name)!r}")
        if self.missing_modality and len(self.modalities) == 1:
            raise UserError("task.missing_modality must be 0: there is only one modality, and a sample never lacks all")
        if isinstance(self.image_mask, str):
            _one_of("image_mask", self.image_mask, ("auto", *IMAGE_MASKS))
        else:
            for kind in self.image_mask:
                _one_of("image_mask", kind, IMAGE_MASKS)
            if len(self.image_mask) != len(self.images):
                raise UserError(
                    f"task.image_mask must have {len(self.images)} entries, one for each of task.images, got {len(self.image_mask)}"
                )
        _one_of("series_mask", self.series_mask, SERIES_MASKS)
        if self.series_names and self.kept(self.shortest) == 0:
            raise UserError(
                f"task.days: of a window of {self.shortest} days a mask ratio of {self.mask_ratio} keeps none; make windows longer"
            )

    def kept(self, tokens: Count) -> Count:
        """Of so many tokens, one number or an array, those that stay visible: the floor of their share, in exact arithmetic."""
        kept, of = self._share
        return tokens * kept // of

    @cached_property
    def _share(self) -> tuple[int, int]:
        return (1 - Fraction(str(self.mask_ratio))).as_integer_ratio()

    @property
    def shortest(self) -> int:
        """Days of the shortest training window."""
        return max(1, round(self.days * (1 - self.window_jitter)))

    @property
    def longest(self) -> int:
        """Days of the longest training window."""
        return round(self.days * (1 + self.window_jitter))

    @cached_property
    def ragged(self) -> bool:
        """Whether samples may have unequal numbers of tokens, so that a batch says which are there."""
        return self.data != "generated" or self.shortest < self.longest or self.missing_modality > 0

    @cached_property
    def image_masks(self) -> tuple[str, ...]:
        """Kind of mask of each of `images`."""
        if not isinstance(self.image_mask, str):
            return self.image_mask
        if self.image_mask != "auto":
            return (self.image_mask,) * len(self.images)
        return tuple("per-day" if name in FAST_IMAGES else "tube" for name in self.images)

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """Names of all modalities, images first."""
        return (*self.images, *self.series_names)

    @cached_property
    def series_names(self) -> tuple[str, ...]:
        """Gauge series, those of the data where none are named."""
        return usual_names(self.data)[0] if self.series is None else self.series

    @cached_property
    def static_names(self) -> tuple[str, ...]:
        """Attributes of the catchments, those of the data where none are named."""
        return usual_names(self.data)[1] if self.statics is None else self.statics

    def shared_options(self) -> dict[str, Any]:
        """What an architecture must be built for."""
        return {
            "image_modalities": len(self.images),
            "patch_pixels": self.patch_cells**2,
            "series_modalities": len(self.series_names),
            "static_attributes": len(self.static_names),
        }


def usual_names(data: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Series and attributes of a kind of data that are taken where none are named."""
    if data == "generated":
        from bench.data.hydrology import region, simulate

        return simulate.SERIES_NAMES, region.STATIC_NAMES
    if data == "generic":
        return (), ()
    module = import_module(f"bench.data.hydrology.{data.replace('-', '_')}")
    return module.DEFAULT_SERIES, module.STATICS


def usual_units(data: str) -> dict[str, str]:
    """Units of all that a kind of data offers, as far as they are known without the files."""
    if data == "generated":
        from bench.data.hydrology import simulate as made

        names, units = (*made.GRID_NAMES, *made.SERIES_NAMES), (*made.GRID_UNITS, *made.SERIES_UNITS)
        return dict(zip(names, units, strict=True))
    if data == "generic":
        return {}
    module = import_module(f"bench.data.hydrology.{data.replace('-', '_')}")
    return {name: series.unit for name, series in module.SERIES.items()}


def _one_of(field: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise UserError(f"task.{field} must be one of {', '.join(known)}, got {value!r}")


PRESETS: dict[str, HydrologyConfig] = {
    "tiny": HydrologyConfig(),
    "small": HydrologyConfig(region=SPECS["small"], days=30, held_out_catchments=20, eval_batch=16),
    "paper": HydrologyConfig(
        region=SPECS["paper"],
        anomalies=False,
        patch_cells=10,
        days=90,
        validation_years=4,
        test_years=8,
        held_out_catchments=60,
        eval_batch=8,
    ),
}
"""``tiny``: two cores, minutes. ``small``: one GPU, minutes. ``paper``: days, patches and extent of the published model's data,
generated; with the real ones instead: ``data: camels-gb``, `data_path`, `grids_path` and the names in them."""
