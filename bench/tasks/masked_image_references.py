"""Predictors that learn nothing, for the task ``masked-image``: what masked patches look like by their neighbours alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.metrics import masked
from bench.tasks.masked_image_batches import blank

RAW_SIDE = 16
"""Images are reduced to so many pixels on a side for the probe on raw pixels."""
RANDOM_WIDTH = 256
"""Random projections of a patch for the probe on random features."""
MOST_STEPS = 400
"""Of the solver of `harmonic`; it takes about 60 at 64 pixels."""
RESIDUAL = 1e-3
"""Relative residual at which `harmonic` is solved: far below one level of 255."""


class Reference(NamedTuple):
    """One predictor."""

    name: str
    label: str
    fill: Callable[[Tensor, Tensor, int], Tensor]
    """``fill(images, hidden, patch_size)``: images [B, 3, H, W] whose hidden patches [B, L] are 0, filled."""


def mean_colour(images: Tensor, hidden: Tensor, patch_size: int) -> Tensor:
    """Every hidden patch in the mean colour of the visible ones."""
    patches = masked.patchify(images, patch_size)
    visible = (~hidden).to(images.dtype)
    weights = (visible / visible.sum(1, keepdim=True))[..., None]
    colour = (_colours(patches) * weights).sum(1, keepdim=True).expand(*hidden.shape, 3)
    return _with(patches, hidden, colour, patch_size)


def nearest_patch(images: Tensor, hidden: Tensor, patch_size: int) -> Tensor:
    """Every hidden patch in the mean colour of the nearest visible one, the first of several."""
    patches = masked.patchify(images, patch_size)
    side = images.shape[-1] // patch_size
    line = torch.arange(side, device=images.device, dtype=images.dtype)
    grid = torch.cartesian_prod(line, line)
    distance = (grid[:, None] - grid[None]).square().sum(-1)  # [L, L]
    nearest = distance.masked_fill(hidden[:, None], torch.inf).argmin(2)
    return _with(patches, hidden, masked.take(_colours(patches), nearest), patch_size)


def harmonic(images: Tensor, hidden: Tensor, patch_size: int) -> Tensor:
    """Hidden pixels interpolate the visible ones as smoothly as can be: the Laplace equation, free at the image's border.

    By conjugate gradients, all images at once.
    """
    free = (blank(torch.ones_like(images), hidden, patch_size) == 0).to(images.dtype)
    guess = mean_colour(images, hidden, patch_size)
    residual = -free * _laplacian(guess)
    solution, direction = guess, residual
    energy = residual.square().sum((2, 3), keepdim=True)
    start = energy.clamp_min(1e-12)
    for _ in range(MOST_STEPS):
        if bool((energy <= RESIDUAL**2 * start).all()):
            break
        product = free * _laplacian(direction)
        step = energy / (direction * product).sum((2, 3), keepdim=True).clamp_min(1e-30)
        solution, residual = solution + step * direction, residual - step * product
        before, energy = energy, residual.square().sum((2, 3), keepdim=True)
        direction = residual + energy / before.clamp_min(1e-30) * direction
    return solution


REFERENCES = (
    Reference("mean-colour", "mean colour of the visible patches", mean_colour),
    Reference("nearest-patch", "colour of the nearest visible patch", nearest_patch),
    Reference("harmonic", "harmonic interpolation of the visible pixels", harmonic),
)


def raw_pixels(images: Tensor, patch_size: int) -> Tensor:
    """Features of whole images [B, 3, H, W]: their pixels, reduced to `RAW_SIDE` on a side."""
    return F.adaptive_avg_pool2d(images, RAW_SIDE).flatten(1)


def random_features(images: Tensor, patch_size: int) -> Tensor:
    """Features of whole images by one random layer on their patches, averaged: what an encoder knows that never learned."""
    patches = masked.patchify(images, patch_size)
    weights = torch.randn(patches.shape[-1], RANDOM_WIDTH, generator=torch.Generator().manual_seed(0))
    return (patches @ weights.to(patches) / patches.shape[-1] ** 0.5).relu().mean(1)


FEATURES: dict[str, tuple[str, Callable[[Tensor, int], Tensor]]] = {
    "raw-pixels": (f"pixels at {RAW_SIDE} x {RAW_SIDE}", raw_pixels),
    "random-features": ("random features of patches", random_features),
}
"""Features that learn nothing, for the probes: name -> label and function of whole images and patch size."""


def _colours(patches: Tensor) -> Tensor:
    """Mean colour of patches [B, L, P] -> [B, L, 3]."""
    return patches.unflatten(-1, (-1, 3)).mean(2)


def _with(patches: Tensor, hidden: Tensor, colours: Tensor, patch_size: int) -> Tensor:
    """Images of the patches, the hidden ones in plain `colours` [B, L, 3]."""
    plain = colours.repeat(1, 1, patches.shape[-1] // 3)
    return masked.unpatchify(torch.where(hidden[..., None], plain, patches), patch_size)


def _laplacian(images: Tensor) -> Tensor:
    """Each pixel's differences from its neighbours, summed; there are none beyond the border."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    around = padded[..., 2:, 1:-1] + padded[..., :-2, 1:-1] + padded[..., 1:-1, 2:] + padded[..., 1:-1, :-2]
    return 4 * images - around
