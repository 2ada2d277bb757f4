"""Batches of the task ``masked-image``: gathered from data, made up for probes, moved and blanked, and degenerate ones for checks.

A host batch holds the whole image and the noise; what architectures may see is made of them on the device by `to_device`.
Images keep the memory layout of files, [B, H, W, 3], under the shape that everyone else sees, [B, 3, H, W].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bench.data.arrays import shuffled
from bench.data.draws import Salt
from bench.metrics import masked

if TYPE_CHECKING:
    from bench.contracts import Batch
    from bench.tasks.masked_image_config import MaskedImageConfig


def host_batch(config: MaskedImageConfig, images: np.ndarray, draws: np.ndarray) -> Batch:
    """Host batch of images [B, H, W, 3] uint8, each with the masking noise of its draw [B] uint64.

    The noise [B, L] is a random permutation scaled into 0..1: it has no ties, on any device.
    """
    order = shuffled(draws, config.patches, salt=Salt.TASK_NOISE)
    noise = ((order + 0.5) / config.patches).astype(np.float32)
    return {"noise": torch.from_numpy(noise), "target_images": torch.from_numpy(images).movedim(-1, 1)}


def to_device(config: MaskedImageConfig, batch: Batch, device: torch.device) -> Batch:
    """Move a host batch: whole images become ``target_images``, normalised fp32; ``images`` are those, masked patches blanked.

    On CUDA they cross as pinned bytes, asynchronously.
    """
    moved = {}
    for name, value in batch.items():
        if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
            value = value.pin_memory()
        moved[name] = value.to(device, non_blocking=True)
    target = masked.normalise(moved["target_images"].float().div_(255))
    hidden = is_masked(moved["noise"], config.kept)
    return {"images": blank(target, hidden, config.patch_size), "noise": moved["noise"], "target_images": target}


def is_masked(noise: Tensor, kept: int) -> Tensor:
    """[B, L] bool: all but the `kept` patches of least noise."""
    return noise.argsort(dim=1).argsort(dim=1) >= kept


def blank(images: Tensor, hidden: Tensor, patch_size: int) -> Tensor:
    """A copy of normalised images [B, 3, H, W] whose hidden patches [B, L] are 0, the mean colour."""
    side = images.shape[-1] // patch_size
    pixels = hidden.unflatten(1, (1, side, 1, side, 1)).expand(-1, -1, -1, patch_size, -1, patch_size)
    return images.masked_fill(pixels.flatten(4).flatten(2, 3), 0.0)


def synthetic(config: MaskedImageConfig, batch_size: int, seed: int) -> Batch:
    """Host batch of random images of the shapes of training."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (batch_size, config.image_size, config.image_size, 3), np.uint8)
    return host_batch(config, images, generator.integers(0, 2**64, batch_size, np.uint64))


def edge_cases(config: MaskedImageConfig, batch_size: int) -> dict[str, Batch]:
    """Images of one colour, among them the one whose patches have no variance to divide by, and visible patches at the top."""
    cases = {}
    mean = tuple(round(255 * value) for value in masked.MEAN)
    for name, value in (("black images", 0), ("white images", 255), ("images of the mean colour", mean)):
        cases[name] = synthetic(config, batch_size, seed=1)
        cases[name]["target_images"].copy_(torch.tensor(value, dtype=torch.uint8).view(-1, 1, 1))
    top = synthetic(config, batch_size, seed=2)
    top["noise"].copy_(top["noise"].sort(dim=1).values)
    return {**cases, "only the first patches visible": top}


def shuffle_visible(batch: Batch, kept: int, generator: torch.Generator) -> Batch:
    """Another order of the noise among the visible patches of each sample: the same ones stay visible."""
    noise = batch["noise"]
    values, order = noise.sort(dim=1)
    shuffle = torch.rand(len(noise), kept, generator=generator).argsort(dim=1).to(noise.device)
    order = torch.cat([order[:, :kept].gather(1, shuffle), order[:, kept:]], dim=1)
    return {**batch, "noise": torch.empty_like(noise).scatter_(1, order, values)}
