"""Clips of squares that move, the task on them, and models of it whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.video.clips import VOID, ClipInfo
from bench.metrics import masked
from bench.tasks.vos import VideoObjectSegmentation, VOSConfig

CPU = torch.device("cpu")
SIZES = {"train": 12, "validation": 4, "test": 7, "shifted": 2}
COLOURS = np.array([[20, 20, 20], [200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
"""Of background and objects."""


@dataclass(frozen=True)
class Squares:
    """In clip c object o is a square that moves by o + c mod 3 pixels a frame; its colour tells its number.

    `starts` are the frames in which objects appear; before, they are not there. `hidden` maps an object to frames in which it
    cannot be seen. Frames before the last one may be without annotation, every `step`-th has one.
    """

    split: str = "test"
    height: int = 32
    width: int = 32
    length: int = 8
    starts: tuple[int, ...] = (0, 0)
    hidden: tuple[tuple[int, int], ...] = ()
    """Pairs of object (from 1) and frame."""
    void: bool = False
    """The left edge of every frame is void."""
    step: int = 1
    factors: tuple[str, ...] = ("plain", "occlusion")
    fingerprint: str = "squares"
    notices: tuple[str, ...] = ("Squares say nothing of anything.",)

    def __len__(self) -> int:
        return SIZES[self.split]

    def info(self, clip: int) -> ClipInfo:
        annotated = np.zeros(self.length, bool)
        annotated[:: self.step] = True
        factors = (self.factors[clip % len(self.factors)],) if self.factors else ()
        return ClipInfo(f"clip-{clip:03d}", self.length, self.height, self.width, self.starts, annotated, factors)

    def masks(self, clip: int, which: np.ndarray) -> np.ndarray:
        assert self.info(clip).annotated[which].all()
        return self._labels(clip, which, void=self.void)

    def frames(self, clip: int, which: np.ndarray) -> np.ndarray:
        return COLOURS[self._labels(clip, which, void=False)]

    def _labels(self, clip: int, which: np.ndarray, *, void: bool) -> np.ndarray:
        labels = np.zeros((len(which), self.height, self.width), np.uint8)
        side = min(self.height, self.width) // 4
        for place, frame in enumerate(which):
            for number, start in enumerate(self.starts, 1):
                if frame < start or (number, frame) in self.hidden:
                    continue
                top = number * side - side // 2
                left = int(clip + (number + clip % 3) * frame) % (self.width - side)
                labels[place, top : top + side, left : left + side] = number
            if void:
                labels[place, :, :2] = VOID
        return labels


def by_colour(frames: Tensor, slots: int) -> Tensor:
    """Logits [.., 1 + O, H, W] of frames [.., 3, H, W] of `Squares` by their colours: right wherever nothing is void."""
    pixels = masked.denormalise(frames.flatten(0, -4)).unflatten(0, frames.shape[:-3]) * 255
    colours = torch.from_numpy(COLOURS[: 1 + slots]).to(pixels).view(-1, 3, 1, 1)
    return -(pixels.unsqueeze(-4) - colours).abs().sum(-3) / 10


class Seer(nn.Module):
    """Knows the colours, and sees objects that have started."""

    def forward(self, frames: Tensor, first_masks: Tensor, start: Tensor) -> dict[str, Tensor]:
        logits = by_colour(frames, start.shape[1])
        number = torch.arange(frames.shape[1])[None, :, None]
        gone = ~((start[:, None] >= 0) & (number >= start[:, None]))
        logits[:, :, 1:] = logits[:, :, 1:].masked_fill(gone[..., None, None], -50.0)
        return {"logits": logits}


class Copier(nn.Module):
    """Says that objects are where they were given; so does its stream."""

    def forward(self, frames: Tensor, first_masks: Tensor, start: Tensor) -> dict[str, Tensor]:
        stream, logits = self.stream(), []
        for number in range(frames.shape[1]):
            given = start == number
            logits.append(stream.step(frames[:, number], first_masks * given[..., None, None], given))
        return {"logits": torch.stack(logits, 1)}

    def stream(self, *, usage: bool = False) -> CopierStream:
        return CopierStream(usage)


class CopierStream:
    """Also tells a made-up usage of frame 0, the frame before and, from frame 4 on, frame 2."""

    query_tokens = 10

    def __init__(self, tells: bool) -> None:
        self.tells, self.usage, self.number, self.masks = tells, None, 0, None
        self.calls: list[tuple[int, bool]] = []

    def step(self, frame: Tensor, masks: Tensor | None, given: Tensor | None) -> Tensor:
        self.calls.append((self.number, masks is not None))
        if masks is not None:
            self.masks = masks if self.masks is None else torch.where(given[..., None, None], masks, self.masks)
        numbers = sorted({0, self.number - 1, *([2] if self.number > 3 else [])} - {-1})
        if self.tells and self.number:
            masses = [5.0 if n == 0 else 2.0 if n == self.number - 1 else 1.0 for n in numbers]
            self.usage = torch.tensor(masses).expand(3, *self.masks.shape[:2], -1)
        self.clip_memory_frames = (tuple(numbers),) * len(frame)
        self.number += 1
        background = torch.full_like(frame[:, :1], 0.5)
        return 4 * torch.cat([background, self.masks], 1)


class Nothing(nn.Module):
    """One number that is learned: the logit of every object everywhere."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, frames: Tensor, first_masks: Tensor, start: Tensor) -> dict[str, Tensor]:
        shape = (*frames.shape[:2], start.shape[1], *frames.shape[3:])
        objects = self.value.expand(shape)
        return {"logits": torch.cat([torch.zeros_like(objects[:, :, :1]), objects], 2)}


def make(clips: dict | None = None, **options) -> VideoObjectSegmentation:
    """The task on squares of 32 px in clips of 8 frames."""
    ours = {"frames": 8, "shifted_clips": 0} if options.get("data", "embedded") == "embedded" else {}
    config = VOSConfig(**{"image_size": 32, "eval_batch": 3, **ours, **options})
    return VideoObjectSegmentation(config, Path("nowhere"), lambda split: Squares(split, **(clips or {})))


def batch_of(task: VideoObjectSegmentation, count: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    draws = np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)
    return task.collate(np.arange(count) % task.training_size(), draws)
