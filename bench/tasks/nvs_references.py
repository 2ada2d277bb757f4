"""Predictors that learn nothing, for the task ``nvs``: the floor, and a yardstick that sees the true depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from bench.data.scenes import baselines
from bench.tasks.nvs_batches import channels_second

if TYPE_CHECKING:
    from bench.data.multiview import MultiViewSplit
    from bench.tasks.nvs_batches import Chosen


@dataclass(frozen=True)
class Reference:
    """One predictor."""

    name: str
    label: str
    predict: Callable[[baselines.Inputs, np.ndarray, np.ndarray], np.ndarray]

    def paint(self, data: MultiViewSplit, views: Chosen) -> tuple[Tensor, Tensor]:
        """What it paints and what is there, both [B, T, 3, H, W] in 0..1; poses are the data's own."""
        given, wanted = data.load(views.scenes, views.inputs), data.load(views.scenes, views.targets)
        depth = depth_of(data)
        known = None if depth is None else depth[views.scenes[:, None], views.inputs]
        painted = [
            self.predict(
                baselines.Inputs(rgb, None if known is None else known[sample], c2w, intrinsics),
                wanted.c2w[sample],
                wanted.intrinsics[sample],
            )
            for sample, (rgb, c2w, intrinsics) in enumerate(zip(*given, strict=True))
        ]
        return _as_float(np.stack(painted)), _as_float(wanted.rgb)


def references_of(data: MultiViewSplit) -> tuple[Reference, ...]:
    """All that can be computed on this data: the warp only where there is depth."""
    found = (
        Reference("mean-colour", "mean colour of the inputs", baselines.mean_colour),
        Reference("nearest-view", "nearest input view", baselines.nearest_view),
        Reference("depth-warp", "inputs warped by true depth (oracle: sees the depth)", baselines.depth_warp),
    )
    return found if depth_of(data) is not None else found[:2]


def depth_of(data: MultiViewSplit) -> np.ndarray | None:
    """Depth of a split, read as ``depth[scene, view]``, or None where it has none."""
    depth: np.ndarray | None = getattr(data, "depth", None)
    return depth


def _as_float(images: np.ndarray) -> Tensor:
    return channels_second(images).contiguous().float().div_(255)
