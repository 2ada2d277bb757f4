"""Textures: scalar patterns and grey photographs tinted with two colours, and colour photographs.

The photographs are files inside the scikit-image wheel and are read from there by path: `skimage.data` would fetch what
it misses, and nothing may be downloaded here. Only PNGs are used, because JPEG decoders differ in the last bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError

Colour = tuple[float, float, float]
Field = NDArray[np.float32]


@dataclass(frozen=True)
class Texture:
    """An image that repeats with period 1 in u and v."""

    name: str
    """A pattern or a photograph of this module."""
    dark: Colour = (0.0, 0.0, 0.0)
    light: Colour = (1.0, 1.0, 1.0)
    """Display values in [0, 1] for pattern values 0 and 1. A colour photograph keeps its own hues, 30 % tinted `light`."""
    variant: int = 0
    """0, 1 or 2: how fine the pattern is. Photographs ignore it."""


def _grid(size: int) -> tuple[Field, Field]:
    axis: Field = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    u, v = np.meshgrid(axis, axis, indexing="xy")
    return u, v


def _edge(signed: Field, size: int, frequency: float) -> Field:
    """Turn a triangle wave in [-1, 1] of `frequency` periods into stripes whose edges are about one texel wide."""
    return np.clip(0.5 + signed * size / (4 * frequency), 0, 1)


def _triangle(phase: Field) -> Field:
    return (4 * np.abs(phase - np.floor(phase) - 0.5) - 1).astype(np.float32)


def _solid(size: int, variant: int) -> Field:
    return np.ones((size, size), np.float32)


def _stripes(size: int, variant: int) -> Field:
    _, v = _grid(size)
    return _edge(_triangle((variant + 1) * v), size, variant + 1)


def _checker(size: int, variant: int) -> Field:
    u, v = (2 * _edge(_triangle((variant + 1) * axis), size, variant + 1) - 1 for axis in _grid(size))
    return 0.5 + 0.5 * u * v


def _dots(size: int, variant: int) -> Field:
    u, v = ((variant + 1) * axis - np.floor((variant + 1) * axis) - 0.5 for axis in _grid(size))
    return np.clip(0.5 + (0.3 - np.hypot(u, v)) * size / (variant + 1), 0, 1)


def _gradient(size: int, variant: int) -> Field:
    u, v = _grid(size)
    return 0.5 + 0.5 * _triangle((u, v, u + v)[variant])


def _noise(size: int, variant: int) -> Field:
    """Periodic cosine noise: fixed random phases, lower frequencies stronger."""
    rng = np.random.default_rng([71, variant])
    u, v = _grid(size)
    total = np.zeros((size, size), np.float32)
    for fu in range(-2 - variant, 3 + variant):
        for fv in range(3 + variant):
            amplitude, phase = rng.normal() / (1 + np.hypot(fu, fv)), rng.uniform(0, 2 * np.pi)
            total += np.float32(amplitude) * np.cos(np.float32(2 * np.pi) * (fu * u + fv * v) + np.float32(phase))
    return _stretch(total)


def _rings(size: int, variant: int) -> Field:
    u, v = _grid(size)
    return _edge(_triangle((2 * variant + 3) * np.hypot(u - 0.5, v - 0.5)), size, 2 * variant + 3)


def _zigzag(size: int, variant: int) -> Field:
    u, v = _grid(size)
    return _edge(_triangle((variant + 1) * v + 0.25 * _triangle((variant + 1) * u)), size, variant + 1)


def _cells(size: int, variant: int) -> Field:
    """Periodic Voronoi cells, each of one value."""
    rng = np.random.default_rng([72, variant])
    seeds, values = rng.random((5 + 4 * variant, 2)), rng.random(5 + 4 * variant).astype(np.float32)
    offset = np.abs(np.stack(_grid(size), -1)[:, :, None] - seeds)
    distance = np.square(np.minimum(offset, 1 - offset)).sum(-1)
    return _stretch(values[distance.argmin(-1)])


def _stretch(values: Field) -> Field:
    return ((values - values.min()) / (values.max() - values.min())).astype(np.float32)


PATTERNS: dict[str, Callable[[int, int], Field]] = {
    "solid": _solid,
    "stripes": _stripes,
    "checker": _checker,
    "dots": _dots,
    "gradient": _gradient,
    "noise": _noise,
}
OOD_PATTERNS: dict[str, Callable[[int, int], Field]] = {"rings": _rings, "zigzag": _zigzag, "cells": _cells}
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "motorcycle_left", "brick", "grass", "gravel", "camera")
OOD_PHOTOGRAPHS = ("ihc", "coins", "moon", "text")

TEXTURES = (*PATTERNS, *PHOTOGRAPHS)
"""Textures of the training, validation and test splits."""
OOD_TEXTURES = (*OOD_PATTERNS, *OOD_PHOTOGRAPHS)
"""Textures of the ood split. (Plain colour is no texture of its own here: every ood surface carries one of these.)"""


def photograph_path(name: str) -> Path:
    """Where the photograph lies inside the installed scikit-image."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / f"{name}.png"
    if not path.is_file():
        raise UserError(f"texture {name!r}: {path.name} is missing from scikit-image; reinstall scikit-image >= 0.24")
    return path


@lru_cache(maxsize=1)
def photograph_sums() -> dict[str, str]:
    """SHA-256 of every photograph, for the manifest: another file would give other pixels."""
    return {
        name: hashlib.sha256(photograph_path(name).read_bytes()).hexdigest() for name in PHOTOGRAPHS + OOD_PHOTOGRAPHS
    }


@lru_cache(maxsize=128)
def _image(name: str, variant: int, size: int) -> Field:
    """Pattern or grey photograph [size, size], or colour photograph [size, size, 3], in [0, 1]."""
    patterns = PATTERNS | OOD_PATTERNS
    if name in patterns:
        return patterns[name](size, variant)
    if name not in PHOTOGRAPHS + OOD_PHOTOGRAPHS:
        raise UserError(f"texture must be one of {', '.join(TEXTURES + OOD_TEXTURES)}, got {name!r}")
    from PIL import Image

    with Image.open(photograph_path(name)) as file:
        picture = file.convert("L" if file.mode in ("L", "I;16", "1") else "RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    small = picture.resize((size, size), Image.Resampling.BOX, box=(left, top, left + side, top + side))
    values: Field = np.asarray(small, np.float32) / np.float32(255)
    return _stretch(values) if values.ndim == 2 else values


def bake(texture: Texture, size: int) -> Field:
    """Albedo image [size, size, 3] float32 in [0, 1]."""
    image = _image(texture.name, texture.variant if texture.name in PATTERNS | OOD_PATTERNS else 0, size)
    dark, light = np.array(texture.dark, np.float32), np.array(texture.light, np.float32)
    if image.ndim == 3:
        return image * (np.float32(0.7) + np.float32(0.3) * light)
    return dark + image[..., None] * (light - dark)
