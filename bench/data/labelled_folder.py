"""Pictures and their index masks in two folders, matched by the stem of their names, with a file of class names."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import of_name
from bench.data.image_folder import SUFFIXES as IMAGES
from bench.data.images import composite, decode
from bench.data.index_masks import read_indices
from bench.data.labelled import VOID, Vocabulary
from bench.data.video_folder import list_images, new_digest, read_text, require_folder, shape_of, size
from bench.errors import UserError, naming

LABELS = (".png", ".tif", ".tiff")
"""What counts as an index mask, in any case."""


@dataclass(frozen=True)
class Part:
    """Two folders below the root, and which splits share what lies there."""

    images: str
    labels: str
    held_out: Mapping[str, int]
    """Split -> pictures that it takes, a tenth of all at most; the rest are those of training."""


@dataclass(frozen=True, eq=False)
class LabelledFolder:
    """Pictures with labels, as `bench.data.labelled.LabelledImages`; nothing is decoded before it is asked for."""

    images: Path
    masks: Path
    files: Sequence[tuple[str, str]]
    """Names of a picture and of its index mask, in the order of the hash of their stem: the first ones are a fair sample of all."""
    vocabulary: Vocabulary
    """What a model is asked for."""
    scored: Vocabulary
    """What labels stand for: `vocabulary`, unless there is an `evaluation_map`."""
    evaluation_map: tuple[int, ...] | None
    """Position in `scored` as which a prediction counts, of each class of `vocabulary`; None: its own."""
    ignore_index: int
    """Value of void pixels in the files."""
    fingerprint: str
    """Digest of stems and sizes of the files and of the class names, wherever they lie."""
    notices: tuple[str, ...]
    meant: Mapping[str, str]
    """See `bench.errors.naming`."""

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.files)

    def name(self, index: int) -> str:
        """The file's name without its ending."""
        return self.files[index][0].rsplit(".", 1)[0]

    def image(self, index: int) -> NDArray[np.uint8]:
        """RGB [H, W, 3], transparent pixels on white. Raises `UserError` for a file that is missing or cannot be decoded."""
        return composite(decode(self.images / self.files[index][0]))

    def labels(self, index: int) -> NDArray[np.uint16]:
        """[H, W]: position in `scored`, or `VOID`.

        Raises:
            UserError: the mask is missing, cannot be decoded, is in colours, has another size than its picture, or a value that is
                no class.
        """
        with naming(self.meant):
            return self._labels(self.images / self.files[index][0], self.masks / self.files[index][1])

    def _labels(self, image: Path, path: Path) -> NDArray[np.uint16]:
        values = read_indices(path)[1]
        if values.shape != (shape := shape_of(image)):
            raise UserError(
                f"task.data_path: the mask {path} has {size(values.shape)} pixels, but {image.name} has {size(shape)}: "
                f"take both of one resolution"
            )
        labels, classes = np.where(values == self.ignore_index, np.int32(VOID), values), len(self.scored.names)
        if len(wrong := labels[(labels != VOID) & ((labels < 0) | (labels >= classes))]):
            raise UserError(
                f"task.data_path: the mask {path} has the value {wrong[0]}, but the {classes} classes are 0 to {classes - 1} and "
                f"{self.ignore_index} is void: convert the masks, or give the class names that belong to them"
            )
        return labels.astype(np.uint16)


def open_pairs(
    root: Path,
    part: Part,
    split: str,
    vocabulary: Vocabulary,
    *,
    ignore_index: int,
    scored: Vocabulary,
    evaluation_map: tuple[int, ...] | None,
    limit: int | None = None,
    notices: tuple[str, ...] = (),
    meant: Mapping[str, str] | None = None,
) -> LabelledFolder:
    """List the pictures of a split that have an index mask of the same stem, and tell how many files have no counterpart.

    Args:
        root: folder that `part` lies in.
        part: where pictures and masks are.
        split: ``train``, ``validation`` or ``test``.
        vocabulary: the classes.
        ignore_index: value of void pixels in the masks; 65535 always is void too.
        scored: see `LabelledFolder`.
        evaluation_map: see `LabelledFolder`.
        limit: at most so many pictures.
        notices: lines that come first.
        meant: see `bench.errors.naming`.

    Raises:
        UserError: a folder is missing or empty, two files differ in their ending alone, or no picture is left.
    """
    images = require_folder(root / part.images, f"the pictures of {split}")
    masks = require_folder(root / part.labels, f"the index masks of {split}")
    pictures, labels = _by_stem(images, IMAGES), _by_stem(masks, LABELS)
    both = sorted(pictures.keys() & labels.keys(), key=of_name)
    if not both:
        raise UserError(f"task.data_path: no picture in {images} has an index mask of the same name in {masks}")
    told = list(notices)
    if len(pictures) + len(labels) > 2 * len(both):
        told.append(
            f"{split}: {len(pictures) - len(both)} pictures without index mask and {len(labels) - len(both)} index masks "
            f"without picture are left out"
        )
    stems = _share(both, split, part.held_out)
    if not stems:
        raise UserError(f"task.data_path: of the {len(both)} pictures in {images} none is left for {split}: give more")
    if split in part.held_out:
        told.append(f"{split}: {len(stems)} of the pictures in {images.name}/ by a hash of their names, held out")
    if limit is not None and limit < len(stems):
        told.append(f"{split}: only {limit} of {len(stems)} pictures are used, chosen by a hash of their names")
        stems = stems[:limit]
    files = [(pictures[stem], labels[stem]) for stem in stems]
    digest = new_digest()
    digest.update(json.dumps([vocabulary.names, evaluation_map, ignore_index]).encode())
    for image, mask in files:
        digest.update(f"{image}\t{(images / image).stat().st_size}\t{(masks / mask).stat().st_size}\n".encode())
    return LabelledFolder(
        images=images,
        masks=masks,
        files=files,
        vocabulary=vocabulary,
        scored=scored,
        evaluation_map=evaluation_map,
        ignore_index=ignore_index,
        fingerprint=digest.hexdigest(),
        notices=tuple(told),
        meant=meant or {},
    )


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Stem -> name of each file."""
    listed = list_images(folder, new_digest(), suffixes)
    return dict(zip(listed.stems, listed.files, strict=True))


def _share(ranked: Sequence[str], split: str, held_out: Mapping[str, int]) -> Sequence[str]:
    """What a split has of all: the held-out ones take theirs from the front, in turn, and training the rest."""
    start = 0
    for held, count in held_out.items():
        end = start + min(count, max(1, len(ranked) // 10))
        if held == split:
            return ranked[start:end]
        start = end
    return ranked[start:]


def read_names(path: Path) -> tuple[str, ...]:
    """Names of classes in the order of their indices: a JSON array of strings, or a text file with one a line.

    Raises:
        UserError: there is no such file, it holds something else, or a name stands twice.
    """
    text = read_text(path, "the names of the classes")
    names: object = text.splitlines()
    if path.suffix.lower() == ".json":
        try:
            names = json.loads(text)
        except ValueError as error:
            raise UserError(
                f"task.data_path: {path} is no JSON ({error}): it should hold an array of class names"
            ) from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"task.data_path: {path} should hold an array of class names, the first one that of index 0")
    kept = tuple(name.strip() for name in names)
    while kept and not kept[-1]:
        kept = kept[:-1]  # blank lines at the end
    if not kept or not all(kept) or len(kept) >= VOID:
        raise UserError(
            f"task.data_path: {path} should hold 1 to {VOID - 1} class names and no empty one, it has {len(kept)}"
        )
    if double := [name for name in kept if kept.count(name) > 1]:
        raise UserError(f"task.data_path: {path} names the class {double[0]!r} twice: tell the two apart")
    return kept


def make_vocabulary(names: Sequence[str], trained_on: Collection[str] = ()) -> Vocabulary:
    """Classes of real data, each ``seen`` or ``unseen``: whether training has a class of that name.

    Names are compared in lower case; of several parted by commas the first one counts, on both sides.

    Args:
        names: of the classes.
        trained_on: names of the training vocabulary; without any all classes are seen.
    """
    known = {_first(name) for name in trained_on or names}
    return Vocabulary(tuple(names), tuple("seen" if _first(name) in known else "unseen" for name in names))


def _first(name: str) -> str:
    return name.lower().split(",")[0].strip()
