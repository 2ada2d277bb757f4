"""Posed images as arrays, in memory or memory-mapped, where every scene has the same number of views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.data.draws import Salt, stream
from bench.data.multiview import Views

if TYPE_CHECKING:
    from bench.data.shards import ShardedArray


@dataclass(frozen=True, kw_only=True)
class ArraySplit:
    """A `MultiViewSplit` of N scenes with V views each. Only what is asked for is read."""

    rgb: np.ndarray | ShardedArray
    """uint8 [N, V, H, W, 3]"""
    c2w: np.ndarray
    """fp32 [N, V, 4, 4], OpenCV: x right, y down, z forward."""
    intrinsics: np.ndarray
    """fp32 (fx, fy, cx, cy) in pixels [N, V, 4]; pixel centres at + 0.5."""
    depth: np.ndarray | ShardedArray | None = None
    """[N, V, H, W], along the camera's z axis in the units of `c2w`; 0 where there is only sky."""

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.rgb)

    def sample_name(self, scene: int, view: int) -> str:
        """``0007/05`` is view 5 of scene 7."""
        return f"{scene:04d}/{view:02d}"

    def choose(
        self, scenes: np.ndarray, draws: np.ndarray, input_views: int, target_views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Any views of a scene, by `choose_views`."""
        return choose_views(draws, self.rgb.shape[1], input_views, target_views)

    def choose_evaluation(
        self, scenes: np.ndarray, input_views: int, target_views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As in training, with the scene's number for a draw: its targets are the same for every number of inputs."""
        return choose_views(scenes.astype(np.uint64), self.rgb.shape[1], input_views, target_views)

    def load(self, scenes: np.ndarray, views: np.ndarray) -> Views:
        """Views `views` [B, V] of the scenes `scenes` [B]."""
        chosen = (scenes[:, None], views)
        return Views(self.rgb[chosen], self.c2w[chosen], self.intrinsics[chosen])


def choose_views(draws: np.ndarray, views: int, input_views: int, target_views: int) -> tuple[np.ndarray, np.ndarray]:
    """Input and target views of each sample among those of its scene, a function of its draw alone.

    Every draw shuffles the views; inputs are taken from the front and targets from the back, so that a draw's targets stay
    the same when the number of inputs changes.

    Args:
        draws: [B] uint64.
        views: how many views each scene has.
        input_views: Vi.
        target_views: Vt.

    Returns:
        [B, Vi] and [B, Vt] int64, disjoint.

    Raises:
        ValueError: the scenes have fewer than Vi + Vt views.
    """
    if input_views + target_views > views:
        raise ValueError(f"{input_views} inputs and {target_views} targets do not fit the {views} views of a scene")
    order = shuffled(draws, views, salt=Salt.VIEWS)
    return order[:, :input_views], order[:, views - target_views :]


def shuffled(draws: np.ndarray, count: int, salt: int) -> np.ndarray:
    """[B, count] int64: a permutation of 0..count-1 for every draw [B], by sorting one hash a place.

    Another `salt` gives permutations that have nothing to do with these.
    """
    return np.argsort(stream(draws, salt, count), axis=1, kind="stable")
