"""Masks as index images: a PNG of Pillow's mode P whose pixel values, not colours, are the numbers of objects.

An editor, a resize or OpenCV turns such a file into colours or soft greys without a word, and whatever counts its values then
finds hundreds of objects. Reading refuses these files and says what to do; writing keeps the palette.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.video.clips import VOID
from bench.data.video_folder import new_folder
from bench.errors import UserError

MAX_ID = 254
"""Largest number of an object: `VOID` is 255."""
SOFT_FROM = 128
"""Greys from here to 254 are those of a soft edge: no data set numbers its objects so high in a file without a palette."""


def pascal_palette() -> list[int]:
    """768 numbers, r, g, b of 256 colours: the map of PASCAL VOC that most data sets use.

    The bits of an index are dealt in turn to red, green and blue, the lowest ones to the highest bit of a colour: 1 is
    (128, 0, 0), 2 (0, 128, 0), 3 (128, 128, 0).
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.int64)
    for bit in range(8):
        palette[:, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return [int(value) for value in palette.ravel()]


def read_mask(path: Path, *, black_and_white: bool = False, threshold: int | None = None) -> NDArray[np.uint8]:
    """Object numbers [H, W] of a mask: 0 background, 1 to 254 objects, 255 void.

    Args:
        path: a PNG with a palette, or with one grey value a pixel that is the object's number.
        black_and_white: without a palette 0 and 255 are background and object 1.
        threshold: without a palette greys are soft: object 1 where they reach this.

    Raises:
        UserError: missing, truncated, in colours, with soft edges, or with a number beyond 254; names it and the mend.
    """
    mode, values = read_indices(path)
    if mode.startswith("I") and (int(values.max()) > MAX_ID or int(values.min()) < 0):
        raise UserError(
            f"task.data_path: {path} numbers an object {values.max()}, but {MAX_ID} is the highest: number the objects 1, 2, 3.."
        )
    mask = values.astype(np.uint8)
    if mode == "L" and threshold is not None:
        return (mask >= threshold).astype(np.uint8)
    return _of_greys(mask, path, black_and_white) if mode == "L" else mask


def read_indices(path: Path) -> tuple[str, NDArray[np.integer | np.bool_]]:
    """Pillow's mode of an image file whose pixels are numbers, not colours, and these numbers [H, W] as they are stored.

    Raises:
        UserError: missing, truncated, or in colours; names it and the mend.
    """
    with _opened(path) as image:
        mode, values = image.mode, np.asarray(image)
    if mode not in ("P", "L", "1") and not mode.startswith("I"):
        raise UserError(
            f"task.data_path: {path} has colours (mode {mode}) where numbers should be: save it as a PNG with a palette "
            f"(mode P); OpenCV and most editors turn palettes into colours"
        )
    return mode, values


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A mask's file; what is wrong with it, also while it is read, is an error that names it."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise UserError(f"task.data_path: the mask {path} is missing") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"task.data_path: the mask {path} cannot be decoded ({error}); fetch it again") from error


def _of_greys(mask: NDArray[np.uint8], path: Path, black_and_white: bool) -> NDArray[np.uint8]:
    """A mask without a palette, where its greys are numbers."""
    values = ids_of(mask)
    if values and values[-1] >= SOFT_FROM:
        raise UserError(
            f"task.data_path: {path} has soft edges (greys such as {values[-1]}), which are no object numbers: threshold it, and "
            f"resize masks by nearest neighbour"
        )
    if not values and mask.any():
        if not black_and_white:
            raise UserError(
                f"task.data_path: {path} is black and white, which leaves open what object it is: save object numbers 1, 2, 3.. "
                f"with a palette, or read it as a data set of one object"
            )
        return (mask > 0).astype(np.uint8)
    return mask


def ids_of(mask: NDArray[np.uint8]) -> list[int]:
    """Numbers of the objects in a mask, ascending, without background and void."""
    return [int(i) for i in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[: MAX_ID + 1]) if i]


def palette_of(path: Path) -> list[int] | None:
    """Palette of a mask file, r, g, b of each colour, or None where it has none.

    Raises:
        UserError: missing or no image; names it and the mend.
    """
    with _opened(path) as image:
        return image.getpalette("RGB") if image.mode == "P" else None


def write_mask(mask: NDArray[np.uint8], path: Path, palette: Sequence[int] | None = None) -> None:
    """Write object numbers [H, W] as a PNG of mode P with that palette; colours that it lacks are PASCAL's, as all by default."""
    image = Image.fromarray(np.ascontiguousarray(mask))
    given, full = list(palette or ()), pascal_palette()
    image.putpalette(given + full[len(given) :])
    image.save(path, format="PNG")


def write_masks(
    folder: Path,
    masks: NDArray[np.uint8],
    stems: Sequence[str],
    object_ids: Sequence[int],
    palette: Sequence[int] | None = None,
) -> None:
    """Write predicted masks [n, H, W] as ``<folder>/<stem>.png``, all or nothing, under the data set's own object numbers.

    Args:
        folder: must not exist.
        masks: 0 background, 1.. position in `object_ids` + 1, 255 void.
        stems: names of the frames [n].
        object_ids: the numbers in the data set's files.
        palette: see `write_mask`.

    Raises:
        UserError: `folder` exists, a number beyond 254, or the disk.
        ValueError: a mask has an object that is not in `object_ids`, or there is not one mask a stem.
    """
    if len(masks) != len(stems):
        raise ValueError(f"{len(masks)} masks for {len(stems)} frames")
    if wrong := [number for number in object_ids if not 0 < number <= MAX_ID]:
        raise UserError(f"{folder}: object number {wrong[0]} cannot stand in an index mask: 1 to {MAX_ID} can")
    table = np.zeros(256, np.uint8)
    table[1 : len(object_ids) + 1] = object_ids
    table[VOID] = VOID
    with new_folder(folder) as temporary:
        for mask, stem in zip(masks, stems, strict=True):
            if (ids := ids_of(mask)) and ids[-1] > len(object_ids):
                raise ValueError(f"frame {stem} has object {ids[-1]} of {len(object_ids)}")
            write_mask(table[mask], temporary / f"{stem}.png", palette)
