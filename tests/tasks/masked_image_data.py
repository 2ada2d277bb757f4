"""Images that say which they are, and models of the masked-image task whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bench.metrics import masked

SIZES = {"train": 60, "validation": 10, "test": 30}


@dataclass(frozen=True)
class LabelledImages:
    """Image i of a split is noise about a grey of its own; its class is i modulo 3 and shows in its left half."""

    split: str
    size: int = 32
    classes: tuple[str, ...] = ("red", "green", "blue")

    def __len__(self) -> int:
        return SIZES[self.split]

    def sample_name(self, index: int) -> str:
        return f"{index:04d}"

    def load(self, indices: np.ndarray, draws: np.ndarray | None = None, augment: str = "none") -> np.ndarray:
        images = []
        for index in indices:
            generator = np.random.default_rng([list(SIZES).index(self.split), int(index)])
            image = generator.integers(60, 160, (self.size, self.size, 3), np.uint8)
            image[:, : self.size // 2, index % 3] += 90
            images.append(image)
        return np.stack(images)

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return indices % 3


class Constant(nn.Module):
    """Predicts one number for every pixel of the patches whose noise is not among the `kept` least; of all, or those alone."""

    def __init__(self, kept: int, patch_size: int = 8, value: float = 0.0, *, only_masked: bool = False) -> None:
        super().__init__()
        self.kept, self.pixels, self.value, self.only_masked = kept, 3 * patch_size**2, value, only_masked

    def forward(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        mask = (noise.argsort(1).argsort(1) >= self.kept).float()
        patches = noise.shape[1] - self.kept if self.only_masked else noise.shape[1]
        return {"prediction": torch.full((len(noise), patches, self.pixels), self.value), "mask": mask}


class Oracle(Constant):
    """Was told the whole images in the order of evaluation: what it predicts is true, in pixels or normalised patches."""

    def __init__(self, images: Tensor, normalised: bool = False, **options) -> None:
        super().__init__(**options)
        self.images, self.normalised, self.seen = images, normalised, 0

    def forward(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        outputs = super().forward(images, noise)
        part = self.images[self.seen : self.seen + len(images)]
        self.seen += len(images)
        patches = masked.patchify(part, round((self.pixels / 3) ** 0.5))
        if self.normalised:
            mean, deviation = masked.patch_statistics(patches)
            patches = (patches - mean) / deviation
        if self.only_masked:
            patches = patches[outputs["mask"].bool()].view(len(images), -1, self.pixels)
        return {**outputs, "prediction": patches}


class FewerInTraining(Constant):
    """Predicts a part of the masked patches, unless asked for all."""

    def forward(self, images: Tensor, noise: Tensor, predict_all: bool = False) -> dict[str, Tensor]:
        mask = (noise.argsort(1).argsort(1) >= self.kept + (0 if predict_all else 3)).float()
        count = int(mask[0].sum())
        return {"prediction": torch.full((len(noise), count, self.pixels), self.value), "mask": mask}
