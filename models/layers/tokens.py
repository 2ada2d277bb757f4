"""Tokens of days and patches that know their place, also when most of them were taken out.

Axes: B samples, T days, N patches a day, K modalities, V tokens of a modality, D width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.precision import full_precision
from models.layers.sincos import sincos

DAYS_PER_YEAR = 365.25
TOKEN_STD = 0.02
"""Standard deviation of the initial learned tokens (MAE, published code)."""


def learned_token(*shape: int) -> nn.Parameter:
    """A learned token, drawn from normal(0, 0.02)."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=TOKEN_STD))


class PositionTables(NamedTuple):
    """Embedding of every day and of every patch of the samples."""

    days: Tensor
    """[B, T, D]."""
    patches: Tensor | None
    """[B, N, D]; None without images."""

    def of_days(self, index: Tensor) -> Tensor:
        """[B, K, V] days -> [B, K, V, D]."""
        return _rows(self.days, index)

    def of_patches(self, index: Tensor) -> Tensor:
        """[B, K, V] flat indices day * N + patch -> [B, K, V, D]."""
        assert self.patches is not None
        patches = self.patches.shape[1]
        day = torch.div(index, patches, rounding_mode="floor")
        return _rows(self.days, day) + _rows(self.patches, index - day * patches)


def _rows(table: Tensor, index: Tensor) -> Tensor:
    samples, length, _ = table.shape
    first = torch.arange(samples, device=index.device).view(-1, 1, 1) * length
    return table.flatten(0, 1).index_select(0, (first + index).flatten()).unflatten(0, index.shape)


class TokenPositions(nn.Module):
    """Fixed sine-cosine embedding of the day in the window and of the patch in the grid, the column's half first.

    With ``calendar`` a learned linear map of the day of the year, as an angle, is added to the day's.
    """

    def __init__(self, width: int, *, calendar: bool) -> None:
        super().__init__()
        self.width = width
        self.calendar = nn.Linear(2, width) if calendar else None

    def forward(self, day_of_year: Tensor, patch_positions: Tensor | None) -> PositionTables:
        """[B, T] days of the year (0..365) and [B, N, 2] rows and columns -> the tables, fp32."""
        with full_precision(day_of_year.device):
            days = sincos(torch.arange(day_of_year.shape[1], device=day_of_year.device).float(), self.width)
            days = days.expand(day_of_year.shape[0], -1, -1)
            if self.calendar is not None:
                # Days beyond the end of a short window may hold anything: no token reads them, but 0 * NaN is NaN.
                angles = day_of_year.float().nan_to_num(posinf=0.0, neginf=0.0) * (2 * math.pi / DAYS_PER_YEAR)
                days = days + self.calendar(torch.stack([angles.sin(), angles.cos()], dim=-1))
            patches = None
            if patch_positions is not None:
                patches = sincos(patch_positions.float().flip(-1), self.width // 2).flatten(-2)
        return PositionTables(days, patches)

    def flops(self, days: int) -> int:
        """FLOPs of the tables of one sample; 2 per multiply-add."""
        return 0 if self.calendar is None else 4 * days * self.width


class ModalityEmbedding(nn.Module):
    """A linear map from the numbers of a token to its embedding, and one token more, which is never hidden.

    The token that is put first is made of the static attributes, or learned where there are none. Thanks to it a sequence
    of which all is hidden can still be read.
    """

    def __init__(self, numbers: int, width: int, statics: int = 0) -> None:
        super().__init__()
        self.proj = nn.Linear(numbers, width)
        self.statics = nn.Linear(statics, width) if statics else None
        self.register = None if statics else learned_token(width)

    def forward(self, values: Tensor, positions: Tensor, statics: Tensor | None = None) -> Tensor:
        """[B, V, numbers], [B, V, D] and, where they are embedded, [B, statics] -> [B, 1 + V, D]."""
        tokens = self.proj(values) + positions
        if self.statics is not None:
            first = self.statics(statics)
        else:
            assert self.register is not None
            first = self.register.expand(len(tokens), -1)
        return torch.cat([first[:, None].to(tokens.dtype), tokens], dim=1)

    def flops(self, tokens: int) -> int:
        """FLOPs of one sample with V = ``tokens``; 2 per multiply-add."""
        return 2 * tokens * self.proj.weight.numel() + (0 if self.statics is None else 2 * self.statics.weight.numel())
