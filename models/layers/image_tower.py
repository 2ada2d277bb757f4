"""The image tower that CAT-Seg learns from scratch: convolutions down to the grid of tokens, then ViT blocks.

Axes: B samples, H x W pixels, h x w grid of tokens, C channels of the features that meet the text, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.precision import full_precision
from models.layers.vit import Block, block_flops, layer_norm

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FINE = 4
"""Rows of the finest map to a row of the grid."""
KERNEL = 3


class ImageMaps(NamedTuple):
    """What the aggregator reads of a picture."""

    features: Tensor | None
    """[B, C, h, w], to be compared with the text; None: a backbone that gives guidance alone."""
    guidance: tuple[Tensor | None, ...]
    """Appearance guidance [B, G0, h, w], and the decoder's [B, G1, 2h, 2w] and [B, G2, 4h, 4w]; None: switched off."""


class Pixels(nn.Module):
    """RGB in 0..1, normalised as a tower was trained on it; in fp32."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> the same shape."""
        with full_precision(image.device):
            return (image.float() - self.mean) / self.std


class ConvStage(nn.Module):
    """A convolution with a stride and one without, around which the first one's output is added."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        kernel = max(KERNEL, 2 * stride - 1)
        self.down = nn.Conv2d(channels, width, kernel, stride, kernel // 2)
        self.norm = nn.GroupNorm(1, width)
        self.conv = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, width, H / stride, W / stride]."""
        x = self.act(self.norm(self.down(x)))
        return x + self.act(self.conv(x))

    def flops(self, cells: int) -> int:
        """For so many cells behind the stride; 2 per multiply-add."""
        return 2 * cells * (self.down.weight.numel() + self.conv.weight.numel())


class SmallImageTower(nn.Module):
    """Three convolution stages, at four, two and one times the grid, and blocks of self-attention on the grid."""

    def __init__(
        self,
        crop_size: int,
        grid: tuple[int, int],
        widths: Sequence[int],
        layers: int,
        heads: int,
        channels: int,
        guidance: Sequence[bool],
    ) -> None:
        """Build it with random weights.

        Args:
            crop_size: edge of the pictures in pixels, a multiple of four times the grid's.
            grid: rows and columns of tokens.
            widths: channels at four, two and one times the grid; the last is D.
            layers: attention blocks.
            heads: attention heads of each.
            channels: C.
            guidance: whether the features guide the aggregator, and the map at twice, at four times the grid the decoder.
        """
        super().__init__()
        fine, coarse, width = widths
        self.crop_size, self.grid, self.guidance = crop_size, grid, tuple(guidance)
        self.pixels = Pixels()
        self.fine = ConvStage(3, fine, crop_size // (FINE * grid[0]))
        self.coarse = ConvStage(fine, coarse, 2)
        self.embed = ConvStage(coarse, width, 2)
        self.position = nn.Parameter(torch.randn(1, grid[0] * grid[1], width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = layer_norm(width)
        self.proj = nn.Linear(width, channels)

    def forward(self, image: Tensor) -> ImageMaps:
        """[B, 3, crop_size, crop_size] -> the maps."""
        fine = self.fine(self.pixels(image))
        coarse = self.coarse(fine)
        tokens = self.embed(coarse).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        features = self.proj(self.norm(tokens)).transpose(1, 2).unflatten(2, self.grid)
        maps = (features, coarse, fine)
        return ImageMaps(features, tuple(m if on else None for m, on in zip(maps, self.guidance, strict=True)))

    def flops(self) -> int:
        """Of one picture: 2 per multiply-add."""
        cells, width = self.grid[0] * self.grid[1], self.proj.in_features
        stages = self.fine.flops(16 * cells) + self.coarse.flops(4 * cells) + self.embed.flops(cells)
        return stages + len(self.blocks) * block_flops(cells, width) + 2 * cells * self.proj.weight.numel()
