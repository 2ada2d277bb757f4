"""Which views of a scene a sample sees, and views made up for probes and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from bench.contracts import Batch


def choose_views(
    draws: np.ndarray, views: int, input_views: int, target_views: int, overlap: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Input and target views of each sample, a function of its draw alone.

    Every draw shuffles the views; inputs are taken from the front and targets from the back, so that a draw's targets stay
    the same when the number of inputs changes.

    Args:
        draws: [B] uint64.
        views: how many views each scene has.
        input_views: Vi.
        target_views: Vt.
        overlap: draw the targets without replacement from all Vi + Vt chosen views, inputs included.

    Returns:
        [B, Vi] and [B, Vt] int64, disjoint unless `overlap`.

    Raises:
        ValueError: the scenes have fewer than Vi + Vt views.
    """
    if input_views + target_views > views:
        raise ValueError(f"{input_views} input and {target_views} target views do not fit the {views} views of a scene")
    order = _shuffled(draws, views, salt=1)
    inputs, targets = order[:, :input_views], order[:, views - target_views :]
    if overlap:
        chosen = np.concatenate([inputs, targets], axis=1)
        again = _shuffled(draws, chosen.shape[1], salt=2)[:, :target_views]
        targets = np.take_along_axis(chosen, again, axis=1)
    return inputs, targets


def _shuffled(draws: np.ndarray, count: int, salt: int) -> np.ndarray:
    """[B, count] int64: a permutation of 0..count-1 for every draw, by sorting one hash a view."""
    streams = _mix(np.arange(count, dtype=np.uint64) + np.uint64(salt << 32))
    return np.argsort(_mix(np.asarray(draws, dtype=np.uint64)[:, None] ^ streams[None]), axis=1, kind="stable")


def _mix(values: np.ndarray) -> np.ndarray:
    """Splitmix64 (Steele et al. 2014): neighbouring integers to unrelated ones, modulo 2**64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permute_input_views(batch: Batch, generator: torch.Generator) -> Batch:
    """Copy of an nvs batch whose input views stand in another order, sample by sample."""
    samples, views = batch["input_images"].shape[:2]
    order = torch.rand(samples, views, generator=generator).argsort(dim=1)
    if views > 1:
        # A permutation that happens to change nothing would prove nothing.
        order = torch.where((order == torch.arange(views)).all(dim=1, keepdim=True), order.flip(1), order)
    changed = dict(batch)
    for name in ("input_images", "input_c2w", "input_intrinsics"):
        value = batch[name]
        sample = torch.arange(samples, device=value.device)[:, None]
        changed[name] = value[sample, order.to(value.device)]
    return changed


def synthetic_views(
    generator: np.random.Generator, samples: int, views: int, image_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Made-up views: noise of random brightness and contrast, cameras on a sphere of radius 2.5 looking at the origin.

    Returns:
        Images [B, V, H, W, 3] uint8, c2w [B, V, 4, 4] fp32, intrinsics [B, V, 4] fp32 (field of view 53 degrees).
    """
    images = generator.integers(0, 256, (samples, views, image_size, image_size, 3), dtype=np.uint8)
    shift = generator.integers(0, 7, (samples, views, 1, 1, 1), dtype=np.uint8)
    # In place and in bytes: a probe measures the memory of training, not of making its batch.
    images >>= shift
    images += generator.integers(0, 256 - (255 >> shift.astype(np.int64)), dtype=np.int64).astype(np.uint8)

    azimuth = generator.uniform(0, 2 * np.pi, (samples, views))
    height = generator.uniform(0.2, 0.8, (samples, views))
    radius = np.sqrt(1 - height**2)
    backward = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), height], axis=-1)
    right = np.stack([-np.sin(azimuth), np.cos(azimuth), np.zeros_like(azimuth)], axis=-1)
    c2w = np.zeros((samples, views, 4, 4), dtype=np.float32)
    c2w[..., :3, 0], c2w[..., :3, 1], c2w[..., :3, 2] = right, np.cross(-backward, right), -backward
    c2w[..., :3, 3], c2w[..., 3, 3] = 2.5 * backward, 1
    intrinsics = np.broadcast_to(
        np.array([image_size, image_size, image_size / 2, image_size / 2], np.float32), (samples, views, 4)
    ).copy()
    return images, c2w, intrinsics
