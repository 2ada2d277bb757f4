"""Pictures of coloured tiles whose class is their colour, and models that know the colour of a name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.labelled import VOID, Vocabulary

SIZES = {"train": 9, "validation": 4, "test": 7, "words": 3}
GROUPS = {"train": 6, "validation": 6, "test": 9, "words": 11}
"""Classes of a split: six seen ones, three unseen ones, two of unseen words."""
COLOURS = np.random.default_rng(0).permutation(
    np.stack(np.meshgrid([0, 120, 240], [0, 120, 240], [0, 240])).reshape(3, -1).T
)


def vocabulary(split: str) -> Vocabulary:
    groups = ["seen"] * 6 + ["unseen"] * 3 + ["word"] * 2
    count = GROUPS[split]
    return Vocabulary(tuple(f"tile {number}" for number in range(count)), tuple(groups[:count]))


@dataclass(frozen=True)
class Tiles:
    """Picture i is cut into 3 x 3 tiles of classes of its own; where the class is void, the colour is grey."""

    split: str = "test"
    sizes: tuple[tuple[int, int], ...] = ((24, 24),)
    """Height and width, in turn."""
    void: bool = False
    """Whether the upper left tile of a picture is void."""
    fingerprint: str = "tiles"
    notices: tuple[str, ...] = ("Tiles say nothing of anything.",)

    @property
    def vocabulary(self) -> Vocabulary:
        return vocabulary(self.split)

    def __len__(self) -> int:
        return SIZES[self.split]

    def name(self, index: int) -> str:
        return f"tiles-{index}"

    def labels(self, index: int) -> np.ndarray:
        height, width = self.sizes[index % len(self.sizes)]
        tiles = np.random.default_rng([index, len(self)]).integers(0, GROUPS[self.split], (3, 3))
        tiles[0, 1] = 0  # the most frequent class
        if self.void:
            tiles[0, 0] = VOID
        return tiles[np.arange(height)[:, None] * 3 // height, np.arange(width) * 3 // width].astype(np.uint16)

    def image(self, index: int) -> np.ndarray:
        labels = self.labels(index)
        image = COLOURS[np.where(labels == VOID, 0, labels)]
        image[labels == VOID] = 77
        return image.astype(np.uint8)


def numbers(names: Tensor) -> Tensor:
    """Class numbers [..] that ids [.., P, L] of ``tile <number>`` spell, as bytes."""
    spelled = names[..., 0, :].flatten(0, -2).tolist()
    found = [int(bytes(filter(None, ids)).decode().split()[-1]) for ids in spelled]
    return torch.tensor(found).view(names.shape[:-2])


def sure(image: Tensor, classes: Tensor) -> Tensor:
    """Logits [B, T, H, W]: whether pixels have the colour of each class [B, T]."""
    colours = torch.from_numpy(COLOURS).float()[classes] / 255
    return 10 - 60 * (image[:, None] - colours[..., None, None]).abs().sum(2)


class Seer(nn.Module):
    """Knows the colours of names; by forward alone."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor, names: Tensor) -> dict[str, Tensor]:
        self.sizes.append(tuple(image.shape[2:]))
        return {"logits": sure(image, numbers(names))}


class Segmenter(Seer):
    """Reads names once, and pictures in their own size."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.asked = 0, []

    def encode_text(self, names: Tensor) -> Tensor:
        self.read += 1
        return numbers(names)

    def segment(self, image: Tensor, text: Tensor, size: tuple[int, int]) -> Tensor:
        self.asked.append((tuple(image.shape), size))
        maps = sure(image, text.expand(len(image), -1)).sigmoid()
        return F.interpolate(maps, size)


class Nothing(nn.Module):
    """One number that is learned: the logit of every class everywhere; on a coarse grid."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, image: Tensor, names: Tensor) -> dict[str, Tensor]:
        return {"logits": self.value.expand(*names.shape[:2], 4, 4)}
