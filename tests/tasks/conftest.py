"""A data set whose pixels and poses say which scene and view they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.data.arrays import ArraySplit
from bench.tasks.nvs import NovelViewSynthesis, NVSConfig


def labelled_split(scenes: int, views: int, size: int = 32) -> ArraySplit:
    """Every pixel of view v of scene s is (s, v, 0); so is the position of its camera."""
    rgb = np.zeros((scenes, views, size, size, 3), np.uint8)
    rgb[..., 0] = np.arange(scenes)[:, None, None, None]
    rgb[..., 1] = np.arange(views)[None, :, None, None]
    c2w = np.tile(np.eye(4, dtype=np.float32), (scenes, views, 1, 1))
    c2w[..., :3, 3] = rgb[:, :, 0, 0]
    intrinsics = np.full((scenes, views, 4), size, np.float32)
    return ArraySplit(rgb=rgb, c2w=c2w, intrinsics=intrinsics, depth=np.ones(rgb.shape[:-1], np.float16))


SIZES = {"train": (40, 6), "validation": (8, 6), "test": (37, 16), "ood": (5, 16)}


@pytest.fixture
def make_task(tmp_path: Path):
    """`make_task(**options)` on labelled scenes of 32 px; no perceptual metric unless asked for."""

    def make(**options) -> NovelViewSynthesis:
        config = NVSConfig(**{"image_size": 32, "perceptual": "none", **options})
        return NovelViewSynthesis(config, tmp_path, lambda split: labelled_split(*SIZES[split]))

    return make
