"""Which views of a scene a sample sees, and views made up for probes and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.data.arrays import shuffled
from bench.data.draws import Salt, below, stream

if TYPE_CHECKING:
    from bench.contracts import Batch


def mix_inputs(draws: np.ndarray, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Targets [B, Vt] drawn without replacement from all Vi + Vt views of each sample, inputs included."""
    chosen = np.concatenate([inputs, targets], axis=1)
    again = shuffled(draws, chosen.shape[1], salt=Salt.TASK_TARGETS)[:, : targets.shape[1]]
    return np.take_along_axis(chosen, again, axis=1)


def mask_inputs(draws: np.ndarray, fewest: int, input_views: int) -> np.ndarray:
    """[B, Vi] bool: the first n input views of each sample, n uniform in `fewest`..Vi by its draw alone."""
    counts = fewest + below(stream(draws, salt=Salt.TASK_MASK, length=1), input_views - fewest + 1)
    return np.arange(input_views) < counts


def permute_input_views(batch: Batch, generator: torch.Generator) -> Batch:
    """Copy of an nvs batch whose input views stand in another order, sample by sample, with their mask if there is one."""
    samples, views = batch["input_images"].shape[:2]
    order = torch.rand(samples, views, generator=generator).argsort(dim=1)
    if views > 1:
        # A permutation that happens to change nothing would prove nothing.
        order = torch.where((order == torch.arange(views)).all(dim=1, keepdim=True), order.flip(1), order)
    changed = dict(batch)
    for name in ("input_images", "input_c2w", "input_intrinsics", "input_mask"):
        if name not in batch:
            continue
        value = batch[name]
        sample = torch.arange(samples, device=value.device)[:, None]
        changed[name] = value[sample, order.to(value.device)]
    return changed


def scramble_masked_views(batch: Batch, generator: torch.Generator) -> Batch:
    """Copy of an nvs batch with an ``input_mask`` whose masked views hold other images, places and lenses."""
    mask = batch["input_mask"]
    noise = torch.rand(batch["input_images"].shape, generator=generator).to(mask.device)
    moved = batch["input_c2w"].clone()
    moved[..., :3, 3] += torch.randn((*moved.shape[:2], 3), generator=generator).to(mask.device)
    others = {"input_images": noise, "input_c2w": moved, "input_intrinsics": batch["input_intrinsics"] * 1.5}
    changed = dict(batch)
    for name, other in others.items():
        changed[name] = torch.where(mask.reshape(*mask.shape, *[1] * (other.ndim - 2)), batch[name], other)
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
