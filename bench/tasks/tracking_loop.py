"""The online loop of the task ``tracking``: follow one target a clip from its first box, several clips side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.tasks import tracking_batches as batches

if TYPE_CHECKING:
    from torch import nn

    from bench.data.video.clips import BoxedVideos
    from bench.tasks.tracking_batches import Values
    from bench.tasks.tracking_config import TrackingConfig

LEAST_BOX = 1 / 64
"""Least width and height of a followed box over the root of the image's area: 10 pixels at 480 x 854, as published."""


class Predictor:
    """Boxes of search crops by a model, its templates cached where it offers ``set_templates`` and ``track``."""

    def __init__(self, model: nn.Module) -> None:
        """Templates must be set before anything is predicted."""
        self._model: Any = model
        self._caches = hasattr(model, "set_templates") and hasattr(model, "track")
        self._templates: Any = None

    def set_templates(self, template: Tensor, online_template: Tensor) -> None:
        """Normalised crops [B, 3, t, t] that all boxes refer to from now on."""
        templates = {"template": template, "online_template": online_template}
        self._templates = self._model.set_templates(**templates) if self._caches else templates

    def boxes(self, search: Tensor) -> Tensor:
        """Normalised crops [B, 3, s, s] -> boxes [B, 4], centre and size in fractions of the crop."""
        if self._caches:
            boxes: Tensor = self._model.track(search, self._templates)
            return boxes
        return boxes_of(self._model(search=search, **self._templates), len(search))


def boxes_of(outputs: Mapping[str, Tensor], samples: int) -> Tensor:
    """``boxes_cxcywh`` [B, 4] of a model's outputs.

    Raises:
        ValueError: they are missing or have another shape.
    """
    if "boxes_cxcywh" not in outputs:
        raise ValueError(f"forward must return the key 'boxes_cxcywh', got {', '.join(outputs) or 'nothing'}")
    boxes = outputs["boxes_cxcywh"]
    if boxes.shape != (samples, 4):
        raise ValueError(f"boxes_cxcywh must be [B, 4] = {[samples, 4]}, got {list(boxes.shape)}")
    return boxes


def follow(
    config: TrackingConfig,
    predictor: Predictor,
    videos: BoxedVideos,
    clips: Sequence[int],
    device: torch.device,
) -> list[NDArray[np.float64]]:
    """Boxes [F, 4] in pixels of each of `clips`, from the frame on in which the target is given; that one is the true one.

    The template is cut out of that frame, each search crop about the last box, and every `update_interval` frames the online
    template about the box just found. No box leaves the image or shrinks below `LEAST_BOX` of it.

    Raises:
        FloatingPointError: a predicted box is not finite; names the first such clip.
    """
    infos = [videos.info(clip) for clip in clips]
    starts = [info.first_frames[0] for info in infos]
    found = [np.zeros((info.frames - start, 4)) for info, start in zip(infos, starts, strict=True)]

    def frame_of(number: int, time: int) -> NDArray[np.uint8]:
        return videos.frames(clips[number], np.array([starts[number] + time]))[0]

    def templates_of(frames: Sequence[NDArray[np.uint8]], boxes: Values) -> list[Tensor]:
        crops = batches.crops_around(boxes, config.template_factor)
        return [batches.cut(frame, crop, config.template_size) for frame, crop in zip(frames, crops, strict=True)]

    for boxes, clip, start in zip(found, clips, starts, strict=True):
        boxes[0] = videos.boxes(clip).xywh[start]
    live = list(range(len(clips)))
    templates = templates_of([frame_of(number, 0) for number in live], np.stack([boxes[0] for boxes in found]))
    online = list(templates)
    stale = True  # what the predictor's templates are
    for time in range(1, max(map(len, found))):
        remaining = [number for number in live if len(found[number]) > time]
        stale, live = stale or len(remaining) < len(live), remaining
        if stale:
            sides = ([images[number] for number in live] for images in (templates, online))
            predictor.set_templates(*(_normalised(side, device) for side in sides))
            stale = False
        frames = [frame_of(number, time) for number in live]
        crops = batches.crops_around(np.stack([found[number][time - 1] for number in live]), config.followed_factor)
        search = [batches.cut(frame, crop, config.search_size) for frame, crop in zip(frames, crops, strict=True)]
        predicted = predictor.boxes(_normalised(search, device)).double().cpu().numpy()
        if not np.isfinite(predicted).all():
            number = live[int(np.isfinite(predicted).all(1).argmin())]
            at = starts[number] + time
            raise FloatingPointError(f"{infos[number].name}, frame {at}: the predicted box is not finite")
        boxes = held(batches.to_pixels(predicted, crops), np.array([frame.shape[:2] for frame in frames]))
        for number, box in zip(live, boxes, strict=True):
            found[number][time] = box
        if config.update_interval and time % config.update_interval == 0:
            for number, image in zip(live, templates_of(frames, boxes), strict=True):
                online[number] = image
            stale = True
    return found


def held(boxes: Values, sizes: NDArray[np.integer]) -> Values:
    """Boxes [B, 4], of whatever size, as ones in images of `sizes` [B, 2] = height, width.

    Their sides are at least `LEAST_BOX` of the image; a negative size counts as none.
    """
    limits, least = sizes[:, ::-1].astype(np.float64), np.sqrt(sizes.prod(1, keepdims=True)) * LEAST_BOX
    middle, half = boxes[:, :2] + boxes[:, 2:] / 2, np.maximum(boxes[:, 2:], least) / 2
    low = np.clip(middle - half, 0, limits - least)
    high = np.clip(middle + half, low + least, limits)
    return np.concatenate([low, high - low], axis=1)


def _normalised(crops: Sequence[Tensor], device: torch.device) -> Tensor:
    """Crops [3, size, size] in bytes as architectures get them, [B, 3, size, size]."""
    return batches.to_device({"crops": batches.stacked(crops)}, device)["crops"]
