"""What a set of pictures with named things is made of: sizes, splits, words and seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bench.data.draws import of_name
from bench.data.labelled import Vocabulary
from bench.data.named.words import COLOURS, SHAPES, TEXTURES, Names, compose
from bench.errors import UserError

NAMED_VERSION = "1"
"""Stored in every manifest and mixed into every seed; bumped whenever a change here or in the renderer moves a pixel."""

SPLITS = ("train", "validation", "test", "words")
GROUPS_OF = {
    "train": ("seen",),
    "validation": ("seen",),
    "test": ("seen", "unseen"),
    "words": ("seen", "unseen", "word"),
}
"""Which compositions a split shows; of `words`, every second thing has a word that training lacks."""

PICTURES_PER_SHARD = 125
"""About five seconds of one core at 80 pixels."""
MOST_PICTURES = 1_000_000_000


@dataclass(frozen=True)
class NamedSceneSpec:
    """Everything that determines the pixels and the labels. Equal specs give equal bytes."""

    image_size: int = 80
    """Height and width in pixels."""
    train_images: int = 1500
    validation_images: int = 100
    test_images: int = 300
    words_images: int = 100
    textures: int = 3
    colours: int = 8
    shapes: int = 8
    """Words of each kind that training sees: the first of `TEXTURES`, `COLOURS` and `SHAPES`."""
    supersampling: int = 2
    """RGB averages this many samples squared per pixel; labels always belong to the one ray at its centre."""
    seed: int = 0
    """Another seed gives other pictures, and other compositions are unseen."""

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        limits = {"image_size": (32, 1024), "supersampling": (1, 8), "seed": (0, 2**32 - 1)}
        limits |= {"textures": (2, len(TEXTURES)), "colours": (3, len(COLOURS)), "shapes": (3, len(SHAPES))}
        limits |= {f"{split}_images": (1, MOST_PICTURES) for split in SPLITS}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise UserError(f"named.{name} must be a whole number from {low} to {high}, got {value!r}")

    def images(self, split: str) -> int:
        """Number of pictures in `split`."""
        return int(getattr(self, f"{check_split(split)}_images"))

    def names(self) -> Names:
        """All compositions of the words."""
        return _names(self.textures, self.colours, self.shapes, self.seed)

    def vocabulary(self, split: str) -> Vocabulary:
        """The classes of `split`. Those of `train` come first in those of `test`, and these in those of `words`."""
        return self.names().vocabulary(*GROUPS_OF[check_split(split)])

    def describe(self, split: str) -> dict[str, Any]:
        """The part of the spec that determines the bytes of `split`, and nothing else.

        A change of `test_images` therefore leaves cached training pictures valid.
        """
        common = {name: value for name, value in asdict(self).items() if not name.endswith("_images")}
        return common | {
            "version": NAMED_VERSION,
            "split": split,
            "images": self.images(split),
            "images_per_shard": PICTURES_PER_SHARD,
        }

    def generator(self, split: str, index: int) -> np.random.Generator:
        """The one source of randomness of a picture: a function of version, seed, split and number alone."""
        if not 0 <= index < self.images(split):
            raise IndexError(f"picture {index} is not in {split}, which has {self.images(split)} pictures")
        return np.random.default_rng(int(of_name(f"named/{NAMED_VERSION}/{self.seed}/{split}/{index}")))


@lru_cache(maxsize=8)
def _names(textures: int, colours: int, shapes: int, seed: int) -> Names:
    return compose(textures, colours, shapes, seed)


def check_split(split: str) -> str:
    """Return `split`, or raise `UserError` if there is no such split."""
    if split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return split


def shard_ranges(spec: NamedSceneSpec, split: str) -> list[range]:
    """Picture numbers of each shard of `split`."""
    images = spec.images(split)
    return [range(start, min(start + PICTURES_PER_SHARD, images)) for start in range(0, images, PICTURES_PER_SHARD)]
