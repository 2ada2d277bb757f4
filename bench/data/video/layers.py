"""The things in a clip: bodies with a deforming outline, a bar, and the ground behind them.

Lengths are in sides of the picture, (0, 0) its left upper corner, x to the right and y down. A point's place is given in the
same way in every frame; a thing answers for all of its F frames at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data.video.motion import Track
from bench.data.video.textures import TILE, Texture

HARMONICS = (2, 3, 4)
"""Waves about a body's outline."""
BODY_SCALE = 0.36
"""Tiles for each radius of a body: its outline stays within one tile."""

Points = NDArray[np.float32]
"""A coordinate of P points, [P], the same points in every frame."""


class Covered(NamedTuple):
    """The points that a layer covers."""

    where: NDArray[np.int64]
    """[n]: frame * P + point."""
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    """[n]: their places on the layer's tile, in tiles."""

    def only(self, chosen: NDArray[np.bool_]) -> Covered:
        """Those of the points [n] that are chosen."""
        return Covered(self.where[chosen], self.u[chosen], self.v[chosen])


class Layer(Protocol):
    """One thing in front of others."""

    @property
    def texture(self) -> Texture:
        """Its pattern."""
        ...

    @property
    def colours(self) -> NDArray[np.uint8]:
        """[F, 256, 3]: the colours of the pattern's values in each frame."""
        ...

    def cover(self, x: Points, y: Points) -> Covered:
        """Which points lie inside."""
        ...


@dataclass(frozen=True, eq=False)
class Body:
    """A star-convex shape: in polar coordinates about its centre the radius is 1 plus waves, times `radius`."""

    x: Track
    y: Track
    """[F]: its centre."""
    cosine: Track
    sine: Track
    """[F]: of the angle by which it is turned."""
    radius: Track
    """[F]"""
    waves: NDArray[np.float64]
    """[F, 3, 2]: height of the waves of `HARMONICS`, cosine and sine part; mostly well below 1 in all."""
    texture: Texture
    colours: NDArray[np.uint8]

    def reach(self) -> Track:
        """[F]: no point of the outline is farther from the centre."""
        return self.radius * (1 + np.abs(self.waves).sum(axis=(1, 2)))

    def cover(self, x: Points, y: Points) -> Covered:
        """See `Layer`; the pattern is fixed to the body."""
        across, down = (points - track.astype(np.float32)[:, None] for points, track in ((x, self.x), (y, self.y)))
        near = across * across + down * down < (self.reach() ** 2).astype(np.float32)[:, None]
        index = np.flatnonzero(near)
        frame = index // len(x)
        across, down = across.ravel()[index], down.ravel()[index]
        cosine, sine = ((track / self.radius).astype(np.float32)[frame] for track in (self.cosine, self.sine))
        u, v = cosine * across + sine * down, cosine * down - sine * across
        distance = np.sqrt(np.maximum(u * u + v * v, np.float32(1e-12)))
        c, s = u / distance, v / distance
        c2, s2 = c * c - s * s, 2 * c * s
        angles = ((c2, s2), (c2 * c - s2 * s, s2 * c + c2 * s), (c2 * c2 - s2 * s2, 2 * c2 * s2))
        waves = self.waves.astype(np.float32)
        edge = np.ones_like(distance)
        for number, pair in enumerate(angles):  # multiples of the angle without the angle
            for part, wave in enumerate(pair):
                edge += waves[:, number, part][frame] * wave
        half, scale = np.float32(0.5), np.float32(BODY_SCALE)
        return Covered(index, u * scale + half, v * scale + half).only(distance < edge)


@dataclass(frozen=True, eq=False)
class Bar:
    """A band from border to border."""

    middle: Track
    """[F]"""
    width: float
    upright: bool
    """Whether it runs from top to bottom, and `middle` is an x."""
    texture: Texture
    colours: NDArray[np.uint8]

    def cover(self, x: Points, y: Points) -> Covered:
        """See `Layer`."""
        across, along = (x, y) if self.upright else (y, x)
        offset = across - self.middle.astype(np.float32)[:, None]
        index = np.flatnonzero(np.abs(offset) < np.float32(self.width / 2))
        return Covered(index, offset.ravel()[index], along[index % len(x)])


@dataclass(frozen=True, eq=False)
class Ground:
    """What is behind everything: one tile a side of the picture, panned."""

    x: Track
    y: Track
    """[F]: where in it the picture's left upper corner is."""
    texture: Texture
    colours: NDArray[np.uint8]

    def cover(self, x: Points, y: Points) -> Covered:
        """See `Layer`: all points."""
        u, v = ((points + track.astype(np.float32)[:, None]).ravel() for points, track in ((x, self.x), (y, self.y)))
        return Covered(np.arange(len(u)), u, v)


def paint(layer: Layer, covered: Covered, points: int) -> NDArray[np.uint8]:
    """Colours [n, 3] of n of a layer's covered points, where a frame has `points` of them."""
    column, row = (np.floor(place * np.float32(TILE)).astype(np.int64) & (TILE - 1) for place in (covered.u, covered.v))
    values = layer.texture.tile[row, column]
    colours: NDArray[np.uint8] = layer.colours.reshape(-1, 3)[covered.where // points * 256 + values]
    return colours
