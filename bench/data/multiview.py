"""What novel view synthesis asks of its data: posed images, grouped by scene, read a few views at a time."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


class Views(NamedTuple):
    """Posed images of B scenes, V views each."""

    rgb: np.ndarray
    """[B, V, H, W, 3] uint8."""
    c2w: np.ndarray
    """[B, V, 4, 4] fp32, OpenCV camera to world (x right, y down, z forward)."""
    intrinsics: np.ndarray
    """[B, V, 4] fp32: fx, fy, cx, cy in pixels of these images, pixel centres at integer + 0.5."""


class MultiViewSplit(Protocol):
    """One split of a data set. Scenes are numbered from 0 in an order that never changes.

    Optional members, found by ``getattr``:

    - ``notices``: lines that must stand under the table.
    - ``depth``: ``depth[scene, view]`` -> [.., H, W], for reference predictors that may see it.
    - ``fingerprint``: digest (str) of what the split holds, wherever it lies; a comparison is not resumed on other data.
    - ``scene_keys``: for each scene a name (str) that it has in every split of the data set. Two splits that share one are
      refused, so a split of frames, whose scenes are in all of them, has no such member.
    """

    def __len__(self) -> int:
        """Number of scenes."""
        ...

    def sample_name(self, scene: int, view: int) -> str:
        """Name of a view, for good, e.g. ``0007/05``: runs are paired by it."""
        ...

    def choose(
        self, scenes: np.ndarray, draws: np.ndarray, input_views: int, target_views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Views that training sees: a function of the scene and its draw alone, sample by sample.

        Args:
            scenes: [B] int64.
            draws: [B] uint64.
            input_views: Vi.
            target_views: Vt.

        Returns:
            [B, Vi] and [B, Vt] int64 view numbers, disjoint within a sample.
        """
        ...

    def choose_evaluation(
        self, scenes: np.ndarray, input_views: int, target_views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Views that evaluation sees: fixed for each scene, as the data set's own protocol has them.

        Returns:
            [B, Vi] and [B, T] int64; T may be less than `target_views` where the protocol fixes it.
        """
        ...

    def load(self, scenes: np.ndarray, views: np.ndarray) -> Views:
        """Read views `views` [B, V] of the scenes `scenes` [B]: decoded, resized, cropped to the task's image size."""
        ...
