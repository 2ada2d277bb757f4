"""Corner head: a box as two soft-argmax points (STARK, and MixFormer after it).

Axes: B samples, C channels, s edge of the search map.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

TOWER = 4
"""Convolutions of a tower before the 1x1 that makes scores; each but the first halves the channels."""
HEAD_MULTIPLE = 2 ** (TOWER - 1)
"""What the channels of a tower's first convolution must divide by."""


class CornerHead(nn.Module):
    """Scores of the top-left and of the bottom-right corner, each the expectation of a softmax over the map.

    The coordinate of a cell is index * stride / size, of its origin and not of its centre (published code), so a corner can
    lie nowhere beyond the last cell's origin. Nothing orders the two corners: width and height may be negative.

    Args:
        channels: C.
        head_width: channels of the first convolution; a multiple of 8.
        stride: pixels of the search picture between two cells.
        size: edge of the search picture in pixels.
        cells: edge of the map.
    """

    coordinates: Tensor

    def __init__(self, channels: int, head_width: int, *, stride: int, size: int, cells: int) -> None:
        super().__init__()
        widths = [channels, *(head_width >> halvings for halvings in range(TOWER))]
        for corner in ("tl", "br"):
            for layer in range(TOWER):
                convolution = nn.Conv2d(widths[layer], widths[layer + 1], 3, padding=1)
                block = nn.Sequential(convolution, nn.BatchNorm2d(widths[layer + 1]), nn.ReLU())
                setattr(self, f"conv{layer + 1}_{corner}", block)
            scores = nn.Conv2d(widths[-1], 1, 1)
            assert scores.bias is not None
            # The softmax does not see it: its gradient is rounding error, and by chance exactly 0.
            scores.bias.requires_grad_(False)
            setattr(self, f"conv{TOWER + 1}_{corner}", scores)
        self.register_buffer("coordinates", torch.arange(cells) * stride / size, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Find the box.

        Args:
            features: of the search picture, [B, C, s, s].

        Returns:
            fp32 [B, 4]: centre x, y, width, height as fractions of the search picture.
        """
        (left, top), (right, bottom) = (self.expectation(self.scores(features, corner)) for corner in ("tl", "br"))
        return torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=1)

    def scores(self, features: Tensor, corner: str) -> Tensor:
        """Scores of the corner ``tl`` or ``br``: [B, C, s, s] -> [B, s, s]."""
        for layer in range(TOWER + 1):
            features = getattr(self, f"conv{layer + 1}_{corner}")(features)
        return features[:, 0]

    def expectation(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Expected x and y of a point whose log-probabilities are ``scores`` [B, s, s]; fp32 [B] each."""
        probability = scores.float().flatten(1).softmax(dim=1).view_as(scores)
        return (probability.sum(1) * self.coordinates).sum(1), (probability.sum(2) * self.coordinates).sum(1)


def corner_head_flops(channels: int, head_width: int, cells: int) -> int:
    """FLOPs of a `CornerHead` on one sample: 2 per multiply-add of the convolutions."""
    widths = [channels, *(head_width >> halvings for halvings in range(TOWER))]
    weights = sum(9 * before * after for before, after in pairwise(widths)) + widths[-1]
    return 2 * 2 * cells**2 * weights
