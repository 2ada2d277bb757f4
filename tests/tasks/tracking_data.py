"""Clips of a red square that moves over grey noise, and trackers whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.video.clips import Boxes, ClipInfo
from bench.metrics.masked import denormalise
from bench.tasks import tracking_batches as batches
from bench.tasks.tracking import Tracking, TrackingConfig

CLIPS = {"train": 12, "validation": 4, "test": 7}
FACTORS = ("plain", "occlusion")


@dataclass(frozen=True)
class MovingSquares:
    """Clip i of a split is 6 + i modulo `lengths` frames of a square that moves on a circle; frame 3 of clips with occlusion shows none.

    In the last frame of clip 1 the target is not in the picture. Clip 2 begins with `late` frames before its target is given.
    """

    split: str
    height: int = 60
    width: int = 80
    lengths: int = 3
    late: int = 0
    fingerprint: str = "squares"
    notices: tuple[str, ...] = ("a square",)

    def __len__(self) -> int:
        return CLIPS[self.split]

    def info(self, clip: int) -> ClipInfo:
        count = 6 + clip % self.lengths
        start = self.late if clip == 2 else 0
        factors = (FACTORS[clip % 2],)
        return ClipInfo(f"clip-{clip:05d}", count, self.height, self.width, (start,), np.ones(count, bool), factors)

    def boxes(self, clip: int) -> Boxes:
        info = self.info(clip)
        angle = clip + 0.25 * np.arange(info.frames)
        side = 14 + clip % 3
        centre = np.stack([self.width / 2 + 20 * np.cos(angle), self.height / 2 + 15 * np.sin(angle)], 1).round()
        xywh = np.concatenate([centre - side // 2, np.full((info.frames, 2), side)], 1).astype(np.float32)
        visible, present = np.ones(info.frames, np.float32), np.ones(info.frames, bool)
        if "occlusion" in info.factors:
            visible[3] = 0
        if clip == 1:
            present[-1], visible[-1], xywh[-1] = False, 0, np.nan
        before = np.arange(info.frames) < info.first_frames[0]
        present[before], visible[before], xywh[before] = False, 0, np.nan
        return Boxes(xywh, visible, present)

    def frames(self, clip: int, which: np.ndarray) -> np.ndarray:
        boxes, images = self.boxes(clip), []
        for frame in which:
            noise = np.random.default_rng([clip, int(frame)]).integers(90, 150, (self.height, self.width, 1), np.uint8)
            image = np.repeat(noise, 3, axis=2)
            if boxes.visible[frame]:
                x, y, w, h = boxes.xywh[frame].astype(int)
                image[max(0, y) : y + h, max(0, x) : x + w] = (255, 0, 0)
            images.append(image)
        return np.stack(images)


class FindRed(nn.Module):
    """Returns the box around what is red in the search crop; where nothing is, a third of the crop in its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, template: Tensor, online_template: Tensor, search: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return {"boxes_cxcywh": torch.stack([self.box(crop) for crop in denormalise(search)])}

    @staticmethod
    def box(crop: Tensor) -> Tensor:
        red = crop[0] - crop[1] > 0.5
        if not red.any():
            return torch.tensor([0.5, 0.5, 1 / 3, 1 / 3])
        sides = []
        for axis in (0, 1):
            places = red.any(axis).nonzero()[:, 0]
            sides.append((float(places[0]) / len(crop[0]), float(places[-1] + 1) / len(crop[0])))
        (left, right), (top, bottom) = sides
        return torch.tensor([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])


class FindRedCached(FindRed):
    """The same with templates set apart; keeps every pair that it was given, and will not be called otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.templates: list[tuple[Tensor, Tensor]] = []

    def set_templates(self, template: Tensor, online_template: Tensor) -> dict[str, int]:
        self.templates.append((template, online_template))
        return {"samples": len(template)}

    def track(self, search: Tensor, cache: dict[str, int]) -> Tensor:
        assert cache["samples"] == len(search)
        return super().forward(search, search, search)["boxes_cxcywh"]

    def forward(self, template: Tensor, online_template: Tensor, search: Tensor) -> dict[str, Tensor]:
        raise AssertionError("the templates are cached")


class Answer(nn.Module):
    """Returns one box, whatever it sees."""

    def __init__(self, *box: float) -> None:
        super().__init__()
        self.box = torch.tensor(box)

    def forward(self, template: Tensor, online_template: Tensor, search: Tensor) -> dict[str, Tensor]:
        return {"boxes_cxcywh": self.box.expand(len(search), 4)}


def make(tmp_path: Path = Path("nowhere"), late: int = 0, **options) -> Tracking:
    """The task on moving squares."""
    config = TrackingConfig(**{"eval_batch": 3, "factors": ("plain", "occlusion"), **options})
    return Tracking(config, tmp_path, lambda split: MovingSquares(split, late=late))


def draws_of(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint64) * np.uint64(977)


def crop_of(box: list[float], factor: float) -> np.ndarray:
    return batches.crops_around(np.array([box], np.float64), factor)[0]
