"""The plainest head for towers that share a space: how well a place fits a class, times a learned factor.

Axes: B samples, T classes, P prompts of a class, C channels that image and text share, h x w grid of image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.layers.cost_volume import cost_volume, mean_text

SCALE = 10.0
BIAS = -3.0
"""At the start: a place of which nothing is known belongs to few of the classes."""


class CosineHead(nn.Module):
    """Cosine of every place with the mean of a class's prompts, times a factor, plus a bias; both are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), SCALE))
        self.bias = nn.Parameter(torch.full((1,), BIAS))

    def forward(self, image_features: Tensor, text_features: Tensor, *guidances: Tensor | None) -> dict[str, Tensor]:
        """[B, C, h, w] and [B or 1, T, P, C] -> ``logits`` [B, T, h, w]; guidances are not read."""
        cost = cost_volume(image_features, mean_text(text_features)[:, :, None])[:, :, 0]
        return {"logits": self.scale * cost + self.bias}

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """2 per multiply-add; ``batch`` holds ``image_features`` and ``text_features``, of which only shapes are read."""
        return 2 * batch["image_features"].numel() * batch["text_features"].shape[1]
