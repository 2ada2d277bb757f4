"""What a window looks like: fields on the map, in false colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.tasks.grid import labelled_grid

if TYPE_CHECKING:
    from bench.contracts import Batch
    from bench.tasks.hydrology_config import HydrologyConfig
    from bench.tasks.hydrology_data import Region

DAYS = 2
"""Days of the window that are shown, of every field."""

RAMP = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]) / 255
"""Low to high values: five colours of viridis."""

SEA, HIDDEN = 1.0, 0.75
"""Shades of grey."""


def picture(
    config: HydrologyConfig, region: Region, batch: Batch, predictions: Mapping[str, Tensor]
) -> NDArray[np.uint8]:
    """Grid of the first sample of a host batch: a row for each field and day; what was visible stands in every column.

    Args:
        config: the task's options.
        region: where the batch is from.
        batch: as `hydrology_batches.gather` gives it.
        predictions: label to ``image_prediction``.

    Returns:
        uint8 [height, width, 3].
    """
    tokens = batch["day_of_year"].shape[1] * len(region.patch_positions)
    visible = _spread(batch, "visible", batch["image_values"], tokens)
    truth = np.where(np.isnan(visible), _spread(batch, "predicted", batch["image_targets"], tokens), visible)
    filled = {
        label: np.where(np.isnan(visible), _spread(batch, "predicted", prediction, tokens), visible)
        for label, prediction in predictions.items()
    }
    columns = {"truth": truth, "visible": visible, **filled}
    lowest, highest = (np.nanquantile(truth * region.land, share, axis=(1, 2, 3)) for share in (0.02, 0.98))
    shown = np.linspace(0, truth.shape[1] - 1, DAYS + 2).round().astype(int)[1:-1]
    return labelled_grid(
        {
            label: torch.cat(
                [_map(field[shown], region, *ends) for field, *ends in zip(values, lowest, highest, strict=True)]
            )
            for label, values in columns.items()
        }
    )


def _spread(batch: Batch, kind: str, values: Tensor, tokens: int) -> NDArray[np.float32]:
    """Values [1, K, V, P] of tokens on the whole window, [K, T, N, P]; NaN elsewhere."""
    number = batch[f"image_{kind}"][0].numpy()
    patches, pixels = batch["patch_positions"].shape[1], values.shape[-1]
    window = np.full((len(number), tokens + 1, pixels), np.nan, np.float32)
    np.put_along_axis(window, np.where(number < 0, tokens, number)[..., None], values[0].float().cpu().numpy(), axis=1)
    return window[:, :tokens].reshape(len(number), -1, patches, pixels)


def _map(frames: NDArray[np.float32], region: Region, lowest: float, highest: float) -> Tensor:
    """RGB [T, 3, H, W] of patches [T, N, P] where they lie."""
    days, _, pixels = frames.shape
    cells = round(pixels**0.5)
    rows, columns = region.patch_grid
    level = np.clip((frames - lowest) / max(highest - lowest, 1e-6), 0, 1)
    places = np.linspace(0, 1, len(RAMP))
    colours = np.stack([np.interp(level, places, channel) for channel in RAMP.T], axis=-1)
    colours[np.isnan(frames)] = HIDDEN
    colours[np.broadcast_to(np.isnan(region.land), frames.shape)] = SEA
    canvas = np.full((days, rows * columns, pixels, 3), SEA)
    place = region.patch_positions.astype(np.int64)
    canvas[:, place[:, 0] * columns + place[:, 1]] = colours
    whole = canvas.reshape(days, rows, columns, cells, cells, 3).swapaxes(2, 3)
    return torch.from_numpy(whole.reshape(days, rows * cells, columns * cells, 3)).movedim(-1, 1)
