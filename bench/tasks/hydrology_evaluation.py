"""How the task ``hydrology`` is scored: masked errors a window, hydrographs a catchment.

A *window record* (``test/window-0012``) holds the errors of one window, pooled over all its masked values in all catchments
that were trained on: ``mse_<name>`` in normalised units, ``mse_physical_<name>`` in physical ones, ``skill_<name>`` = 1 - mse / B where B
is the best reference's mean over the windows of the split, and ``skill``, the mean of those. All windows weigh the same, so the
mean over the records is the split's; a modality that a window did not observe is left out of its record.

A *catchment record* (``test/catchment-01022500``) holds the scores of the hydrograph that is put together from the masked days
of all windows, in physical units; those of catchments that are held out have the suffix ``_held_out``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Metric, SampleRecord
from bench.metrics import hydrology as scores

if TYPE_CHECKING:
    from bench.contracts import Batch
    from bench.tasks.hydrology_batches import Chosen
    from bench.tasks.hydrology_config import HydrologyConfig
    from bench.tasks.hydrology_data import Region

HELD_OUT = "_held_out"

ERRORS = "Masked errors: mean over windows"
KNOWN = "Hydrographs of the masked days: median over catchments"
UNKNOWN = "Hydrographs of the masked days: median over catchments that are held out"


def metrics_of(config: HydrologyConfig, units: Mapping[str, str]) -> tuple[Metric, ...]:
    """All metrics of the options, the headline first; `units`: of the modalities, as far as they are known."""
    found = [
        Metric(
            "skill",
            "skill",
            higher_is_better=True,
            digits=3,
            note="mean over modalities of 1 - masked MSE / that of the best predictor that learns nothing",
        )
    ]
    errors: list[Metric] = []
    for name in config.modalities:
        found.append(Metric(f"skill_{name}", f"skill, {name}", higher_is_better=True, digits=3))
        errors += [
            Metric(f"mse_{name}", f"{name}, MSE (normalised)", higher_is_better=False, digits=4, group=ERRORS,
                   note="in units of the training variance, of the logarithm where the variable is skewed"),
            Metric(f"mse_physical_{name}", f"{name}, MSE ({squared_unit(units.get(name))})", higher_is_better=False,
                   digits=4, group=ERRORS),
        ]  # fmt: skip
    found += errors
    for suffix, group in (("", KNOWN), (HELD_OUT, UNKNOWN)) if config.held_out_catchments else (("", KNOWN),):
        for name in config.series_names:
            found += [
                metric._replace(
                    name=f"{metric.name}_{name}{suffix}",
                    label=f"{name}, {metric.label}",
                    aggregate="median",
                    group=group,
                )
                for metric in (HYDROGRAPH if name in config.skewed else HYDROGRAPH[:1])
            ]
    return tuple(found)


def squared_unit(unit: str | None) -> str:
    """What a squared error is in, for a heading: ``(mm/d)²``, ``(°C)²``; of None, a unit that nothing tells."""
    if unit is None:
        return "data units, squared"
    if unit == "1":
        return "dimensionless"
    return f"({unit.replace('degC', '°C')})²"


HYDROGRAPH = (
    Metric("nse", "NSE", higher_is_better=True, digits=3),
    Metric("kge", "KGE", higher_is_better=True, digits=3, note="Gupta et al. 2009"),
    Metric("kge_r", "KGE r", higher_is_better=True, digits=3),
    Metric("kge_alpha", "KGE α", higher_is_better=None, digits=3,
           note="variability ratio: standard deviation, simulated over observed; 1 is ideal"),
    Metric("kge_beta", "KGE β", higher_is_better=None, digits=3,
           note="bias ratio: mean, simulated over observed; 1 is ideal"),
    Metric("log_nse", "log-NSE", higher_is_better=True, digits=3, note="of log(value + 1 % of the mean)"),
)  # fmt: skip
"""Scores of a hydrograph; of series that are not skewed the first alone."""


class Scorer:
    """Adds up what a predictor makes of the windows of a split, batch by batch, and turns it into records."""

    def __init__(self, config: HydrologyConfig, region: Region, split: str, windows: NDArray[np.int64]) -> None:
        """`windows`: first days [W] of all windows of the split, scored or not."""
        self._config, self._region, self._split, self._windows = config, region, split, windows
        shape = (len(windows), len(config.modalities))
        self._squared, self._physical, self._count = (np.zeros(shape) for _ in range(3))
        span = region.spans[split]
        hydrographs = (len(region.ids), len(config.series_names), len(span))
        self._simulated, self._observed = np.full((2, *hydrographs), np.nan)

    def add(self, chosen: Chosen, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Score the outputs of a host batch.

        Raises:
            ValueError: an output lacks or has another shape than its targets.
            FloatingPointError: a value that is not finite; names the first such sample.
        """
        window = np.searchsorted(self._windows, chosen.starts)
        fields, days = len(self._config.images), batch["day_of_year"].numpy().astype(np.int64)
        for role, first in (("image", 0), ("series", fields)):
            if f"{role}_targets" not in batch:
                continue
            target, mask = batch[f"{role}_targets"].numpy(), batch[f"{role}_target_mask"].numpy()
            predicted = output(outputs, role, target.shape).detach().float().cpu().numpy()
            broken = ~np.isfinite(predicted).reshape(len(predicted), -1).all(axis=1)
            if broken.any():
                raise FloatingPointError(
                    f"{self._name(chosen, int(broken.argmax()))}: the {role} prediction is not finite"
                )
            scales = self._region.scales[first : first + target.shape[1]]
            for place, scale in enumerate(scales):
                own = mask[:, place]
                number = batch[f"{role}_predicted"][:, place].numpy()
                if role == "image":
                    season = self._region.season_of_patches(place, days, number)
                else:
                    season = self._region.season_of_series(place, chosen.catchments, days, number)
                values = scale.physical(predicted[:, place] + season), scale.physical(target[:, place] + season)
                if role == "series":
                    self._keep(chosen, number, own, place, values)
                known = ~self._region.held_out[chosen.catchments]
                for total, errors in (
                    (self._squared, predicted[:, place] - target[:, place]),
                    (self._physical, values[0] - values[1]),
                    (self._count, np.ones_like(target[:, place])),
                ):
                    masked = np.where(own, errors, 0).reshape(len(own), -1)
                    np.add.at(total[:, first + place], window[known], _squares(masked)[known])

    def _keep(
        self,
        chosen: Chosen,
        days: NDArray[np.int64],
        mask: NDArray[np.bool_],
        place: int,
        values: Sequence[NDArray[np.float32]],
    ) -> None:
        """Put the masked days of a series on their places in the hydrographs."""
        sample, token = np.nonzero(mask)
        day = chosen.starts[sample] - self._region.spans[self._split].start + days[sample, token]
        for record, own in zip((self._simulated, self._observed), values, strict=True):
            record[chosen.catchments[sample], place, day] = own[sample, token]

    def _name(self, chosen: Chosen, sample: int) -> str:
        window = int(np.searchsorted(self._windows, chosen.starts[sample]))
        return f"{self._split}/window-{window:04d}, catchment {self._region.ids[chosen.catchments[sample]]}"

    def window_records(self, best: Mapping[str, float]) -> list[SampleRecord]:
        """Records of the windows that were scored; `best`: MSE of the best reference by modality, empty where none is known."""
        records = []
        for window in np.flatnonzero(self._count.any(axis=1)):
            record: SampleRecord = {"sample": f"{self._split}/window-{window:04d}"}
            for place, name in enumerate(self._config.modalities):
                if count := self._count[window, place]:
                    record[f"mse_{name}"] = float(self._squared[window, place] / count)
                    record[f"mse_physical_{name}"] = float(self._physical[window, place] / count)
                    if name in best:
                        record[f"skill_{name}"] = 1 - record[f"mse_{name}"] / best[name]
            if skills := [value for key, value in record.items() if key.startswith("skill_")]:
                record["skill"] = float(np.mean(skills))
            records.append(record)
        return records

    def catchment_records(self) -> list[SampleRecord]:
        """Records of the catchments' hydrographs, without what is undefined."""
        columns: dict[str, NDArray[np.float64]] = {}
        for place, name in enumerate(self._config.series_names):
            record = self._simulated[:, place], self._observed[:, place]
            columns[f"nse_{name}"] = scores.nse(*record)
            if name in self._config.skewed:
                parts = scores.kge(*record)
                columns |= {f"kge_{name}": parts.kge, f"kge_r_{name}": parts.r}
                columns |= {f"kge_alpha_{name}": parts.alpha, f"kge_beta_{name}": parts.beta}
                columns[f"log_nse_{name}"] = scores.log_nse(*record)
        records = []
        for place, name in enumerate(self._region.ids if columns else ()):
            suffix = HELD_OUT if self._region.held_out[place] else ""
            found = {
                key + suffix: float(column[place]) for key, column in columns.items() if np.isfinite(column[place])
            }
            if found:
                records.append({"sample": f"{self._split}/catchment-{name}", **found})
        return records


def output(outputs: Mapping[str, Tensor], role: str, shape: Sequence[int]) -> Tensor:
    """``outputs["image_prediction"]`` or ``["series_prediction"]`` of exactly this shape, or a ValueError."""
    key = f"{role}_prediction"
    axes = "[B, K, M, P]" if role == "image" else "[B, S, M]"
    if key not in outputs:
        raise ValueError(f"forward must return the key {key!r}, got {', '.join(outputs) or 'nothing'}")
    if tuple(outputs[key].shape) != tuple(shape):
        raise ValueError(f"{key} must be {axes} = {list(shape)}, all predicted tokens, got {list(outputs[key].shape)}")
    return outputs[key]


def best_errors(rows: Sequence[Sequence[SampleRecord]]) -> dict[str, float]:
    """Smallest mean MSE of any of several predictors' window records, by modality; without those that one meets exactly."""
    found: dict[str, float] = {}
    measured = dict.fromkeys(key for record in rows[0] for key in record if key.startswith("mse_"))
    for name in (key for key in measured if not key.startswith("mse_physical_")):
        means = [float(np.mean([record[name] for record in records if name in record])) for records in rows]
        if (smallest := min(means)) > 0:
            found[name.removeprefix("mse_")] = smallest
    return found


def _squares(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum of squares of each row."""
    return np.einsum("ij,ij->i", values, values, dtype=np.float64)
