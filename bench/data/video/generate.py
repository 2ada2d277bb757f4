"""The cache of generated clips: made once, then read through memory maps.

    cache_dir/video-v1/<split>-<clips>x<frames>-<size>px-<key>/

is a `RenderedFolder`. The key is a hash of what determines the bytes, so that two specs never share a folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.cache_folder import Progress, digest
from bench.data.rendered import RenderedFolder
from bench.data.shards import ShardedArray, write_shard
from bench.data.video.clips import BoxedVideos, Boxes, ClipInfo, MaskedVideos
from bench.data.video.render import Clip, make_clip
from bench.data.video.scene import largest
from bench.data.video.spec import SPLITS, VIDEO_VERSION, VideoSpec, check_split, shard_ranges

FIELDS = tuple(field.name for field in dataclasses.fields(Clip))
BYTES_PER_PIXEL = 3 + 1 + 1
NOTICE = (
    "The clips are procedural (drawn by a program from random numbers): numbers compare architectures on this data and say "
    "nothing of DAVIS or any other real video."
)


class GeneratedVideos:
    """The clips of one split on disk, with masks and boxes; see `open_masked`."""

    notices: tuple[str, ...] = (NOTICE,)

    def __init__(self, spec: VideoSpec, split: str, arrays: Mapping[str, ShardedArray], fingerprint: str) -> None:
        """Take the split's fields, memory-mapped."""
        self._spec, self._split, self._rgb, self._masks = spec, split, arrays["rgb"], arrays["masks"]
        self.fingerprint: str = fingerprint
        self.amodal: ShardedArray = arrays["amodal"]
        """uint8 [N, F, H, W]: bit o is set where target o + 1 is, hidden or not."""
        self.target_boxes: NDArray[np.float32] = np.asarray(arrays["boxes"])
        """[N, F, O, 4] x, y, width, height in pixels of all of a target that lies in the picture; NaN where nothing does."""
        self.areas: NDArray[np.int32] = np.asarray(arrays["areas"])
        """[N, F, O, 2] pixels of a target: seen, and seen or hidden."""
        self.start: NDArray[np.int32] = np.asarray(arrays["start"])
        """[N, O] frame in which a target's mask is given."""

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._rgb)

    def info(self, clip: int) -> ClipInfo:
        """What is known of clip number `clip`."""
        spec = self._spec
        return ClipInfo(
            name=f"clip-{clip:05d}",
            frames=spec.frames,
            height=spec.image_size,
            width=spec.image_size,
            first_frames=tuple(self.start[clip].tolist()),
            annotated=np.ones(spec.frames, bool),
            factors=spec.clip_factors(self._split, clip),
            object_ids=tuple(range(1, spec.objects + 1)),
        )

    def frames(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """RGB [n, H, W, 3] of the frames `which` [n]."""
        return self._rgb[clip, which]

    def masks(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """[n, H, W] of the frames `which` [n]: 0 background, 1.. targets, 255 one before its mask is given."""
        return self._masks[clip, which]

    def target(self, clip: int) -> int:
        """Position of the target that is tracked: the largest in the first frame, hidden parts included."""
        return largest(self.areas[clip, :, :, 1].T)

    def boxes(self, clip: int) -> Boxes:
        """The tracked target's boxes, hidden parts included, in all frames."""
        target = self.target(clip)
        seen, whole = self.areas[clip, :, target].T
        visible = (seen / np.maximum(whole, 1)).astype(np.float32)
        return Boxes(self.target_boxes[clip, :, target].copy(), visible, whole > 0)


class _Tracked(GeneratedVideos):
    """The same clips with one target each."""

    def info(self, clip: int) -> ClipInfo:
        return dataclasses.replace(super().info(clip), first_frames=(0,), object_ids=(self.target(clip) + 1,))


def split_folder(spec: VideoSpec, split: str, cache_dir: Path) -> Path:
    """Where `split` of `spec` lies, or will lie."""
    key = digest(spec.describe(split))[:12]
    name = f"{split}-{spec.clips(split)}x{spec.frames}-{spec.image_size}px-{key}"
    return Path(cache_dir) / f"video-v{VIDEO_VERSION}" / name


def prepare(
    spec: VideoSpec, cache_dir: Path, progress: Progress | None = None, splits: Collection[str] = SPLITS
) -> None:
    """Generate what is missing of `splits`, in this process.

    A shard that is there but damaged is an error, not generated again in silence: who trusts the numbers wants to know that
    the disk does not keep what is written to it. Idempotent, and safe when several processes call it at once: one generates,
    the others wait for it.

    Args:
        spec: what to generate.
        cache_dir: folder that is made if it is missing.
        progress: told of every finished shard.
        splits: names of `SPLITS`.

    Raises:
        UserError: an unknown split, a spec that asks for too much in one picture, a damaged shard or manifest, a full disk or
            a folder that cannot be written.
    """
    for split in dict.fromkeys(check_split(split) for split in splits):
        _rendered(spec, split, cache_dir).complete(workers=1, progress=progress)


def open_masked(spec: VideoSpec, split: str, cache_dir: Path, *, verify: bool = True) -> MaskedVideos:
    """Open a split that `prepare` has generated, for segmentation; a `GeneratedVideos`.

    File sizes are always checked, SHA-256 sums if `verify` (a fraction of a second for the default sets).

    Raises:
        UserError: the split is not there, not complete, or damaged; the message names the file and the mend.
    """
    return GeneratedVideos(spec, split, *_open(spec, split, cache_dir, verify))


def open_boxed(spec: VideoSpec, split: str, cache_dir: Path, *, verify: bool = True) -> BoxedVideos:
    """Open the same clips for tracking: one target a clip, the largest one; see `open_masked`."""
    return _Tracked(spec, split, *_open(spec, split, cache_dir, verify))


def _open(spec: VideoSpec, split: str, cache_dir: Path, verify: bool) -> tuple[dict[str, ShardedArray], str]:
    rendered = _rendered(spec, split, cache_dir)
    arrays, shards = rendered.open(verify=verify)
    return arrays, rendered.fingerprint(shards)


def _rendered(spec: VideoSpec, split: str, cache_dir: Path) -> RenderedFolder:
    return RenderedFolder(
        what="video",
        split=split,
        folder=split_folder(spec, split, cache_dir),
        spec=spec.describe(split),
        fields=FIELDS,
        ranges=shard_ranges(spec, split),
        scene_bytes=spec.frames * spec.image_size**2 * BYTES_PER_PIXEL,
        render=partial(_make_shard, spec, split),
        software=("numpy",),
        verb="generate",
        things="clips",
    )


def _make_shard(spec: VideoSpec, split: str, clips: range, folder: Path, number: int) -> dict[str, Any]:
    """Generate and write one shard; return its manifest entries by field."""
    made = [make_clip(spec, split, clip) for clip in clips]
    return write_shard(folder, number, {field: [getattr(clip, field) for clip in made] for field in FIELDS})
