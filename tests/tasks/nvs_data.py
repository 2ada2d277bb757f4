"""Cameras that walk about, and the task on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.data.arrays import ArraySplit
from bench.tasks.nvs import NovelViewSynthesis, NVSConfig
from tests.tasks.conftest import labelled_split

CPU = torch.device("cpu")
DRAWS = np.arange(12, dtype=np.uint64)


def wandering_split(scenes: int = 12, views: int = 16, size: int = 32) -> ArraySplit:
    """Cameras that walk about far from the origin, all looking roughly one way."""
    split, generator = labelled_split(scenes, views, size), np.random.default_rng(0)
    split.c2w[..., :3, 3] = generator.normal(50, 3, (scenes, views, 3))
    return split


def wandering_task(cache_dir: Path, split: ArraySplit | None = None, **options) -> NovelViewSynthesis:
    """The task on wandering cameras, or on another split."""
    given = wandering_split() if split is None else split
    config = NVSConfig(**{"image_size": 32, "perceptual": "none", "input_views": 3, **options})
    return NovelViewSynthesis(config, cache_dir, lambda name: given)
