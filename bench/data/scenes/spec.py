"""What a set of rendered scenes is made of: sizes, splits and seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.errors import UserError

SCENES_VERSION = "1"
"""Stored in every manifest and mixed into every seed; bumped whenever a change here or in the renderer moves a pixel."""

SPLITS = ("train", "validation", "test", "ood")
"""`ood` is out of distribution: its shapes and textures occur in no other split."""

SEEDS_PER_SPLIT = 1_000_000_000
"""Split number s owns the scene seeds [s * SEEDS_PER_SPLIT, (s + 1) * SEEDS_PER_SPLIT): the ranges never meet."""


IMAGES_PER_SHARD = 240
"""About two seconds of one core at 64 pixels: small enough to spread evenly, large enough to keep files few."""


@dataclass(frozen=True)
class SceneSpec:
    """Everything that determines the rendered pixels. Equal specs give equal bytes, whatever the number of workers."""

    image_size: int = 64
    """Height and width in pixels."""
    train_scenes: int = 2000
    validation_scenes: int = 64
    test_scenes: int = 100
    ood_scenes: int = 100
    train_views: int = 6
    """Views of a training or validation scene."""
    test_views: int = 16
    """Views of a test or ood scene: up to 8 inputs and 8 targets."""
    supersampling: int = 2
    """RGB averages this many samples squared per pixel; depth and ids always belong to the one ray at its centre."""
    seed: int = 0
    """Another seed gives other scenes of the same kind."""

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        limits = {"image_size": (8, 4096), "supersampling": (1, 8), "seed": (0, 2**32 - 1)}
        limits |= dict.fromkeys(("train_views", "test_views"), (2, 1024))
        limits |= {f"{split}_scenes": (1, SEEDS_PER_SPLIT) for split in SPLITS}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise UserError(f"scenes.{name} must be a whole number from {low} to {high}, got {value!r}")

    def scenes(self, split: str) -> int:
        """Number of scenes in `split`."""
        return int(getattr(self, f"{check_split(split)}_scenes"))

    def views(self, split: str) -> int:
        """Number of views of each scene in `split`."""
        return self.train_views if check_split(split) in ("train", "validation") else self.test_views

    def describe(self, split: str) -> dict[str, Any]:
        """The part of the spec that determines the bytes of `split`, and nothing else.

        A change of `test_scenes` therefore leaves cached training scenes valid.
        """
        common = {name: value for name, value in asdict(self).items() if not name.endswith(("_scenes", "_views"))}
        start, stop = seed_range(self, split)
        return common | {
            "version": SCENES_VERSION,
            "split": split,
            "scenes": self.scenes(split),
            "views": self.views(split),
            "scenes_per_shard": len(shard_ranges(self, split)[0]),
            "seeds": [start, stop],
        }


def check_split(split: str) -> str:
    """Return `split`, or raise `UserError` if there is no such split."""
    if split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return split


def seed_range(spec: SceneSpec, split: str) -> tuple[int, int]:
    """First scene seed of `split` and one past the last."""
    start = SPLITS.index(check_split(split)) * SEEDS_PER_SPLIT
    return start, start + spec.scenes(split)


def shard_ranges(spec: SceneSpec, split: str) -> list[range]:
    """Scene indices of each shard of `split`."""
    length, scenes = max(1, IMAGES_PER_SHARD // spec.views(split)), spec.scenes(split)
    return [range(start, min(start + length, scenes)) for start in range(0, scenes, length)]


def scene_generator(spec: SceneSpec, split: str, index: int) -> np.random.Generator:
    """The one source of randomness of scene `index` of `split`: a function of version, seed, split and index alone."""
    start, stop = seed_range(spec, split)
    if not 0 <= index < stop - start:
        raise IndexError(f"scene {index} is not in {split}, which has {stop - start} scenes")
    return np.random.default_rng([int(SCENES_VERSION), spec.seed, start + index])
