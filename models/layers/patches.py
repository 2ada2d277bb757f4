"""From pixels to tokens and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.precision import full_precision

TOKEN_STD = 0.02
"""Standard deviation of the initial weights of tokenisers and heads (LVSM, published code)."""


def patch_grid(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches; raises ValueError where the size is not a multiple of the patch size."""
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"image height and width must be multiples of patch_size {patch_size}, got {height} x {width}: "
            f"resize or crop the images, or choose another patch_size"
        )
    return height // patch_size, width // patch_size


def resized(maps: Tensor, size: tuple[int, int], mode: str, *, antialias: bool = True) -> Tensor:
    """[N, C, h, w] to another height and width, in fp32.

    Enlarging is plain interpolation by ``mode`` (bilinear or bicubic); shrinking is too unless ``antialias``.
    """
    if tuple(maps.shape[-2:]) == size:
        return maps
    shrinks = size[0] < maps.shape[-2] or size[1] < maps.shape[-1]
    with full_precision(maps.device):
        return F.interpolate(maps.float(), size=size, mode=mode, align_corners=False, antialias=antialias and shrinks)


def patchify(pixels: Tensor, patch_size: int) -> Tensor:
    """Cut images into square patches.

    Args:
        pixels: [..., C, H, W].
        patch_size: edge p of a patch in pixels; must divide H and W.

    Returns:
        [..., P, p * p * C]: patches row by row; inside a patch (row, column, channel), the channel fastest.

    Raises:
        ValueError: H or W is not a multiple of the patch size.
    """
    *lead, channels, height, width = pixels.shape
    p, n = patch_size, len(lead)
    rows, columns = patch_grid(height, width, p)
    grid = pixels.reshape(*lead, channels, rows, p, columns, p)
    grid = grid.permute(*range(n), n + 1, n + 3, n + 2, n + 4, n)
    return grid.reshape(*lead, rows * columns, p * p * channels)


def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """Put patches together again; the inverse of `patchify`.

    Args:
        patches: [..., P, p * p * C].
        patch_size: edge p of a patch in pixels.
        height: rows H of the image.
        width: columns W of the image.

    Returns:
        [..., C, H, W].
    """
    p, lead = patch_size, patches.shape[:-2]
    n = len(lead)
    grid = patches.reshape(*lead, height // p, width // p, p, p, -1)
    grid = grid.permute(*range(n), n + 4, n, n + 2, n + 1, n + 3)
    return grid.reshape(*lead, -1, height, width)


class Patchify(nn.Module):
    """`patchify` as the first, weightless stage of a tokeniser."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, pixels: Tensor) -> Tensor:
        """[..., C, H, W] -> [..., P, p * p * C]."""
        return patchify(pixels, self.patch_size)


class PatchTokenizer(nn.Sequential):
    """One linear map from the pixels of a patch to a token, without bias, in fp32 also under autocast."""

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        linear = nn.Linear(channels * patch_size**2, width, bias=False)
        nn.init.normal_(linear.weight, std=TOKEN_STD)
        super().__init__(Patchify(patch_size), linear)

    def forward(self, pixels: Tensor) -> Tensor:
        """[..., C, H, W] -> [..., P, width]."""
        with full_precision(pixels.device):
            return super().forward(pixels.float())


def prepend(registers: Tensor, tokens: Tensor) -> Tensor:
    """Put learned tokens [1, R, D] before the tokens of each view [B, V, P, D]."""
    return torch.cat([registers[None].expand(*tokens.shape[:2], -1, -1), tokens], dim=2)


class ImageDecoder(nn.Sequential):
    """Head of the view-synthesis architectures: norm, linear map to the pixels of a patch (no bias), sigmoid."""

    def __init__(self, norm: nn.Module, patch_size: int, width: int) -> None:
        linear = nn.Linear(width, 3 * patch_size**2, bias=False)
        nn.init.normal_(linear.weight, std=TOKEN_STD)
        super().__init__(norm, linear)
        self.patch_size = patch_size

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:  # type: ignore[override]
        """[..., P, width] -> RGB in 0..1, fp32, [..., 3, height, width]."""
        # bf16 has eight bits between 0.5 and 1, no more than a pixel, hence fp32 before the sigmoid.
        patches = torch.sigmoid(super().forward(tokens).float())
        return unpatchify(patches, self.patch_size, height, width)
