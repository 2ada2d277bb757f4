"""Upsampling decoder of CAT-Seg: each class's map is enlarged by itself, beside finer maps of the picture.

Parameter names are those of the published checkpoints. The guidance's share of the convolution behind the concatenation is
made apart, once for a picture instead of once for each class.

Axes: B samples, T classes, h x w grid of the smaller map, C and E channels before and behind, G width of the guidance.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

GROUP_CHANNELS = 16
"""Channels of a group of the group norms."""


def require_groups(name: str, width: int) -> None:
    """Raise ValueError unless group norms can part ``width`` channels, a value of the option ``name``."""
    if width < GROUP_CHANNELS or width % (width // GROUP_CHANNELS):
        raise ValueError(
            f"{name} must hold widths of at least {GROUP_CHANNELS} that divide into groups of {GROUP_CHANNELS} channels "
            f"or a little more, got {width}: try {max(1, round(width / GROUP_CHANNELS)) * GROUP_CHANNELS}"
        )


def project_guidance(channels: int, width: int) -> nn.Sequential:
    """3x3 convolution and ReLU of a map of the picture."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution without bias, group norm, ReLU."""

    double_conv: nn.Sequential

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for source in (channels, width):
            convolution = nn.Conv2d(source, width, 3, padding=1, bias=False)
            layers += [convolution, nn.GroupNorm(width // GROUP_CHANNELS, width), nn.ReLU(inplace=True)]
        self.double_conv = nn.Sequential(*layers)


class GuidedUp(nn.Module):
    """Transposed 2x2 convolution to twice the size, the guidance beside it, `DoubleConv`."""

    def __init__(self, channels: int, width: int, guidance: int) -> None:
        super().__init__()
        self.own = channels - guidance
        self.up = nn.ConvTranspose2d(channels, self.own, kernel_size=2, stride=2)
        self.conv = DoubleConv(channels, width)

    def guide(self, guidance: Tensor) -> Tensor:
        """The guidance's share of the first convolution: [B, G, 2h, 2w] -> [B, E, 2h, 2w]."""
        return F.conv2d(guidance, self.conv.double_conv.get_parameter("0.weight")[:, self.own :], padding=1)

    def forward(self, x: Tensor, guided: Tensor | None) -> Tensor:
        """[B * T, C, h, w] -> [B * T, E, 2h, 2w]; ``guided`` as `guide` gave it."""
        x = F.conv2d(self.up(x), self.conv.double_conv.get_parameter("0.weight")[:, : self.own], padding=1)
        if guided is not None:
            x = (x.unflatten(0, (len(guided), -1)) + guided[:, None]).flatten(0, 1)
        return self.conv.double_conv[1:](x)


def up_flops(places: int, channels: int, width: int, guidance: int) -> int:
    """FLOPs of a `GuidedUp` on one class's map of ``places`` places, without guidance; 2 per multiply-add."""
    own = channels - guidance
    return 8 * places * (channels * own + 9 * (own * width + width**2))


def up_guidance_flops(places: int, width: int, guidance: int) -> int:
    """FLOPs of the guidance's share, on one map, likewise; ``places`` of the smaller map."""
    return 72 * places * guidance * width
