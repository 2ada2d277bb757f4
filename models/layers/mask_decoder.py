"""From features to masks: a U-Net decoder of one object, and the soft aggregation of several (STM's lineage).

Axes: B clips, O objects, C channels, H x W pixels; h16, h8 and h4 stand for the three grids of the backbone, whatever its
strides.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.precision import full_precision

CLAMP = 1e-7
"""Distance that probabilities keep from 0 and 1 before they are turned into logits."""
LOGIT_LIMIT = math.log((1 - CLAMP) / CLAMP)
"""Largest magnitude of an aggregated logit, about 16.1."""


class ResidualBlock(nn.Module):
    """ReLU, 3 x 3, ReLU, 3 x 3, added to the input, which a 3 x 3 convolution brings to another width where needed."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample = None if channels == out_channels else nn.Conv2d(channels, out_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, out_channels, h, w]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return shortcut + self.conv2(F.relu(self.conv1(F.relu(x))))


class UpsampleBlock(nn.Module):
    """Brings a coarse feature to the grid of a skip, adds the skip, and mixes both."""

    def __init__(self, skip_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(skip_channels, channels, 3, padding=1)
        self.out_conv = ResidualBlock(channels, out_channels)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """Skip [B, Cs, h, w], one for all objects, and coarse features [B * O, C, h', w'] -> [B * O, out, h, w]."""
        skip = self.skip_conv(skip)
        up = F.interpolate(coarse, skip.shape[-2:], mode="bilinear", align_corners=False)
        joint = up.unflatten(0, (skip.shape[0], -1)) + skip[:, None]
        return self.out_conv(joint.flatten(0, 1))


class MaskDecoder(nn.Module):
    """The U-Net of the notes: the coarsest feature goes straight in, the two finer ones are skips.

    Names are those of the published descendant, whose decoder first fuses and narrows the coarsest feature; this one does
    not, so that its weights fit only from the second block on.
    """

    def __init__(self, widths: tuple[int, int, int], width: int) -> None:
        """Build it for features of ``widths`` (f4, f8, f16) channels; ``width`` channels leave each block."""
        super().__init__()
        fine, middle, coarse = widths
        self.up_16_8 = UpsampleBlock(middle, coarse, width)
        self.up_8_4 = UpsampleBlock(fine, width, width)
        self.pred = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, f16: Tensor, f8: Tensor, f4: Tensor, size: tuple[int, int]) -> Tensor:
        """Decode the masks of all objects.

        Args:
            f16: [B, O, C16, h16, w16].
            f8: [B, C8, h8, w8], of the frame alone.
            f4: [B, C4, h4, w4], likewise.
            size: (H, W) in pixels.

        Returns:
            Logits of each object on its own, fp32 [B, O, H, W].
        """
        g8 = self.up_16_8(f8, f16.flatten(0, 1))
        g4 = self.up_8_4(f4, g8)
        logits = F.interpolate(self.pred(F.relu(g4)).float(), size, mode="bilinear", align_corners=False)
        return logits.unflatten(0, f16.shape[:2]).squeeze(2)

    def flops(self, h8: int, w8: int, h4: int, w4: int, objects: int) -> int:
        """FLOPs of one frame: 2 per multiply-add, convolutions; resampling not counted."""
        flops = 0
        for block, cells in ((self.up_16_8, h8 * w8), (self.up_8_4, h4 * w4)):
            own = sum(weight.numel() for weight in block.out_conv.parameters() if weight.ndim == 4)
            flops += 2 * cells * (block.skip_conv.weight.numel() + objects * own)
        return flops + 2 * h4 * w4 * objects * self.pred.weight.numel()


def aggregate(logits: Tensor, live: Tensor) -> Tensor:
    """Make one distribution over background and objects of masks that were predicted one by one.

    With p_o the sigmoid of an object's logit, 0 where it is not live, and the background's p = prod(1 - p_o), all clamped
    to [1e-7, 1 - 1e-7]: the softmax over the logits of these probabilities is the distribution.

    Args:
        logits: [B, O, H, W].
        live: bool [B, O], which objects there are.

    Returns:
        fp32 logits [B, 1 + O, H, W], background first, at most `LOGIT_LIMIT` large.
    """
    with full_precision(logits.device):
        here = live[:, :, None, None]
        logits = logits.float().masked_fill(~here, -LOGIT_LIMIT)
        # In logarithms, log prod(1 - p) = sum log sigmoid(-x), nothing is lost where a probability rounds to 0 or 1.
        log_background = F.logsigmoid(-logits).masked_fill(~here, 0.0).sum(1, keepdim=True)
        log_background = log_background.clamp(math.log(CLAMP), -CLAMP)
        background = log_background - torch.log(-torch.expm1(log_background))
        return torch.cat([background, logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)], dim=1)


def enforce(logits: Tensor, masks: Tensor, given: Tensor) -> Tensor:
    """Put given masks into aggregated logits: there and only there, the object is what is seen.

    Args:
        logits: [B, 1 + O, H, W] of `aggregate`.
        masks: [B, O, H, W] in {0, 1}; no matter for objects that are not given.
        given: bool [B, O].

    Returns:
        [B, 1 + O, H, W].
    """
    own = given[:, :, None, None] & (masks > 0.5)
    taken = own.any(1, keepdim=True)
    # Inside a given mask all else is at the lower limit; outside, a given object is.
    lowered = torch.cat([taken, taken | given[:, :, None, None]], dim=1)
    logits = logits.masked_fill(lowered, -LOGIT_LIMIT)
    return logits.masked_fill(F.pad(own, (0, 0, 0, 0, 1, 0)), LOGIT_LIMIT)
