"""A folder of images, with or without classes, in the layout that ImageNet and torchvision's ImageFolder share.

    <root>/train/<class>/*.JPEG      sub-folders named train, val (or valid, validation) and test are the splits
    <root>/val/<class>/*.JPEG
    <root>/<class>/*.jpg             without train/: a split by a hash of each image's path
    <root>/*.png                     without classes

Without ``test`` the validation folder is the test split, as ImageNet is scored, and validation is taken from training. Nothing
is decoded before it is asked for: listing the 1.3 million files of ImageNet is all that opening does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data.crops import crop_centre, crop_randomly, flips
from bench.data.draws import of_name
from bench.data.images import ImagePool, composite, decode
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.scenes.cache import Progress

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
"""What counts as an image, in any case; other files are left alone."""
FOLDERS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
"""Names of the sub-folders of a split."""
HELD_OUT = {"validation": (0.0, 0.05), "test": (0.05, 0.1)}
"""Share of the images, by the hash of their path, of a split that has no sub-folder."""
AUGMENTS = ("none", "flip", "crop")
"""What training does to an image: nothing (the centre crop of evaluation), also mirror it, or cut out a random part and mirror it."""


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """The images of one split; see `open_folder`."""

    root: Path
    paths: Sequence[str]
    """Below the root, with ``/``, in the order of the hash of each: the first ones are a fair sample of all."""
    classes: tuple[str, ...]
    """Names of the class folders; empty without."""
    image_size: int
    pool: ImagePool
    fingerprint: str
    """Digest of the paths and sizes of the files, wherever they lie."""
    notices: tuple[str, ...] = ()
    """Lines that must stand under the table."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def sample_name(self, index: int) -> str:
        """Path below the root of the split."""
        return self.paths[index]

    def load(
        self, indices: np.ndarray, draws: NDArray[np.uint64] | None = None, augment: str = "none"
    ) -> NDArray[np.uint8]:
        """Images `indices` [B], [B, size, size, 3]: the centre crop, or as `augment` makes them from `draws` [B].

        Raises:
            UserError: a file is missing or cannot be decoded; names it.
        """
        if draws is None or augment == "none":
            return np.stack(self.pool.map(lambda index: crop_centre(self._read(index), self.image_size), indices))

        def one(item: tuple[int, np.uint64, bool]) -> NDArray[np.uint8]:
            index, draw, mirrored = item
            image, size = self._read(index), self.image_size
            made = crop_randomly(image, draw, size) if augment == "crop" else crop_centre(image, size)
            return made[:, ::-1] if mirrored else made

        return np.stack(self.pool.map(one, zip(indices, draws, flips(draws), strict=True)))

    def labels(self, indices: np.ndarray) -> NDArray[np.int64]:
        """[B] position in `classes` of the images `indices` [B]; -1 for a class that training does not have."""
        names = (self.paths[index].split("/", 1)[0] for index in indices)
        return np.array([self._class_ids.get(name, -1) for name in names], np.int64)

    @cached_property
    def _class_ids(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}

    def _read(self, index: int) -> NDArray[np.uint8]:
        return composite(decode(self.root / self.paths[index]))


def open_folder(
    root: Path,
    split: str,
    *,
    image_size: int,
    limit: int | None = None,
    workers: int | None = None,
    report: Progress | None = None,
) -> FolderSplit:
    """List the images of a split.

    Args:
        root: the folder.
        split: ``train``, ``validation`` or ``test``.
        image_size: height and width that images get.
        limit: at most so many images, the first ones.
        workers: threads that decode; by default one for each core.
        report: progress while listing, a step for each folder at the top.

    Raises:
        UserError: there are no images.
    """
    source, (start, end), notice = _layout(root)[split]
    listed = ((of_name(path), path, size) for path, size in _list(source, split, report))
    chosen = sorted(item for item in listed if start <= int(item[0]) / 2**64 < end)
    notices = [notice] if notice else []
    if not chosen:
        kinds = ", ".join(SUFFIXES[:3])
        raise UserError(
            f"task.data_path: {source} holds no image for {split} ({kinds}, ..): give a folder of images, or of more"
        )
    if limit is not None and limit < len(chosen):
        notices.append(f"{split}: only {limit} of {len(chosen)} images are used, chosen by a hash of their paths")
        chosen = chosen[:limit]
    digest = hashlib.sha256()
    for _, path, size in chosen:
        digest.update(f"{path}\t{size}\n".encode())
    paths = [path for _, path, _ in chosen]
    return FolderSplit(
        root=source,
        paths=paths,
        classes=_classes(_layout(root)["train"][0]),
        image_size=image_size,
        pool=ImagePool(workers),
        fingerprint=digest.hexdigest(),
        notices=tuple(notices),
    )


def _layout(root: Path) -> dict[str, tuple[Path, tuple[float, float], str]]:
    """For each split its folder, the share of the images there that is its own, and what must be told of it."""
    found = {split: next((root / n for n in names if (root / n).is_dir()), None) for split, names in FOLDERS.items()}
    train, told = found["train"], {"train": "", "validation": "", "test": ""}
    if train is None:
        # Sub-folders named val or test alone are classes like any others.
        found = dict.fromkeys(found)
    elif found["test"] is None and (scored := found["validation"]) is not None:
        found |= {"test": scored, "validation": None}
        told["test"] = f"test: the images of {scored.name}/, for there is no test/"
    missing = [split for split in HELD_OUT if found[split] is None]
    shares = {"train": (max((HELD_OUT[split][1] for split in missing), default=0.0), 1.0), **HELD_OUT}
    layout = {}
    for split, share in shares.items():
        own = found[split] if split in HELD_OUT else None
        if split in missing:
            told[split] = f"{split}: 5 % of the images of {(train or root).name}/ by a hash of their paths, held out"
        layout[split] = (own, (0.0, 1.0), told[split]) if own else (train or root, share, told[split])
    return layout


def _list(root: Path, split: str, report: Progress | None) -> Iterator[tuple[str, int]]:
    """Path below `root`, with ``/``, and size of every image; hidden files and folders are left out, links are followed."""
    tops = sorted(entry.name for entry in _visible(root))
    seen: set[str] = set()
    for done, top in enumerate(tops):
        if report is not None:
            report(f"listing {split}", done, len(tops))
        yield from _walk(root / top, top, seen)
    if report is not None and tops:
        report(f"listing {split}", len(tops), len(tops))


def _walk(path: Path | os.DirEntry[str], name: str, seen: set[str]) -> Iterator[tuple[str, int]]:
    """Images at or below `path`; a folder that is reached twice, by links, is listed once."""
    if path.is_dir():
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            for entry in _visible(path):
                yield from _walk(entry, f"{name}/{entry.name}", seen)
    elif name.lower().endswith(SUFFIXES):
        yield name, path.stat().st_size


def _visible(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _classes(folder: Path) -> tuple[str, ...]:
    """Sub-folders of the training images, where there are two or more."""
    names = tuple(sorted(entry.name for entry in _visible(folder) if entry.is_dir()))
    return names if len(names) > 1 else ()
