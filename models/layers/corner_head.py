"""Corner heads: a box as two soft-argmax points (STARK, and MixFormer after it).

Axes: B samples, C channels, s edge of the search map.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOWER = 4
"""Convolutions of a tower before the 1x1 that makes scores; each but the first halves the channels."""
HEAD_MULTIPLE = 2 ** (TOWER - 1)
"""What the channels of a tower's first convolution must divide by."""
PYRAMID = 4
"""Cells of a pyramid's scores along the edge of one cell of the features."""
CORNERS = ("tl", "br")


def conv_block(before: int, after: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())


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

    def __init__(self, channels: int, head_width: int, *, stride: float, size: int, cells: int) -> None:
        super().__init__()
        widths = [channels, *(head_width >> halvings for halvings in range(TOWER))]
        for corner in CORNERS:
            for layer, (before, after) in enumerate(pairwise(widths), 1):
                setattr(self, f"conv{layer}_{corner}", conv_block(before, after))
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
        (left, top), (right, bottom) = (self.expectation(self.scores(features, corner)) for corner in CORNERS)
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


class PyramidCornerHead(CornerHead):
    """A `CornerHead` whose towers grow: the scores have four cells along the edge of one of the features (``CORNER_UP``).

    The features join each tower again behind its second and third block, and what these two give is scored too.

    Args:
        channels: C.
        head_width: c, channels of the first convolution; a multiple of 8.
        stride: pixels of the search picture between two cells of the features.
        size: edge of the search picture in pixels.
        cells: edge of the features.
    """

    def __init__(self, channels: int, head_width: int, *, stride: float, size: int, cells: int) -> None:
        super().__init__(channels, head_width, stride=stride / PYRAMID, size=size, cells=cells * PYRAMID)
        half, quarter, eighth = head_width // 2, head_width // 4, head_width // 8
        for corner in CORNERS:
            setattr(self, f"adjust1_{corner}", conv_block(channels, half))
            setattr(self, f"adjust2_{corner}", conv_block(channels, quarter))
            for branch, widths in ((3, (half, quarter, eighth, 1)), (4, (quarter, eighth, 1))):
                blocks = nn.Sequential(*(conv_block(before, after) for before, after in pairwise(widths)))
                setattr(self, f"adjust{branch}_{corner}", blocks)

    def scores(self, features: Tensor, corner: str) -> Tensor:
        """Scores of the corner ``tl`` or ``br``: [B, C, s, s] -> [B, 4 s, 4 s]."""

        def run(name: str, x: Tensor) -> Tensor:
            made: Tensor = getattr(self, f"{name}_{corner}")(x)
            return made

        # Maps of one size are added before they are doubled, which is the same as after and less work.
        second = run("conv2", run("conv1", features))
        third = run("conv3", doubled(second + run("adjust1", features)))
        fourth = run("conv4", doubled(third + doubled(run("adjust2", features))))
        skipped = doubled(run("adjust4", third) + doubled(run("adjust3", second)))
        return (run("conv5", fourth) + skipped)[:, 0]


def doubled(maps: Tensor) -> Tensor:
    """Every cell four times: [B, C, s, s] -> [B, C, 2 s, 2 s]."""
    return F.interpolate(maps, scale_factor=2.0, mode="nearest")


def corner_head_flops(channels: int, head_width: int, cells: int) -> int:
    """FLOPs of a `CornerHead` on one sample: 2 per multiply-add of the convolutions."""
    widths = [channels, *(head_width >> halvings for halvings in range(TOWER))]
    weights = sum(9 * before * after for before, after in pairwise(widths)) + widths[-1]
    return 2 * 2 * cells**2 * weights


def pyramid_corner_head_flops(channels: int, head_width: int, cells: int) -> int:
    """FLOPs of a `PyramidCornerHead` on one sample with features of edge ``cells``, likewise."""
    c, half, quarter, eighth = (head_width >> halvings for halvings in range(TOWER))
    coarse = channels * (c + half + quarter) + c * half + half * quarter + quarter * eighth + eighth
    middle = half * quarter + quarter * eighth + eighth
    fine = quarter * eighth
    return 2 * 2 * cells**2 * (9 * (coarse + 4 * middle + 16 * fine) + 16 * eighth)
