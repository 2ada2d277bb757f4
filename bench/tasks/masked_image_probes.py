"""Probes of the task ``masked-image``: what frozen features of whole images know about their classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bench.metrics import masked, probe
from bench.tasks.masked_image_data import steps

if TYPE_CHECKING:
    from bench.tasks.masked_image_data import ImageSplit

Features = Callable[[Tensor], Tensor]
"""Normalised images [B, 3, H, W] -> features [B, E]."""


@torch.inference_mode()
def score(
    features: Features, train: ImageSplit, test: ImageSplit, train_count: int, step: int, device: torch.device
) -> dict[str, list[float]]:
    """For each probe 1 or 0 for every image of `test`: whether it tells the class.

    Args:
        features: of whole images.
        train: its first images, as evaluation sees them, are what the probes learn from.
        test: what they are scored on.
        train_count: so many of `train`, or all that there are.
        step: images in one call of `features`.
        device: where they are computed.
    """

    def featured(data: ImageSplit, count: int) -> tuple[Tensor, Tensor]:
        parts = []
        for indices in steps(count, step):
            images = torch.from_numpy(data.load(indices)).movedim(-1, 1).to(device)
            parts.append(features(masked.normalise(images.float().div_(255))).float())
        return torch.cat(parts), torch.from_numpy(data.labels(np.arange(count))).to(device)

    learned, scored = featured(train, min(train_count, len(train))), featured(test, len(test))
    return probe.correct(*learned, *scored, classes=len(train.classes))


def majority(train: ImageSplit, test: ImageSplit, train_count: int) -> tuple[str, list[float]]:
    """The most frequent class of the first `train_count` images, and 1 or 0 for every image of `test`: whether it is that."""
    labels = train.labels(np.arange(min(train_count, len(train))))
    most = int(np.bincount(labels[labels >= 0], minlength=len(train.classes)).argmax())
    return train.classes[most], (test.labels(np.arange(len(test))) == most).astype(float).tolist()
