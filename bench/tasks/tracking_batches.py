"""Crops of the task ``tracking``: cut out of frames, drawn for training, made up for probes, moved to the device.

Boxes of frames are (x, y, width, height) in pixels, x and y of the left upper corner. Images keep the memory layout of files,
[B, H, W, 3], under the shape that everyone else sees, [B, 3, H, W].
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.data.draws import Salt, stream
from bench.errors import UserError
from bench.metrics.masked import normalise

if TYPE_CHECKING:
    from bench.contracts import Batch
    from bench.data.cache_folder import Progress
    from bench.data.video.clips import BoxedVideos
    from bench.tasks.tracking_config import TrackingConfig

Values = NDArray[np.float64]
Crops = NDArray[np.int64]
"""[B, 3]: left, top and side in pixels of square parts of frames; they may reach beyond these."""

CROPS = ("template", "online_template", "search")
"""Fields of a batch that are images."""
HELD_BYTES = 256 * 2**20
"""Most bytes of training frames that are kept in memory."""
LEAST_VISIBLE = 0.3
"""Share of a target that must be seen in a frame that training uses."""
LEAST_SIDE = 2
"""Pixels that it must be wide and high there."""
LEAST_CROP = 4
"""Pixels of the side of the smallest crop."""
WIDEST_JITTER = 2.0
"""Deviations at which the jitter of the scale is cut off."""


def crops_around(boxes: Values, factor: float) -> Crops:
    """Crops about the middles of boxes [B, 4] whose side is ceil(sqrt(width * height) * `factor`) pixels."""
    side = np.maximum(np.ceil(np.sqrt(boxes[:, 2:].prod(1, keepdims=True)) * factor), LEAST_CROP)
    corner = np.round(boxes[:, :2] + boxes[:, 2:] / 2 - side / 2)
    return np.concatenate([corner, side], axis=1).astype(np.int64)


def to_fractions(boxes: Values, crops: Crops) -> Values:
    """Boxes of frames as (centre x, centre y, width, height) in fractions of crops, [B, 4]."""
    centre = boxes[:, :2] + boxes[:, 2:] / 2 - crops[:, :2]
    return np.concatenate([centre, boxes[:, 2:]], axis=1) / crops[:, 2:]


def to_pixels(fractions: Values, crops: Crops) -> Values:
    """The inverse of `to_fractions`."""
    scaled = fractions * crops[:, 2:]
    return np.concatenate([scaled[:, :2] + crops[:, :2] - scaled[:, 2:] / 2, scaled[:, 2:]], axis=1)


def inside(fractions: Values) -> Values:
    """The parts of boxes [B, 4], in fractions of crops, that lie in the crops."""
    low, high = (np.clip(fractions[:, :2] + sign * fractions[:, 2:] / 2, 0, 1) for sign in (-1, 1))
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def cut(frame: NDArray[np.uint8], crop: Crops, size: int) -> Tensor:
    """One crop [3] of a frame [H, W, 3], black beyond its border, resized bilinearly with antialiasing to bytes [3, size, size].

    By torch, whose resizing of bytes takes a third of Pillow's time: at `tiny` a training step is a few milliseconds a sample.
    """
    left, top, side = crop.tolist()
    part = np.zeros((side, side, 3), np.uint8)
    seen = frame[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    part[max(-top, 0) :, max(-left, 0) :][: seen.shape[0], : seen.shape[1]] = seen
    images = torch.from_numpy(part).movedim(-1, 0)[None]
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)[0]


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Images [3, h, w] as [B, 3, h, w] in the memory layout of files."""
    return torch.from_numpy(np.stack([image.movedim(0, -1).numpy() for image in images])).movedim(-1, 1)


# ----------------------------------------------------------------------------------------------------------- training


class TrainingClips:
    """The clips that training can use, each with the frames in which its target is seen well enough.

    Where all their frames fit into `HELD_BYTES` they are read and their templates cut once and for all.
    """

    def __init__(self, config: TrackingConfig, videos: BoxedVideos, progress: Progress | None = None) -> None:
        """Find them, and read them if they are to be kept.

        Raises:
            UserError: no frame shows `LEAST_VISIBLE` of a target, `LEAST_SIDE` pixels wide and high.
        """
        self._config, self._videos = config, videos
        self._clips: list[int] = []
        self.usable: list[list[int]] = []
        """Of each clip the usable frames, ascending."""
        self.boxes: list[NDArray[np.float32]] = []
        """Of each the boxes [F, 4] of all its frames."""
        for clip in range(len(videos)):
            _report(progress, "boxes of training clips", clip, len(videos))
            truth = videos.boxes(clip)
            # NaN, the box of an absent target, is not larger than anything.
            good = truth.present & (truth.visible >= LEAST_VISIBLE) & (truth.xywh[:, 2:] >= LEAST_SIDE).all(1)
            if good.any():
                self._clips.append(clip)
                self.usable.append(np.flatnonzero(good).tolist())
                self.boxes.append(truth.xywh)
        _report(progress, "boxes of training clips", len(videos), len(videos))
        if not self._clips:
            raise UserError(f"train: the target is never seen in any of {len(videos)} clips; check task.data_path")
        infos = [videos.info(clip) for clip in self._clips]
        self._frames: list[NDArray[np.uint8]] = []
        self._templates: list[dict[int, Tensor]] = []
        if sum(3 * info.frames * info.height * info.width for info in infos) <= HELD_BYTES:
            for index, (clip, info) in enumerate(zip(self._clips, infos, strict=True)):
                frames, usable = videos.frames(clip, np.arange(info.frames)), self.usable[index]
                self._frames.append(frames)
                self._templates.append(
                    dict(zip(usable, self._cut_templates(index, usable, frames[usable]), strict=True))
                )

    def __len__(self) -> int:
        """Number of usable clips."""
        return len(self._clips)

    def crops(self, index: int, templates: Sequence[int], search: int, crop: Crops) -> list[Tensor]:
        """Template crops of the frames `templates` and the `crop` [3] of frame `search`, of usable clip number `index`."""
        if self._frames:
            images, frame = [self._templates[index][time] for time in templates], self._frames[index][search]
        else:
            *frames, frame = self._videos.frames(self._clips[index], np.array([*templates, search]))
            images = self._cut_templates(index, templates, frames)
        return [*images, cut(frame, crop, self._config.search_size)]

    def _cut_templates(self, index: int, times: Sequence[int], frames: Iterable[NDArray[np.uint8]]) -> list[Tensor]:
        """Template crops of `frames`, which are those of `times` in usable clip number `index`."""
        crops = crops_around(self.boxes[index][list(times)].astype(np.float64), self._config.template_factor)
        return [cut(frame, crop, self._config.template_size) for frame, crop in zip(frames, crops, strict=True)]


def _report(progress: Progress | None, label: str, done: int, total: int) -> None:
    if progress is not None:
        progress(label, done, total)


def choose_frames(usable: Sequence[int], numbers: Sequence[float], max_gap: int) -> tuple[int, int, int]:
    """Frames of the template, the online template and the search crop of a sample, by three numbers in 0..1.

    The search frame is any usable one; the templates are others at most `max_gap` frames before or after it, the nearer one
    online. Where there is none, the search frame itself serves.
    """
    place = int(numbers[0] * len(usable))
    search = usable[place]
    first, last = bisect_left(usable, search - max_gap), bisect_right(usable, search + max_gap)
    others = last - first - 1
    if not others:
        return search, search, search
    chosen = [first + int(number * others) for number in numbers[1:]]
    frames = [usable[other + (other >= place)] for other in chosen]  # past the search frame itself
    online, template = sorted(frames, key=lambda frame: abs(frame - search))
    return template, online, search


def jittered(boxes: Values, draws: NDArray[np.uint64], centre: float, scale: float) -> Values:
    """Boxes [B, 4] as a tracker might have left them, functions of `draws` [B].

    Width and height are multiplied by e^(`scale` z), z normal, each by its own. Then the middle moves along each axis by up to
    `centre` / 2 times the root of the new area, uniformly.
    """
    numbers = _uniform(draws, Salt.TRACKING_JITTER, 4)
    radius, angle = np.sqrt(-2 * np.log1p(-numbers[:, :1])), 2 * np.pi * numbers[:, 1:2]
    normal = np.clip(radius * np.concatenate([np.cos(angle), np.sin(angle)], 1), -WIDEST_JITTER, WIDEST_JITTER)
    size = boxes[:, 2:] * np.exp(scale * normal)
    shift = centre * np.sqrt(size.prod(1, keepdims=True)) * (numbers[:, 2:] - 0.5)
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2 + shift - size / 2, size], axis=1)


def host_batch(config: TrackingConfig, data: TrainingClips, indices: np.ndarray, draws: np.ndarray) -> Batch:
    """Host batch of one sample of each of the clips `indices` [B]: bytes, and boxes in fractions of the search crop.

    The part of a box outside the crop is cut off. One sample in two is mirrored, all three crops alike.
    """
    numbers = _uniform(draws, Salt.TRACKING_FRAMES, 3).tolist()
    chosen = [choose_frames(data.usable[i], own, config.max_gap) for i, own in zip(indices, numbers, strict=True)]
    boxes = np.stack([data.boxes[i][search] for i, (_, _, search) in zip(indices, chosen, strict=True)])
    boxes = boxes.astype(np.float64)
    around = jittered(boxes, draws, config.centre_jitter, config.scale_jitter)
    crops = crops_around(around, config.search_factor)
    targets = inside(to_fractions(boxes, crops))
    mirrored = _uniform(draws, Salt.TRACKING_FLIP, 1)[:, 0] >= 0.5
    targets[mirrored, 0] = 1 - targets[mirrored, 0]
    images: dict[str, list[Tensor]] = {name: [] for name in CROPS}
    for sample, (index, (template, online, search)) in enumerate(zip(indices, chosen, strict=True)):
        found = data.crops(index, (template, online), search, crops[sample])
        for name, image in zip(CROPS, found, strict=True):
            images[name].append(image.flip(-1) if mirrored[sample] else image)
    batch = {name: stacked(own) for name, own in images.items()}
    return {**batch, "boxes": torch.from_numpy(targets.astype(np.float32))}


def _uniform(draws: NDArray[np.uint64], salt: Salt, count: int) -> Values:
    """[B, `count`] numbers in 0..1, 1 excluded, by draws [B]."""
    return (stream(draws, salt, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a host batch: images become fp32, normalised. On CUDA they cross as pinned bytes, asynchronously."""
    moved: dict[str, Tensor] = {}
    for name, value in batch.items():
        if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
            value = value.pin_memory()
        value = value.to(device, non_blocking=True)
        moved[name] = normalise(value.float().div_(255)) if value.dtype == torch.uint8 else value
    return moved


# ------------------------------------------------------------------------------------------------------------- checks


def synthetic(config: TrackingConfig, batch_size: int, seed: int) -> Batch:
    """Host batch of the shapes of training: noise, and boxes that lie in the search crop."""
    generator = np.random.default_rng(seed)
    sizes = {name: config.crop_size(name) for name in CROPS}
    crops = {name: generator.integers(0, 256, (batch_size, own, own, 3), np.uint8) for name, own in sizes.items()}
    batch = {name: torch.from_numpy(images).movedim(-1, 1) for name, images in crops.items()}
    size = generator.uniform(0.1, 0.5, (batch_size, 2))
    centre = generator.uniform(size / 2, 1 - size / 2)
    return {**batch, "boxes": torch.from_numpy(np.concatenate([centre, size], axis=1).astype(np.float32))}


def edge_cases(config: TrackingConfig, batch_size: int) -> dict[str, Batch]:
    """Boxes of which nothing, next to nothing or everything is in the crop, and crops without content."""
    boxes = {
        "a box outside of the search crop": (1.0, 0.5, 0.0, 0.2),
        "a box of a hundredth of the crop's side": (0.3, 0.7, 0.01, 0.01),
        "a box of the whole crop": (0.5, 0.5, 1.0, 1.0),
    }
    cases = {}
    for name, box in boxes.items():
        cases[name] = synthetic(config, batch_size, seed=1)
        cases[name]["boxes"].copy_(torch.tensor(box))
    cases["black crops"] = synthetic(config, batch_size, seed=2)
    for field in CROPS:
        cases["black crops"][field].zero_()
    return cases
