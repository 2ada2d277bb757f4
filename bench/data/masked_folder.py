"""Videos with index masks in folders: what the readers of DAVIS and YouTube-VOS have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.images import ImagePool
from bench.data.index_masks import ids_of, palette_of, read_mask, write_masks
from bench.data.video.clips import VOID, ClipInfo
from bench.data.video_folder import FrameFolder, size
from bench.errors import UserError


@dataclass(frozen=True)
class Objects:
    """Objects of a video: their numbers in the files, ascending, and the frame in which each mask is given."""

    ids: tuple[int, ...]
    first_frames: tuple[int, ...]


@dataclass(frozen=True)
class MaskedClip:
    """Where one video lies."""

    name: str
    frames: FrameFolder
    masks: Mapping[int, Path]
    """Annotated frame -> its mask."""
    objects: Objects | None = None
    """None: to be found in the masks."""
    submitted: tuple[int, ...] | None = None
    """Frames that a submission holds; None: all."""


@dataclass(frozen=True, eq=False)
class MaskedFolders:
    """Videos with index masks, as `bench.data.video.clips.MaskedVideos`; frames and masks are read on demand, in threads."""

    clips: Sequence[MaskedClip]
    fingerprint: str
    """Digest of names and sizes of all files, wherever they lie."""
    notices: tuple[str, ...] = ()
    pool: ImagePool = field(default_factory=ImagePool)
    merge: bool = False
    """All objects of a video are one."""
    _known: dict[int, ClipInfo] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.clips)

    def info(self, clip: int) -> ClipInfo:
        """What is known of clip number `clip`; where the data set does not list its objects, its masks are read once.

        Raises:
            UserError: no mask has an object, or a mask cannot be read.
        """
        if clip not in self._known:
            one = self.clips[clip]
            objects = one.objects or self._find_objects(one)
            annotated = np.zeros(len(one.frames.files), bool)
            annotated[list(one.masks)] = True
            height, width = one.frames.shape
            self._known[clip] = ClipInfo(
                name=one.name,
                frames=len(annotated),
                height=height,
                width=width,
                first_frames=objects.first_frames,
                annotated=annotated,
                object_ids=objects.ids,
            )
        return self._known[clip]

    def frames(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """RGB [n, H, W, 3] of the frames `which` [n], in the size of the files."""
        return self.clips[clip].frames.read(which, self.pool)

    def masks(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """[n, H, W] of the annotated frames `which` [n]: 0 background, 1.. position in `object_ids` + 1, 255 void.

        Raises:
            UserError: a mask cannot be read, has another size than the frames, or disagrees with the list of objects.
        """
        one, info = self.clips[clip], self.info(clip)
        table = np.zeros(256, np.uint8)
        table[list(info.object_ids)] = np.arange(1, len(info.object_ids) + 1)
        table[VOID] = VOID

        def read(frame: int) -> NDArray[np.uint8]:
            if frame not in one.masks:
                raise ValueError(f"frame {frame} of {one.name} has no mask: ask for annotated frames only")
            mask = self._read(one, frame)
            self._compare(one, info, frame, ids_of(mask))
            return table[mask]

        return np.stack(self.pool.map(read, np.asarray(which).tolist()))

    def submitted(self, clip: int) -> NDArray[np.int64]:
        """[n] frames that a submission must hold; all but where only some frames of a video are scored."""
        one = self.clips[clip]
        return np.array(range(len(one.frames.files)) if one.submitted is None else one.submitted, np.int64)

    def write_prediction(self, out: Path, clip: int, masks: NDArray[np.uint8]) -> None:
        """Write predicted masks [F, H, W] of all frames of a clip to ``<out>/<name>/<frame>.png``, all or nothing.

        Only the frames of a submission are kept, under the names and object numbers of the data set and with the palette of its
        own first mask.

        Raises:
            UserError: the folder exists, or the disk.
            ValueError: `masks` has another shape than the clip.
        """
        one, info, kept = self.clips[clip], self.info(clip), self.submitted(clip)
        if masks.shape != (info.frames, info.height, info.width):
            raise ValueError(f"masks of {one.name} are {masks.shape}, not {(info.frames, info.height, info.width)}")
        palette = palette_of(one.masks[min(one.masks)])
        stems = [one.frames.stems[frame] for frame in kept]
        write_masks(out / one.name, masks[kept], stems, info.object_ids, palette)

    def _read(self, one: MaskedClip, frame: int) -> NDArray[np.uint8]:
        mask = read_mask(one.masks[frame], black_and_white=self.merge)
        if mask.shape != one.frames.shape:
            raise UserError(
                f"task.data_path: the mask {one.masks[frame]} has {size(mask.shape)} pixels, but its frame has "
                f"{size(one.frames.shape)}: take both of one resolution"
            )
        return np.where((mask > 0) & (mask != VOID), np.uint8(1), mask) if self.merge else mask

    def _find_objects(self, one: MaskedClip) -> Objects:
        frames = sorted(one.masks)
        first: dict[int, int] = {}
        for frame, ids in zip(frames, self.pool.map(lambda f: ids_of(self._read(one, f)), frames), strict=True):
            for number in ids:
                first.setdefault(number, frame)
        if not first:
            raise UserError(f"task.data_path: no mask in {one.masks[frames[0]].parent} has an object: fetch them again")
        ids_found = tuple(sorted(first))
        return Objects(ids_found, tuple(first[number] for number in ids_found))

    def _compare(self, one: MaskedClip, info: ClipInfo, frame: int, ids: Sequence[int]) -> None:
        """Hold a mask against what the data set's own list says of its objects."""
        says = ""
        start = dict(zip(info.object_ids, info.first_frames, strict=True))
        for number in {*ids, *(i for i, first in start.items() if first == frame)}:
            if number not in start:
                says = f"has object {number}, which meta.json does not list"
            elif frame < start[number]:
                says = f"has object {number}, which by meta.json begins in frame {one.frames.stems[start[number]]}"
            elif frame == start[number] and number not in ids:
                says = f"lacks object {number}, which by meta.json begins here"
        if says:
            raise UserError(
                f"task.data_path: the mask {one.masks[frame]} {says}: mend either, or name the video in task.leave_out"
            )
