"""Host batches of the task ``nvs``: gathered from data, made up for probes, and degenerate ones for checks.

Images keep the memory layout of files, [B, V, H, W, 3], under the shape that everyone else sees, [B, V, 3, H, W]: nothing is
transposed on the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.data.arrays import ArraySplit
from bench.data.multiview import Views
from bench.tasks.nvs_data import in_frame
from bench.tasks.views import synthetic_views

if TYPE_CHECKING:
    from bench.contracts import Batch
    from bench.data.multiview import MultiViewSplit
    from bench.tasks.nvs_config import NVSConfig


class Chosen(NamedTuple):
    """What samples are made of."""

    scenes: np.ndarray
    """[B] int64."""
    inputs: np.ndarray
    """[B, Vi] int64, view numbers."""
    targets: np.ndarray
    """[B, Vt] int64."""


def gather(config: NVSConfig, data: MultiViewSplit, views: Chosen, mask: np.ndarray | None = None) -> Batch:
    """Read `views` and put their poses into the frame that ``task.frame`` names.

    `mask` [B, Vi] bool says which input views are there; all by default.
    """
    given, wanted = _load(data, views)
    input_c2w, target_c2w = in_frame(config.frame, given.c2w, wanted.c2w, mask)
    batch: Batch = {}
    _add(batch, "input", given.rgb, input_c2w, given.intrinsics)
    _add(batch, "target", wanted.rgb, target_c2w, wanted.intrinsics)
    if config.varies_inputs:
        batch["input_mask"] = torch.from_numpy(np.ones(views.inputs.shape, bool) if mask is None else mask)
    return batch


def _load(data: MultiViewSplit, views: Chosen) -> tuple[Views, Views]:
    """Inputs and targets, in one call, and none of a sample's views twice (masked inputs repeat the first one)."""
    if isinstance(data, ArraySplit):
        # Nothing is decoded: reading a view again costs no more than copying it.
        return data.load(views.scenes, views.inputs), data.load(views.scenes, views.targets)
    together = np.concatenate([views.inputs, views.targets], axis=1)
    sample = np.repeat(np.arange(len(together)), together.shape[1])
    pairs, place = np.unique(np.stack([sample, together.ravel()]), axis=1, return_inverse=True)
    place = place.reshape(together.shape)
    if pairs.shape[1] == together.size:
        read = data.load(views.scenes, together)
        read = Views(*(part.reshape(-1, *part.shape[2:]) for part in read))
        place = np.arange(together.size).reshape(together.shape)
    else:
        read = Views(*(part[:, 0] for part in data.load(views.scenes[pairs[0]], pairs[1][:, None])))
    inputs, targets = np.split(place, [views.inputs.shape[1]], axis=1)
    return Views(*(part[inputs] for part in read)), Views(*(part[targets] for part in read))


def synthetic(config: NVSConfig, batch_size: int, seed: int) -> Batch:
    """Batch of the shapes of training, see `synthetic_views`; where inputs vary, the first sample has the fewest."""
    generator = np.random.default_rng(seed)
    batch: Batch = {}
    for role, views in (("input", config.input_views), ("target", config.target_views)):
        _add(batch, role, *synthetic_views(generator, batch_size, views, config.image_size))
    if config.varies_inputs:
        counts = generator.integers(config.fewest_input_views, config.input_views + 1, batch_size)
        counts[:1] = config.fewest_input_views
        batch["input_mask"] = torch.from_numpy(np.arange(config.input_views) < counts[:, None])
    return batch


def edge_cases(config: NVSConfig, batch_size: int) -> dict[str, Batch]:
    """Black images, white images, all cameras at one place; where inputs vary, only the last input view."""
    black, white, cameras, last = (synthetic(config, batch_size, seed) for seed in (1, 2, 3, 4))
    for batch, value in ((black, 0), (white, 255)):
        for name in ("input_images", "target_images"):
            batch[name].fill_(value)
    for name in ("input_c2w", "target_c2w"):
        cameras[name].copy_(cameras["input_c2w"][:, :1].clone().expand_as(cameras[name]))
    cases = {"black images": black, "white images": white, "identical cameras": cameras}
    if config.varies_inputs:
        last["input_mask"].copy_(torch.arange(config.input_views) == config.input_views - 1)
        cases["only the last input view"] = last
    return cases


def channels_second(images: np.ndarray) -> Tensor:
    """[B, V, H, W, 3] seen as [B, V, 3, H, W]; nothing is copied."""
    return torch.from_numpy(images).movedim(-1, 2)


def _add(batch: Batch, role: str, images: np.ndarray, c2w: np.ndarray, intrinsics: np.ndarray) -> None:
    """Put the views of a role into the batch."""
    batch[f"{role}_images"] = channels_second(images)
    batch[f"{role}_c2w"], batch[f"{role}_intrinsics"] = torch.from_numpy(c2w), torch.from_numpy(intrinsics)
