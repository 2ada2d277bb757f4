"""Videos with the box of one target in folders: what the readers of GOT-10k and LaSOT have in common.

Both data sets count pixels from 1: the left upper corner of the first pixel is (1, 1) in their files. Here it is (0, 0), and
what is written for them is counted from 1 again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.images import ImagePool
from bench.data.shards import write_atomically
from bench.data.video.clips import Boxes, ClipInfo
from bench.data.video_folder import FrameFolder
from bench.errors import UserError


@dataclass(frozen=True)
class BoxedClip:
    """Where one video lies, and its boxes."""

    name: str
    frames: FrameFolder
    boxes: Boxes
    annotated: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class BoxedFolders:
    """Videos with boxes, as `bench.data.video.clips.BoxedVideos`; frames are read on demand, in threads."""

    clips: Sequence[BoxedClip]
    fingerprint: str
    """Digest of names and sizes of all frames and of the boxes, wherever they lie."""
    notices: tuple[str, ...] = ()
    pool: ImagePool = field(default_factory=ImagePool)

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.clips)

    def info(self, clip: int) -> ClipInfo:
        """What is known of clip number `clip`: the target is given where it is first present."""
        one = self.clips[clip]
        height, width = one.frames.shape
        first = int(np.argmax(one.boxes.present))
        return ClipInfo(one.name, len(one.frames.files), height, width, (first,), one.annotated, object_ids=(1,))

    def frames(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """RGB [n, H, W, 3] of the frames `which` [n], in the size of the files."""
        return self.clips[clip].frames.read(which, self.pool)

    def boxes(self, clip: int) -> Boxes:
        """The target's boxes in all frames; NaN also where the data set keeps the truth to itself."""
        return self.clips[clip].boxes


def make_boxes(
    xywh: NDArray[np.float64], visible: NDArray[np.floating], absent: NDArray[np.bool_], first_pixel: float, where: Path
) -> tuple[Boxes, int]:
    """Boxes of a file [F, 4] as `Boxes`, and in how many frames that are not said to be absent the box has no area.

    Raises:
        UserError: the target is in no frame, or a box is not finite.
    """
    if not np.isfinite(xywh[~absent]).all():
        frame = int(np.flatnonzero(~np.isfinite(xywh).all(1) & ~absent)[0])
        raise UserError(f"task.data_path: {where}, line {frame + 1}: the box is not finite: mend it")
    flat = ~(xywh[:, 2:] > 0).all(1)
    present = ~absent & ~flat
    if not present.any():
        raise UserError(
            f"task.data_path: {where} has the target in no frame: mend it, or name the video in task.leave_out"
        )
    shifted = xywh - [first_pixel, first_pixel, 0, 0]
    boxes = Boxes(
        xywh=np.where(present[:, None], shifted, np.nan).astype(np.float32),
        visible=np.where(present, visible, 0).astype(np.float32),
        present=present,
    )
    return boxes, int((flat & ~absent).sum())


def told_of_flat(flat: int, split: str) -> list[str]:
    """The line under a table on boxes without area."""
    return [f"{split}: in {flat} frames the box has no area; the target counts as absent there"] if flat else []


def result_lines(xywh: NDArray[np.floating]) -> bytes:
    """Boxes [F, 4] as the result files of both data sets have them: a line a frame, parted by commas, counted from 1.

    Raises:
        ValueError: not [F, 4], or not finite: a tracker has a box in every frame.
    """
    if xywh.ndim != 2 or xywh.shape[1] != 4 or not np.isfinite(xywh).all():
        raise ValueError(f"boxes must be finite [F, 4], got {xywh.shape}")
    return "".join(",".join(f"{v:.4f}" for v in row) + "\n" for row in xywh + np.array([1, 1, 0, 0])).encode()


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet, all or nothing. Raises `UserError` where it is."""
    if path.exists():
        raise UserError(f"{path} is there already and is not overwritten: remove it or choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
