"""Pseudo-videos: one image and its mask, warped anew for every frame, as static images train video object segmentation.

The published recipe: rotation within 20 degrees, scale 0.9 to 1.1, shear within 10 degrees, and a thin-plate spline in a third
of the frames. Frame 0 is the image as it is, so that every object is there to be given. Every warp is a function of the draw.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import Salt, mix, of_name, stream
from bench.data.image_folder import SUFFIXES as IMAGES
from bench.data.images import composite, decode
from bench.data.index_masks import ids_of, read_mask
from bench.data.video.clips import VOID, ClipInfo
from bench.data.video_folder import check_split, choose, hold_out, new_digest, require_folder, shape_of, size
from bench.data.video_resize import Fit, make_fit
from bench.data.warps import NUMBERS, Warp, make_warp
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.video.clips import MaskedVideos

HELD_OUT = {"validation": 200, "test": 200}
"""Of a folder of images, those that are other splits than training, a tenth each at most."""


@dataclass(frozen=True, eq=False)
class PseudoVideos:
    """Warped first frames of `source`, as `bench.data.video.clips.MaskedVideos`: one clip for each clip there.

    Only the objects that `source` gives first in a clip are kept. `frames` and `masks` warp by a draw of the clip's name and
    `seed`; `warped` warps by any draw, so that training never sees the same clip twice.
    """

    source: MaskedVideos
    clip_frames: int
    size: int | None = None
    """Shorter side, resized before warping, which is slow on large photographs; None: as they are."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clip_frames < 1:
            raise UserError(f"clip_frames must be >= 1, got {self.clip_frames}")

    @property
    def fingerprint(self) -> str:
        """Digest of the source and of how it is warped."""
        digest = new_digest()
        digest.update(f"{self.source.fingerprint} {self.clip_frames} {self.size} {self.seed}".encode())
        return digest.hexdigest()

    @property
    def notices(self) -> tuple[str, ...]:
        """Those of the source, and that these are no real videos."""
        return (*self.source.notices, "pseudo-videos: each clip is one image, warped anew for every frame")

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.source)

    def info(self, clip: int) -> ClipInfo:
        """What is known of clip number `clip`: every object is given in frame 0, and every frame is annotated."""
        info, kept, fit = self._given(clip)
        return ClipInfo(
            name=info.name,
            frames=self.clip_frames,
            height=fit.height,
            width=fit.width,
            first_frames=(0,) * len(kept),
            annotated=np.ones(self.clip_frames, bool),
            object_ids=tuple((info.object_ids or range(1, len(info.first_frames) + 1))[place] for place in kept),
        )

    def frames(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """RGB [n, H, W, 3] of the frames `which` [n]."""
        image = self._image(clip)
        return np.stack([image if warp is None else warp.image(image) for warp in self._warps(clip, which)])

    def masks(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """[n, H, W] of the frames `which` [n]: 0 background, 1.. objects, 255 void."""
        mask = self._mask(clip)
        return np.stack([mask if warp is None else warp.mask(mask) for warp in self._warps(clip, which)])

    def warped(self, clip: int, draw: np.uint64) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Frames [F, H, W, 3] and masks [F, H, W] of the clip that `draw` makes of clip number `clip`."""
        image, mask = self._image(clip), self._mask(clip)
        warps = self._warps(clip, np.arange(self.clip_frames), draw)
        pairs = [(image, mask) if warp is None else (warp.image(image), warp.mask(mask)) for warp in warps]
        return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])

    def _given(self, clip: int) -> tuple[ClipInfo, list[int], Fit]:
        """Source's info, positions of the objects that are given first, and how the frame is resized."""
        info = self.source.info(clip)
        first = min(info.first_frames)
        kept = [place for place, start in enumerate(info.first_frames) if start == first]
        return info, kept, make_fit((info.height, info.width), self.size, 1)

    def _image(self, clip: int) -> NDArray[np.uint8]:
        info, _, fit = self._given(clip)
        return fit.frames(self.source.frames(clip, np.array([min(info.first_frames)])))[0]

    def _mask(self, clip: int) -> NDArray[np.uint8]:
        info, kept, fit = self._given(clip)
        table = np.zeros(256, np.uint8)
        table[[place + 1 for place in kept]] = np.arange(1, len(kept) + 1)
        table[VOID] = VOID
        return table[fit.masks(self.source.masks(clip, np.array([min(info.first_frames)])))[0]]

    def _warps(self, clip: int, which: NDArray[np.integer], draw: np.uint64 | None = None) -> list[Warp | None]:
        """Warps of the frames `which`; none for frame 0."""
        info, _, fit = self._given(clip)
        own = of_name(info.name) ^ mix(np.array([self.seed], np.uint64))[0] if draw is None else draw
        hashes = stream(np.array([own], np.uint64), Salt.VIDEO_WARP, self.clip_frames * NUMBERS)[0] >> np.uint64(11)
        numbers = (hashes.astype(np.float64) * 2.0**-53).reshape(self.clip_frames, NUMBERS)
        shape = (fit.height, fit.width)
        return [make_warp(numbers[frame], shape) if frame else None for frame in np.asarray(which).tolist()]


@dataclass(frozen=True, eq=False)
class StaticImages:
    """Images with masks, as `MaskedVideos` of one frame each; `open_static_images` makes it."""

    pairs: tuple[tuple[str, Path, Path], ...]
    """Name, image and mask of each."""
    fingerprint: str
    notices: tuple[str, ...] = ()
    threshold: int | None = None
    _known: dict[int, ClipInfo] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pairs)

    def info(self, clip: int) -> ClipInfo:
        """What is known of image number `clip`; its mask is read once for the numbers of its objects."""
        if clip not in self._known:
            name, image, path = self.pairs[clip]
            mask, shape = self._read(path), shape_of(image)
            if mask.shape != shape:
                raise UserError(
                    f"task.data_path: the mask {path} has {size(mask.shape)} pixels, but its image has {size(shape)}"
                )
            ids = tuple(ids_of(mask))
            if not ids:
                raise UserError(f"task.data_path: the mask {path} has no object: remove it with its image")
            self._known[clip] = ClipInfo(name, 1, *shape, (0,) * len(ids), np.ones(1, bool), object_ids=ids)
        return self._known[clip]

    def frames(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """The image, RGB [n, H, W, 3], once for each of `which` [n], which are all 0."""
        return np.repeat(composite(decode(self.pairs[clip][1]))[None], len(which), 0)

    def masks(self, clip: int, which: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Its mask [n, H, W]: 0 background, 1.. objects, 255 void."""
        ids, table = self.info(clip).object_ids, np.zeros(256, np.uint8)
        table[list(ids)] = np.arange(1, len(ids) + 1)
        table[VOID] = VOID
        return np.repeat(table[self._read(self.pairs[clip][2])][None], len(which), 0)

    def _read(self, path: Path) -> NDArray[np.uint8]:
        return read_mask(path, black_and_white=True, threshold=self.threshold)


def open_static_images(
    path: Path,
    split: str,
    *,
    threshold: int | None = None,
    limit: int | None = None,
    leave_out: Collection[str] = (),
) -> StaticImages:
    """List images with masks: ``images/`` and ``masks/`` with the same names, or JPEGs with a PNG of the same name beside each.

    Masks have object numbers, or are black and white. ``validation`` and ``test`` are held out by a hash of the names.

    Args:
        path: the folder; files may lie deeper.
        split: ``train``, ``validation`` or ``test``.
        threshold: masks with soft edges: object 1 where the grey reaches this.
        limit: at most so many images.
        leave_out: names, with the folder and without the ending, that are not wanted.

    Raises:
        UserError: there are none, or an image lacks its mask or a mask its image.
    """
    check_split(split, ("train", *HELD_OUT))
    root = require_folder(path, "images and masks")
    if (root / "images").is_dir() and (root / "masks").is_dir():
        images, masks = _find(root / "images", IMAGES), _find(root / "masks", (".png",))
    else:
        images, masks = _find(root, tuple(s for s in IMAGES if s != ".png")), _find(root, (".png",))
    for ours, theirs, lacks in ((images, masks, "mask"), (masks, images, "image")):
        if alone := set(ours) - set(theirs):
            raise UserError(
                f"task.data_path: {ours[min(alone)]} has no {lacks} of the same name: add it, or remove the file"
            )
    names = hold_out(sorted(images), split, HELD_OUT)
    names, notices = choose(names, limit, leave_out, split)
    digest = new_digest()
    digest.update(f"{threshold}".encode())
    for name in names:
        digest.update(f"{name}\t{images[name].stat().st_size}\t{masks[name].stat().st_size}\n".encode())
    pairs = tuple((name, images[name], masks[name]) for name in names)
    return StaticImages(pairs, digest.hexdigest(), tuple(notices), threshold)


def _find(root: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Name below `root` without the ending -> file."""
    found = {}
    for folder, _, files in os.walk(root, followlinks=True):
        for file in files:
            if file.lower().endswith(suffixes) and not file.startswith("."):
                full = Path(folder) / file
                found[full.relative_to(root).with_suffix("").as_posix()] = full
    return found
