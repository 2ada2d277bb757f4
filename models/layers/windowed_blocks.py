"""Spatial aggregation: the places of one class's map read one another, under the guidance of the picture.

`WindowedBlocks` are two Swin blocks (Liu et al. 2021) without a position bias; `ConvBlocks` is a bottleneck instead.
Parameter names are those of CAT-Seg's published checkpoints. The guidance is concatenated to the cost embedding in the
published code; here its share of each projection is made apart, once for a picture instead of once for each class.

Axes: B samples, T classes, h x w grid, D hidden width, G width of the guidance, a attention heads, W windows of n places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.vit import MLP, MLP_RATIO

MASK_VALUE = -100.0
"""What is added to the attention logit of two places that are no neighbours in a shifted window."""
BOTTLENECK = 4
"""What the width of `ConvBlocks` is divided by in its 3x3 convolution."""


def window_layout(grid: tuple[int, int], window_size: int, *, shifted: bool) -> tuple[int, int]:
    """Edge and shift of the windows on a grid: on one that is no larger than a window, smaller ones are not shifted.

    Raises:
        ValueError: the windows do not tile the grid.
    """
    window = min(window_size, *grid)
    if any(edge % window for edge in grid):
        raise ValueError(
            f"the grid must be a multiple of its windows of {window} x {window}, got {grid[0]} x {grid[1]}: change the "
            f"picture's size or window_size {window_size}"
        )
    return window, window_size // 2 if shifted and min(grid) > window_size else 0


def to_windows(x: Tensor, window: int, shift: int) -> Tensor:
    """[..., h, w, C] -> [..., n, W, C], after a cyclic shift by ``shift`` to the upper left.

    The windows come last, so that they can stand beside the heads: one mask then serves all samples and classes.
    """
    if shift:
        x = x.roll((-shift, -shift), (-3, -2))
    x = x.unflatten(-2, (-1, window)).unflatten(-4, (-1, window))  # [..., rows, window, columns, window, C]
    return x.movedim((-5, -3), (-3, -2)).flatten(-5, -4).flatten(-3, -2)


def from_windows(x: Tensor, grid: tuple[int, int], window: int, shift: int) -> Tensor:
    """Undo `to_windows`: [..., n, W, C] -> [..., h, w, C]."""
    x = x.unflatten(-2, (grid[0] // window, grid[1] // window)).unflatten(-4, (window, window))
    x = x.movedim((-3, -2), (-5, -3)).flatten(-3, -2).flatten(-4, -3)
    return x.roll((shift, shift), (-3, -2)) if shift else x


def shift_mask(grid: tuple[int, int], window: int, shift: int) -> Tensor:
    """Additive mask [W, n, n] of shifted windows: `MASK_VALUE` where the shift brought two places together."""
    regions = []
    for edge in grid:
        place = torch.arange(edge)
        regions.append((place >= edge - window).int() + (place >= edge - shift).int())
    region = to_windows((3 * regions[0][:, None] + regions[1])[..., None], window, 0)[..., 0].T
    return torch.where(region[:, :, None] == region[:, None], 0.0, MASK_VALUE)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows; queries and keys see the guidance, values do not."""

    def __init__(self, width: int, guidance: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.q = nn.Linear(width + guidance, width)
        self.k = nn.Linear(width + guidance, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def guide(self, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """The guidance's share of queries and keys: [..., G] -> twice [..., D]."""
        return F.linear(guidance, self.q.weight[:, self.width :]), F.linear(guidance, self.k.weight[:, self.width :])

    def forward(self, x: Tensor, guided: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> Tensor:
        """Read within windows.

        Args:
            x: [B, T, n, W, D].
            guided: what `guide` gave, [B, n, W, D] each.
            mask: [W, n, n], added to the logits.

        Returns:
            [B, T, n, W, D].
        """
        queries, keys = (F.linear(x, part.weight[:, : self.width], part.bias) for part in (self.q, self.k))
        if guided is not None:
            queries, keys = queries + guided[0][:, None], keys + guided[1][:, None]
        # [B * T, W * a, n, d]: windows and heads are one axis.
        parts = (y.flatten(0, 1).unflatten(-1, (self.heads, -1)).flatten(2, 3) for y in (queries, keys, self.v(x)))
        queries, keys, values = (part.transpose(1, 2) for part in parts)
        if mask is not None:
            mask = mask.to(queries.dtype).repeat_interleave(self.heads, 0)[None]
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.proj(out.transpose(1, 2).reshape(x.shape))


class WindowBlock(nn.Module):
    """``x += attention(norm1 x); x += MLP(norm2 x)`` on windows, shifted by half their edge or not."""

    attn_mask: Tensor | None

    def __init__(
        self, width: int, guidance: int, heads: int, grid: tuple[int, int], window_size: int, *, shifted: bool
    ) -> None:
        super().__init__()
        self.window_size, self.shifted, self.grid = window_size, shifted, grid
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, guidance, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width)
        window, shift = window_layout(grid, window_size, shifted=shifted)
        self.register_buffer("attn_mask", shift_mask(grid, window, shift) if shift else None)

    def guide(self, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """What the guidance [B, h, w, G] gives to queries and keys in the block's windows, [B, n, W, D] each."""
        window, shift = window_layout((guidance.shape[1], guidance.shape[2]), self.window_size, shifted=self.shifted)
        queries, keys = self.attn.guide(guidance)
        return to_windows(queries, window, shift), to_windows(keys, window, shift)

    def forward(self, x: Tensor, guided: tuple[Tensor, Tensor] | None) -> Tensor:
        """[B, T, h, w, D] -> [B, T, h, w, D]; ``guided`` as `guide` gave it."""
        grid = (x.shape[2], x.shape[3])
        window, shift = window_layout(grid, self.window_size, shifted=self.shifted)
        mask = self.attn_mask
        if grid != self.grid:
            mask = shift_mask(grid, window, shift).to(x.device) if shift else None
        out = self.attn(to_windows(self.norm1(x), window, shift), guided, mask)
        x = x + from_windows(out, grid, window, shift)
        return x + self.mlp(self.norm2(x))


class WindowedBlocks(nn.Module):
    """A block of plain windows and one of shifted windows; the guidance is layer-normed once for both."""

    def __init__(self, width: int, guidance: int, heads: int, grid: tuple[int, int], window_size: int) -> None:
        super().__init__()
        self.block_1 = WindowBlock(width, guidance, heads, grid, window_size, shifted=False)
        self.block_2 = WindowBlock(width, guidance, heads, grid, window_size, shifted=True)
        self.guidance_norm = nn.LayerNorm(guidance) if guidance else None

    def guide(self, guidance: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What the guidance [B, h, w, G] gives to each block, for all classes alike."""
        assert self.guidance_norm is not None
        guidance = self.guidance_norm(guidance)
        return [self.block_1.guide(guidance), self.block_2.guide(guidance)]

    def forward(self, x: Tensor, guided: list[tuple[Tensor, Tensor]] | None) -> Tensor:
        """[B, T, h, w, D] -> [B, T, h, w, D], each class by itself; ``guided`` as `guide` gave it."""
        first, second = guided or (None, None)
        return self.block_2(self.block_1(x, first), second)


class Bottleneck(nn.Module):
    """Residual block of ResNet-50: 1x1, 3x3 and 1x1 convolution without biases, each with a batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // BOTTLENECK
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, D, h, w] -> [N, D, h, w]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(x + self.bn3(self.conv3(y)))


class ConvBlocks(nn.Module):
    """1x1 convolution of [cost; guidance], then a `Bottleneck`: CAT-Seg's own, unused alternative to windows."""

    def __init__(self, width: int, guidance: int) -> None:
        super().__init__()
        self.width = width
        self.conv_linear = nn.Conv2d(width + guidance, width, 1)
        self.conv_layer = Bottleneck(width)

    def guide(self, guidance: Tensor) -> Tensor:
        """The guidance's share of the first convolution, for all classes alike: [B, h, w, G] -> [B, h, w, D]."""
        return F.linear(guidance, self.conv_linear.weight[:, self.width :, 0, 0])

    def forward(self, x: Tensor, guided: Tensor | None) -> Tensor:
        """[B, T, h, w, D] -> [B, T, h, w, D], each class by itself; ``guided`` as `guide` gave it."""
        x = F.linear(x, self.conv_linear.weight[:, : self.width, 0, 0], self.conv_linear.bias)
        if guided is not None:
            x = x + guided[:, None]
        maps = x.flatten(0, 1).permute(0, 3, 1, 2)
        return self.conv_layer(maps).permute(0, 2, 3, 1).reshape(x.shape)


def windowed_flops(grid: tuple[int, int], window_size: int, width: int) -> int:
    """FLOPs of `WindowedBlocks` on one class's map without guidance: 2 per multiply-add, products and attention."""
    places, window = grid[0] * grid[1], min(window_size, *grid)
    return 2 * places * (2 * width**2 * (4 + 2 * MLP_RATIO) + 4 * window**2 * width)


def windowed_guidance_flops(places: int, guidance: int, width: int) -> int:
    """FLOPs of the guidance's share in both blocks, on one map, likewise."""
    return 2 * 4 * places * guidance * width


def conv_flops(places: int, width: int) -> int:
    """FLOPs of `ConvBlocks` on one class's map without guidance, likewise."""
    inner = width // BOTTLENECK
    return 2 * places * (width**2 + 2 * width * inner + 9 * inner**2)


def conv_guidance_flops(places: int, guidance: int, width: int) -> int:
    """FLOPs of the guidance's share, on one map, likewise."""
    return 2 * places * guidance * width
