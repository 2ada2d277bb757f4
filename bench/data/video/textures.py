"""Patterns and colours, in arithmetic that rounds the same on every machine.

A pattern is a tile [TILE, TILE] of values 0..255 that repeats; a palette turns values into colours. What keeps its palette
and gets another tile looks alike and is not the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import Salt
from bench.data.video.motion import Uniforms

TILE = 128
"""Texels of a tile's side; a power of two, as places are taken modulo it."""

Tile = NDArray[np.uint8]
Palette = NDArray[np.float64]
"""[4, 3] colours of the values 0, 85, 170 and 255, each channel 0..1."""


def noise(draw: np.uint64, cells: int) -> Tile:
    """Value noise of two octaves: a grid of `cells` x `cells` values, and one twice as fine at half the weight."""
    tile = np.zeros((TILE, TILE))
    uniforms = Uniforms(draw, Salt.VIDEO_TEXTURE, 5 * cells**2)
    for octave, weight in ((1, 1.0), (2, 0.5)):
        side = cells * octave
        grid = uniforms.array(side, side)
        place = np.arange(TILE) * (side / TILE)
        low = np.floor(place).astype(np.int64)
        t = place - low
        t = t * t * (3 - 2 * t)
        high = (low + 1) % side
        rows = grid[low] + (grid[high] - grid[low]) * t[:, None]
        tile += weight * (rows[:, low] + (rows[:, high] - rows[:, low]) * t)
    return _stretch(tile)


def stripes(draw: np.uint64, cells: int) -> Tile:
    """Straight bands in one of many directions."""
    uniforms = Uniforms(draw, Salt.VIDEO_TEXTURE, 4)
    along, across = 1 + int(uniforms() * cells), int(uniforms() * (cells + 1))
    sign, phase = (1 if uniforms() < 0.5 else -1), uniforms()
    place = np.arange(TILE) / TILE
    turns = along * place[:, None] + sign * across * place + phase
    return _stretch(np.abs(turns - np.floor(turns) - 0.5))


def mosaic(draw: np.uint64, cells: int) -> Tile:
    """Voronoi cells of one value each, about the points of a jittered set that repeats with the tile."""
    count = cells * cells
    uniforms = Uniforms(draw, Salt.VIDEO_TEXTURE, 3 * count)
    points, values = uniforms.array(count, 2), uniforms.array(count)
    place = np.arange(TILE) / TILE
    gap = np.abs(place[:, None, None] - points)  # [TILE, count, 2]
    gap = np.minimum(gap, 1 - gap) ** 2
    nearest = np.argmin(gap[:, None, :, 0] + gap[None, :, :, 1], axis=-1)
    return _stretch(values[nearest])


@dataclass(frozen=True)
class Texture:
    """The pattern of a thing, made when it is first looked at: noise, or in the split `shifted` stripes or a mosaic."""

    draw: np.uint64
    cells: int
    """How fine it is: grains along a side of the tile."""
    shifted: bool

    @cached_property
    def tile(self) -> Tile:
        """Values [TILE, TILE]."""
        kind = (stripes, mosaic)[int(self.draw >> np.uint64(63))] if self.shifted else noise
        return kind(self.draw, self.cells)


def palette(draw: np.uint64, hue: float, saturation: float) -> Palette:
    """Four colours about a hue (in turns), from dark to light in a random order."""
    uniforms = Uniforms(draw, Salt.VIDEO_COLOUR, 12)
    levels = (0.25, 0.5, 0.75, 1.0) if uniforms() < 0.5 else (0.5, 1.0, 0.25, 0.75)
    return np.array([_colour(hue + uniforms(-0.07, 0.07), saturation * uniforms(0.8, 1.0), level) for level in levels])


def lookup(colours: Palette) -> NDArray[np.uint8]:
    """Colour of each value: [256, 3] of a palette, or [F, 256, 3] of palettes [F, 4, 3]; straight lines between the four."""
    place = np.arange(256) / 85.0
    low = np.minimum(np.floor(place).astype(np.int64), 2)
    t = (place - low)[:, None]
    mixed = colours[..., low, :] * (1 - t) + colours[..., low + 1, :] * t
    return np.floor(np.clip(mixed, 0, 1) * 255 + 0.5).astype(np.uint8)


def _stretch(values: NDArray[np.float64]) -> Tile:
    low, high = values.min(), values.max()
    return np.floor((values - low) / (high - low) * 255 + 0.5).astype(np.uint8)


def _colour(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """RGB of a hue in turns, saturation and value, each 0..1."""
    red, green, blue = (
        value * (1 - saturation * min(max(2 - abs((6 * hue + shift) % 6 - 3), 0.0), 1.0)) for shift in (0, 4, 2)
    )
    return red, green, blue
