"""A folder of images, with or without classes, in the layout that ImageNet and torchvision's ImageFolder share.

    <root>/train/<class>/*.JPEG      sub-folders named train, val (or valid, validation) and test are the splits
    <root>/val/<class>/*.JPEG
    <root>/<class>/*.jpg             without any of these: a split by a hash of each image's path
    <root>/*.png                     without classes

Without ``test`` the validation folder is the test split, as ImageNet is scored, and validation is taken from training. Nothing
is decoded before it is asked for: listing the 1.3 million files of ImageNet is all that opening does. Links are followed under
their own names, but for those to a folder that they lie in.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data.crops import crop_centre, crop_randomly, flips
from bench.data.draws import of_name
from bench.data.images import ImagePool, composite, decode
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
"""What counts as an image, in any case; other files are left alone."""
FOLDERS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
"""Names of the sub-folders of a split."""
SPLIT_NAMES = frozenset({"training"}.union(*FOLDERS.values()))
"""What no folder of a class is called, in any case, where there is no ``train``."""
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
        UserError: there are no images, ``train`` is missing beside other splits, two splits share a folder, a link leads
            nowhere, a folder cannot be read, or a name is not UTF-8; names it.
    """
    with _named_errors():
        layout = _layout(root)
        source, (start, end), notice = layout[split]
        classes = _classes(layout["train"][0])
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
        classes=classes,
        image_size=image_size,
        pool=ImagePool(workers),
        fingerprint=digest.hexdigest(),
        notices=tuple(notices),
    )


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turn what listing stumbles over into a line that names it."""
    try:
        yield
    except OSError as error:
        path, reason = error.filename, error.strerror
        if os.path.islink(path):
            reason = f"a link to {os.readlink(path)}: {reason}"
        raise UserError(f"task.data_path: {path} cannot be read ({reason}): mend or remove it") from None
    except UnicodeEncodeError as error:
        name = os.fsencode(error.object)
        raise UserError(f"task.data_path: the file name {name!r} is not UTF-8: rename the file or its folder") from None


def _layout(root: Path) -> dict[str, tuple[Path, tuple[float, float], str]]:
    """For each split its folder, the share of the images there that is its own, and what must be told of it."""
    for name in (name for names in FOLDERS.values() for name in names):
        if (root / name).is_symlink():
            (root / name).stat()  # a link that leads nowhere is no missing split
    found = {split: next((root / n for n in names if (root / n).is_dir()), None) for split, names in FOLDERS.items()}
    _require_apart([folder for folder in found.values() if folder])
    train, told = found["train"], {"train": "", "validation": "", "test": ""}
    if train is None:
        others = sorted(e.name for e in _visible(root) if e.name.lower() in SPLIT_NAMES and e.is_dir())
        if others:
            raise UserError(
                f"task.data_path: train/ is missing in {root}, which holds {'/, '.join(others)}/: put the training images into "
                f"{root / 'train'}, or, where these are classes, move all classes into it"
            )
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


def _require_apart(folders: list[Path]) -> None:
    """Raise UserError where, by links, a split is or lies within another one."""
    for inner, outer in permutations(folders, 2):
        if _encloses(os.path.realpath(outer), os.path.realpath(inner)):
            raise UserError(
                f"task.data_path: {inner.name}/ and {outer.name}/ in {inner.parent} hold the same images, by a link: give each "
                f"split images of its own, or remove the link"
            )


def _encloses(outer: str, inner: str) -> bool:
    """Whether a real path is another one or lies above it."""
    return os.path.commonpath((outer, inner)) == outer


def _list(root: Path, split: str, report: Progress | None) -> Iterator[tuple[str, int]]:
    """Path below `root`, with ``/``, and size of every image; hidden files and folders are left out, links are followed."""
    tops = sorted(_visible(root), key=lambda entry: entry.name)
    above = os.path.realpath(root)
    for done, top in enumerate(tops):
        if report is not None:
            report(f"listing {split}", done, len(tops))
        yield from _walk(top, top.name, (above,))
    if report is not None and tops:
        report(f"listing {split}", len(tops), len(tops))


def _walk(entry: os.DirEntry[str], name: str, above: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Images at or below `entry`, which was reached through the folders of the real paths `above`."""
    if entry.is_dir():
        if not _circles(entry, above):
            above = (*above, os.path.realpath(entry))
            for inner in _visible(entry):
                yield from _walk(inner, f"{name}/{inner.name}", above)
    elif (image := name.lower().endswith(SUFFIXES)) or entry.is_symlink():
        size = entry.stat().st_size  # of a link that leads nowhere, whatever it is called, an error
        if image:
            yield name, size


def _circles(entry: os.DirEntry[str], above: tuple[str, ...]) -> bool:
    """Whether a folder is a link to one that it lies in."""
    return entry.is_symlink() and any(_encloses(os.path.realpath(entry), folder) for folder in above)


def _visible(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _classes(folder: Path) -> tuple[str, ...]:
    """Sub-folders of the training images, where there are two or more."""
    above = (os.path.realpath(folder),)
    names = tuple(sorted(e.name for e in _visible(folder) if e.is_dir() and not _circles(e, above)))
    return names if len(names) > 1 else ()
