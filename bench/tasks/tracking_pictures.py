"""The qualitative grid of the task ``tracking``: frames with boxes drawn on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from bench.tasks.grid import labelled_grid

if TYPE_CHECKING:
    from bench.data.video.clips import BoxedVideos

CLIPS, FRAMES = 2, 3
"""Clips of the grid, and frames of each: evenly after the first one."""
SIDE = 192
"""Pixels of a tile; frames that are not square leave a black margin."""
TRUE, PREDICTED = (255, 255, 255), (255, 64, 32)
"""Colours of the boxes."""


def picture(
    data: BoxedVideos, clips: Sequence[int], followed: Mapping[str, Sequence[NDArray[np.float64]]]
) -> NDArray[np.uint8]:
    """Grid with one row a frame: the true box, white, and in each model's column the predicted one too, orange.

    Args:
        data: the clips.
        clips: numbers of clips; `CLIPS` of them, evenly, are drawn.
        followed: model to the boxes that it found in each of `clips`, from the frame on in which the target is given.
    """
    columns: dict[str, list[Tensor]] = {label: [] for label in ("truth", *followed)}
    for number in np.unique(np.linspace(0, len(clips) - 1, CLIPS).round().astype(int)):
        clip = clips[number]
        truth, start = data.boxes(clip).xywh, data.info(clip).first_frames[0]
        times = np.linspace(start, len(truth) - 1, FRAMES + 1).round().astype(int)[1:]
        for time, frame in zip(times, data.frames(clip, times), strict=True):
            columns["truth"].append(_drawn(frame, {TRUE: truth[time]}))
            for label, boxes in followed.items():
                columns[label].append(_drawn(frame, {TRUE: truth[time], PREDICTED: boxes[number][time - start]}))
    return labelled_grid({label: torch.stack(tiles) for label, tiles in columns.items()})


def _drawn(frame: NDArray[np.uint8], boxes: Mapping[tuple[int, int, int], NDArray[np.floating]]) -> Tensor:
    """A frame [H, W, 3] with boxes in their colours, enlarged or reduced to [3, `SIDE`, `SIDE`] in 0..1."""
    height, width = frame.shape[:2]
    scale = SIDE / max(height, width)
    image = Image.new("RGB", (SIDE, SIDE))
    image.paste(Image.fromarray(frame).resize((max(1, round(width * scale)), max(1, round(height * scale)))))
    draw = ImageDraw.Draw(image)
    for colour, box in boxes.items():
        if np.isfinite(box).all():
            left, top, right, bottom = (float(value) * scale for value in (*box[:2], *(box[:2] + box[2:])))
            draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
    return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 255
