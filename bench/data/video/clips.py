"""What a video data set offers to the tasks `vos` (masks) and `tracking` (boxes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

VOID = 255
"""Mask value of pixels that count for nothing."""


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip without reading its pixels."""

    name: str
    """Unique in the split: "clip-00007", or the name of a sequence."""
    frames: int
    height: int
    width: int
    first_frames: tuple[int, ...]
    """One entry an object, whose number in masks is its position + 1: the frame in which its mask is given."""
    annotated: NDArray[np.bool_]
    """[F]: frames with ground truth."""
    factors: tuple[str, ...] = ()
    """What is hard about an embedded clip, such as ("occlusion",); empty on real video."""
    object_ids: tuple[int, ...] = ()
    """Ids of the objects in the data set's own files; 1, 2, 3.. where they are the same as in masks."""


@dataclass(frozen=True)
class Boxes:
    """The box of one target in each frame of a clip."""

    xywh: NDArray[np.float32]
    """[F, 4] pixels: left upper corner (x, y), width, height. The first pixel's corner is the origin; NaN when absent."""
    visible: NDArray[np.float32]
    """[F] 0..1: share of the target that is seen, of what lies inside the picture; 1 where the data do not say."""
    present: NDArray[np.bool_]
    """[F]: the target is, at least partly, in the picture."""


def sample_name(split: str, info: ClipInfo) -> str:
    """``<split>/<clip>``, what records of a clip begin with: of two parts, whatever folders the clip's own name has."""
    return f"{split}/{info.name.replace('/', ':')}"


class Videos(Protocol):
    """Clips of frames."""

    @property
    def fingerprint(self) -> str:
        """Digest of what was found."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that must stand under a table."""
        ...

    def __len__(self) -> int: ...

    def info(self, clip: int) -> ClipInfo:
        """What is known of clip number `clip`."""
        ...

    def frames(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """RGB [n, H, W, 3] of the frames `which` [n]."""
        ...


class MaskedVideos(Videos, Protocol):
    """Clips with object masks."""

    def masks(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """[n, H, W] of the annotated frames `which` [n]: 0 background, 1.. objects, 255 void."""
        ...


class BoxedVideos(Videos, Protocol):
    """Clips with the box of one target."""

    def boxes(self, clip: int) -> Boxes:
        """The target's boxes in all frames."""
        ...
