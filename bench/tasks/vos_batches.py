"""Batches of the task ``vos``: windows drawn from clips, made up for probes, moved to the device, and degenerate ones for checks.

A host batch holds bytes: ``frames`` [B, F, 3, H, W] and ``masks`` [B, F, H, W] uint8 (0 background, o + 1 object slot o, 255 void),
and ``start`` [B, O] int64, the frame in which a slot's mask is given, -1 for an empty one. `to_device` makes of it what
architectures and the loss receive.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.data.draws import Salt, below, stream
from bench.data.video.clips import VOID
from bench.metrics import masked

if TYPE_CHECKING:
    from bench.contracts import Batch
    from bench.data.video.clips import ClipInfo, MaskedVideos
    from bench.tasks.vos_config import VOSConfig

TRIES = 8
"""Windows drawn until one shows an object in its first frame; the last one is taken as it is."""
SMALLEST_SHARE = 0.002
"""Share of the frame that an object must show where its mask is given in training: 8 pixels at 64."""
CROP_SCALE = (0.36, 1.0)
"""Share of a real frame's area that a random crop keeps."""
CROP_RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop, log-uniform."""

Bytes = NDArray[np.uint8]


class Window(NamedTuple):
    """What a training sample takes of a clip."""

    which: NDArray[np.int64]
    """[F] frames, forwards or backwards."""
    box: tuple[int, int, int, int] | None
    """Left, top, right, bottom of the crop in pixels; None: the whole frame, as it is."""
    mirrored: bool
    size: int
    """Height and width of the sample."""

    def images(self, frames: Bytes) -> Bytes:
        """Frames [n, h, w, 3] -> [n, H, W, 3]."""
        return self._turned(frames, Image.Resampling.BICUBIC)

    def labels(self, masks: Bytes) -> Bytes:
        """Masks [n, h, w] -> [n, H, W]: no label is mixed with another."""
        return self._turned(masks, Image.Resampling.NEAREST)

    def _turned(self, pixels: Bytes, how: Image.Resampling) -> Bytes:
        if self.box is not None:
            # The part is cut out first: nothing beyond its border is mixed in.
            parts = (Image.fromarray(image).crop(self.box).resize((self.size, self.size), how) for image in pixels)
            pixels = np.stack([np.asarray(part) for part in parts])
        return pixels[:, :, ::-1] if self.mirrored else pixels


def host_batch(config: VOSConfig, videos: MaskedVideos, indices: np.ndarray, draws: np.ndarray) -> Batch:
    """Host batch of a window of each of the clips `indices` [B], as its draw [B] uint64 says."""
    samples = [_sample(config, videos, int(index), draw) for index, draw in zip(indices, draws, strict=True)]
    frames, masks, starts = (np.stack(parts) for parts in zip(*samples, strict=True))
    return {
        "frames": torch.from_numpy(frames).movedim(-1, 2),
        "masks": torch.from_numpy(masks),
        "start": torch.from_numpy(starts),
    }


def _sample(
    config: VOSConfig, videos: MaskedVideos, index: int, draw: np.uint64
) -> tuple[Bytes, Bytes, NDArray[np.int64]]:
    """Frames [F, H, W, 3], masks [F, H, W] of slots and the start of each slot [O]."""
    info, warped = videos.info(index), getattr(videos, "warped", None)
    read_frames, read_masks = partial(videos.frames, index), partial(videos.masks, index)
    if warped is not None:  # pseudo-videos: another clip for every draw
        read_frames, read_masks = (pixels.__getitem__ for pixels in warped(index, draw))
    for attempt in range(TRIES):
        window = draw_window(config, info, draw, attempt)
        first = window.labels(read_masks(window.which[:1]))
        if shown(first, len(info.first_frames)).any():
            break
    labels = window.labels(read_masks(window.which))
    masks, start = to_slots(labels, len(info.first_frames), config.objects, draw)
    return window.images(read_frames(window.which)), masks, start


def draw_window(config: VOSConfig, info: ClipInfo, draw: np.uint64, attempt: int = 0) -> Window:
    """Frames, crop and mirroring of a sample, functions of the draw and of what is known of the clip alone.

    Frames lie 1 to ``annotated_gap`` annotated ones apart, each gap drawn on its own as far as the clip is long enough, in the
    order of time or against it. Of a clip with fewer annotated frames than asked for, the last one stands several times.
    """
    annotated = np.flatnonzero(info.annotated)
    steps = config.clip_frames - 1
    widest = max(1, min(config.annotated_gap, (len(annotated) - 1) // steps))
    hashes = _hashes(draw, Salt.VIDEO_WINDOW, attempt, steps + 1)
    gaps = 1 + below(hashes[1:], np.full(steps, widest))
    first = int(below(hashes[:1], np.array([max(1, len(annotated) - int(gaps.sum()))]))[0])
    places = np.minimum(first + np.concatenate([[0], np.cumsum(gaps)]), len(annotated) - 1)
    if _coin(draw, Salt.VIDEO_REVERSE):
        places = places[::-1]
    box = None if config.embedded else _draw_box(draw, attempt, info.height, info.width)
    return Window(annotated[places], box, _coin(draw, Salt.VIDEO_FLIP), config.image_size)


def shown(labels: Bytes, objects: int) -> NDArray[np.bool_]:
    """[F, objects]: whether each object 1 .. shows at least `SMALLEST_SHARE` of the pixels of labels [F, H, W]."""
    counts = [np.bincount(frame.ravel(), minlength=objects + 1)[1 : objects + 1] for frame in labels]
    enough: NDArray[np.bool_] = np.stack(counts) >= max(1, SMALLEST_SHARE * labels[0].size)
    return enough


def to_slots(labels: Bytes, objects: int, slots: int, draw: np.uint64) -> tuple[Bytes, NDArray[np.int64]]:
    """Labels [F, H, W] of a window -> masks of slots, and the frame in which each slot's mask is given, -1 for empty ones.

    An object is given in the first frame that shows enough of it; before that its pixels are background, as are those of objects
    that have no slot. Where there are more than slots, those of the first frame come first; among equals the draw decides.
    """
    enough = shown(labels, objects)
    first = np.where(enough.any(axis=0), enough.argmax(axis=0), len(labels))
    order = np.lexsort((stream(np.array([draw]), Salt.VIDEO_OBJECTS, objects)[0], first > 0))
    chosen = [number for number in order if first[number] < len(labels)][:slots]
    start = np.full(slots, -1, np.int64)
    start[: len(chosen)] = first[chosen]
    table = np.zeros(256, np.uint8)
    table[VOID] = VOID
    table[np.array(chosen, np.int64) + 1] = np.arange(1, len(chosen) + 1)
    masks = table[labels]
    for slot in np.flatnonzero(start > 0):
        early = masks[: start[slot]]
        early[early == slot + 1] = 0
    return masks, start


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a host batch and make of it what architectures receive.

    Returns:
        ``frames`` fp32 normalised by ImageNet's mean and deviation, ``first_masks`` [B, O, H, W] fp32, ``start`` [B, O] int64, and
        the target ``masks`` [B, F, H, W] int64. On CUDA they cross as pinned bytes, asynchronously.
    """
    moved = {}
    for name, value in batch.items():
        if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
            value = value.contiguous().pin_memory()
        moved[name] = value.to(device, non_blocking=True)
    masks, start = moved["masks"].long(), moved["start"]
    return {
        "frames": normalised(moved["frames"].flatten(0, 1)).unflatten(0, batch["frames"].shape[:2]),
        "first_masks": first_masks(masks, start),
        "start": start,
        "masks": masks,
    }


def normalised(frames: Tensor) -> Tensor:
    """Frames [N, 3, H, W] uint8 as architectures receive them."""
    return masked.normalise(frames.float().div_(255))


def first_masks(masks: Tensor, start: Tensor) -> Tensor:
    """[B, O, H, W] fp32: the mask of each slot in the frame in which it is given; 0 for empty slots."""
    places = start.clamp_min(0)[:, :, None, None].expand(-1, -1, *masks.shape[2:])
    slots = torch.arange(1, start.shape[1] + 1, device=start.device)[:, None, None]
    return ((masks.gather(1, places) == slots) & (start >= 0)[:, :, None, None]).float()


def synthetic(
    config: VOSConfig,
    batch_size: int,
    seed: int,
    frames: int | None = None,
    shape: tuple[int, int] | None = None,
    *,
    late: bool = False,
) -> Batch:
    """Host batch of random frames in which each object is a square that moves.

    Its clips have ``clip_frames`` frames of ``image_size``, unless `frames` or their `shape` (height, width) are told. If `late`,
    the last slot of every second sample starts in the middle.
    """
    generator = np.random.default_rng(seed)
    frames, objects = frames or config.clip_frames, config.objects
    height, width = shape or (config.image_size,) * 2
    pixels = generator.integers(0, 256, (batch_size, frames, height, width, 3), np.uint8)
    masks = np.zeros((batch_size, frames, height, width), np.uint8)
    side = max(2, min(height, width) // 4)
    room = np.array([height, width]) - side
    corners = generator.integers(0, room + 1, (batch_size, objects, 2))
    steps = generator.integers(-2, 3, (batch_size, objects, 2))
    for sample, frame, slot in np.ndindex(batch_size, frames, objects):
        top, left = (corners[sample, slot] + frame * steps[sample, slot]).clip(0, room)
        masks[sample, frame, top : top + side, left : left + side] = slot + 1
    start = np.zeros((batch_size, objects), np.int64)
    if late:
        start[1::2, -1] = frames // 2
        early = masks[1::2, : frames // 2]
        early[early == objects] = 0
    return {
        "frames": torch.from_numpy(pixels).movedim(-1, 2),
        "masks": torch.from_numpy(masks),
        "start": torch.from_numpy(start),
    }


def change_from(batch: Batch, other: Batch, frame: int) -> Batch:
    """`batch` with the frames from `frame` on, and the first masks of objects that start there, taken from `other`."""
    later = (batch["start"] >= frame)[..., None, None]
    return {
        **batch,
        "frames": torch.cat([batch["frames"][:, :frame], other["frames"][:, frame:]], dim=1),
        "first_masks": torch.where(later, other["first_masks"], batch["first_masks"]),
    }


def edge_cases(config: VOSConfig, batch_size: int) -> dict[str, Batch]:
    """Legal but degenerate host batches, by name."""
    cases = {
        name: synthetic(config, batch_size, seed=1)
        for name in ("no objects", "all slots but one empty", "an object covers everything", "late starts", "all void")
    }
    nothing = cases["no objects"]
    nothing["masks"].zero_(), nothing["start"].fill_(-1)
    one = cases["all slots but one empty"]
    one["masks"].masked_fill_(one["masks"] != 1, 0), one["start"][:, 1:].fill_(-1)
    full = cases["an object covers everything"]
    full["masks"].fill_(1), full["start"][:, 1:].fill_(-1)
    late = cases["late starts"]
    late["start"].fill_(1), late["masks"][:, 0].zero_()
    void = cases["all void"]
    void["masks"][:, 1:].fill_(VOID)
    return cases


def _draw_box(draw: np.uint64, attempt: int, height: int, width: int) -> tuple[int, int, int, int]:
    """A random part of a frame: area uniform in `CROP_SCALE`, aspect log-uniform in `CROP_RATIO`, no larger than the frame."""
    area, aspect, column, row = (
        (hashed >> np.uint64(11)) * 2.0**-53 for hashed in _hashes(draw, Salt.VIDEO_CROP, attempt, 4)
    )
    kept = height * width * (CROP_SCALE[0] + (CROP_SCALE[1] - CROP_SCALE[0]) * float(area))
    ratio = math.exp(math.log(CROP_RATIO[0]) + math.log(CROP_RATIO[1] / CROP_RATIO[0]) * float(aspect))
    w = min(width, max(1, round(math.sqrt(kept * ratio))))
    h = min(height, max(1, round(math.sqrt(kept / ratio))))
    left, top = int(float(column) * (width - w + 1)), int(float(row) * (height - h + 1))
    return left, top, left + w, top + h


def _hashes(draw: np.uint64, salt: Salt, attempt: int, count: int) -> NDArray[np.uint64]:
    """[count] hashes of one attempt."""
    return stream(np.array([draw], np.uint64), salt, (attempt + 1) * count)[0, attempt * count :]


def _coin(draw: np.uint64, salt: Salt) -> bool:
    return bool(stream(np.array([draw], np.uint64), salt, 1)[0, 0] >> np.uint64(63))
