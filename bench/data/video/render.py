"""From a scene to pixels, masks and boxes."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.draws import Salt, stream
from bench.data.video.clips import VOID
from bench.data.video.layers import paint
from bench.data.video.scene import Cover, Scene, pixel_centres, sample_scene
from bench.data.video.spec import VideoSpec

SAMPLES = ((0.0, 0.0), (-0.3, -0.1), (0.1, -0.3), (0.3, 0.1), (-0.1, 0.3))
"""Places in a pixel, in pixels from its centre, whose colours are averaged; masks belong to the centre alone."""
NOISE = 0.02
"""Standard deviation of the sensor's noise, in units of the range of a channel."""


@dataclass(frozen=True, eq=False)
class Clip:
    """F frames of H x W pixels with O targets."""

    rgb: NDArray[np.uint8]
    """[F, H, W, 3]"""
    masks: NDArray[np.uint8]
    """[F, H, W]: 0 background, 1.. targets, 255 a target before the frame in which its mask is given."""
    amodal: NDArray[np.uint8]
    """[F, H, W]: bit o is set where target o + 1 is, hidden or not."""
    boxes: NDArray[np.float32]
    """[F, O, 4] x, y, width, height in pixels of all of a target that lies in the picture; NaN where nothing does."""
    areas: NDArray[np.int32]
    """[F, O, 2] pixels of a target: seen, and seen or hidden."""
    start: NDArray[np.int32]
    """[O]: frame in which a target's mask is given."""


def make_clip(spec: VideoSpec, split: str, clip: int) -> Clip:
    """Draw and render a clip, the same on every machine.

    Raises:
        UserError: `spec` asks for too much in one picture.
    """
    scene, cover = sample_scene(spec, split, clip)
    size, frames = spec.image_size, spec.frames
    rgb = _sense(_render(scene, size), spec.draw(split, clip))
    if spec.jpeg_quality:
        rgb = np.stack([_through_jpeg(frame, spec.jpeg_quality) for frame in rgb])
    bits = (cover.amodal.astype(np.uint8) << np.arange(spec.objects, dtype=np.uint8)[:, None, None]).sum(axis=0)
    amodal = cover.amodal.reshape(spec.objects, frames, size, size)
    return Clip(
        rgb=rgb,
        masks=_masks(scene, cover).reshape(frames, size, size),
        amodal=bits.astype(np.uint8).reshape(frames, size, size),
        boxes=np.stack([tight_boxes(one) for one in amodal], axis=1),
        areas=np.stack(cover.areas(), axis=-1).transpose(1, 0, 2).astype(np.int32),
        start=np.array(scene.start, np.int32),
    )


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """[F, 4] x, y, width, height of the pixels that are set in masks [F, H, W]; NaN where none is."""
    boxes = np.full((len(masks), 4), np.nan, np.float32)
    some = np.flatnonzero(masks.any(axis=(1, 2)))
    for axis, side in ((1, 0), (2, 1)):
        there = np.any(masks[some], axis=axis)
        first = there.argmax(axis=1)
        boxes[some, side] = first
        boxes[some, side + 2] = there.shape[1] - there[:, ::-1].argmax(axis=1) - first
    return boxes


def _masks(scene: Scene, cover: Cover) -> NDArray[np.uint8]:
    masks = cover.visible.copy()
    for number, start in enumerate(scene.start):
        early = masks[:start]
        early[early == number + 1] = VOID
    return masks


def _render(scene: Scene, size: int) -> NDArray[np.uint16]:
    """[F, H, W, 3]: sum over `SAMPLES` of the colour of the nearest thing."""
    x, y = pixel_centres(size)
    frames = len(scene.ground.x)
    total = np.zeros((frames * size * size, 3), np.uint16)
    for across, down in SAMPLES:
        free = np.ones(len(total), bool)
        for layer in (*reversed(scene.layers()), scene.ground):  # the nearest first: nothing is painted over
            covered = layer.cover(x + np.float32(across / size), y + np.float32(down / size))
            covered = covered.only(free[covered.where])
            free[covered.where] = False
            total[covered.where] += paint(layer, covered, len(x))
    return total.reshape(frames, size, size, 3)


def _sense(total: NDArray[np.uint16], draw: np.uint64) -> NDArray[np.uint8]:
    """The mean of the samples with noise: the sum of four bytes, which is as good as normal."""
    bytes_ = stream(np.array([draw]), Salt.VIDEO_NOISE, (total.size + 1) // 2)[0].astype("<u8").view(np.uint8)
    noise = bytes_[: 4 * total.size].reshape(-1, 4).sum(axis=1, dtype=np.int32).reshape(total.shape) - 510
    scale = round(
        NOISE * 255 / (4 * (256**2 - 1) / 12) ** 0.5 * 2**16
    )  # deviation of the sum: sqrt(4 (256^2 - 1) / 12)
    mean = (2 * total.astype(np.int32) + len(SAMPLES)) // (2 * len(SAMPLES))
    return np.clip(mean + ((noise * scale + 2**15) >> 16), 0, 255).astype(np.uint8)


def _through_jpeg(frame: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
