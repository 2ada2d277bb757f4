"""Fixed sine and cosine embeddings of positions (MAE, published code)."""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10000.0
"""Wavelengths run from 2 pi to 2 pi times this."""


def sincos(positions: Tensor, width: int) -> Tensor:
    """Embed positions on one axis.

    Args:
        positions: any shape [...], floating point.
        width: number of channels, even.

    Returns:
        [..., width] in the type of ``positions``: all sines, then all cosines, the fastest wave first in each.

    Raises:
        ValueError: an odd width.
    """
    if width % 2:
        raise ValueError(f"width of a sine and cosine embedding must be even, got {width}")
    half = width // 2
    exponents = torch.arange(half, dtype=positions.dtype, device=positions.device) / half
    angles = positions[..., None] / BASE**exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def sincos_grid(height: int, width_in_patches: int, channels: int) -> Tensor:
    """Embed the cells of a grid, half of the channels for each axis.

    Args:
        height: rows of the grid.
        width_in_patches: columns of the grid.
        channels: a multiple of four.

    Returns:
        [height * width_in_patches, channels] fp32, cells row by row; the column's half of the channels comes first.

    Raises:
        ValueError: channels that do not divide by four.
    """
    if channels % 4:
        raise ValueError(f"channels of a sine and cosine grid must be a multiple of 4, got {channels}")
    axes = (torch.arange(height, dtype=torch.float64), torch.arange(width_in_patches, dtype=torch.float64))
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    return torch.cat([sincos(axis.flatten(), channels // 2) for axis in (columns, rows)], dim=-1).float()
