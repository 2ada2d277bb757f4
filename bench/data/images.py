"""Images of real data: decoded, cut square with their intrinsics, many at a time in threads.

Pillow decodes and resizes, because what a comparison shows must not depend on the machine: its Lanczos is the one that the
published loaders use. One 360 x 640 JPEG of quality 90 to a 256 px square, on one 2.6 GHz core, interleaved: decoding 1.0 ms
(torchvision 0.8 ms, the same bytes); the resize of the whole image 3.9 ms, of the part that the crop keeps 2.9 ms;
torch's Lanczos 1.0 ms, but it only exists in new versions, and one value in 200 is off by one level. JPEG's draft mode halves an
image at least, which would leave 180 rows for 256.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import UserError
from bench.machine import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

WIDTH_MULTIPLE = 8
"""The side that is cropped is rounded to a multiple of this first, as in LVSM's loader (360 x 640 -> 256 x 456)."""


def decode(data: bytes | Path, name: str | None = None) -> NDArray[np.uint8]:
    """Decode an image file as it is stored: no colour management, no turning by EXIF (poses belong to the stored pixels).

    Args:
        data: the file's content, or where it lies.
        name: what to call it in errors; by default its path.

    Returns:
        [h, w, 3] uint8, or [h, w, 4] with straight (not premultiplied) alpha where the file has any.

    Raises:
        UserError: missing, truncated, not an image, or one value of more than 8 bits a pixel; names it.
    """
    name = name or (str(data) if isinstance(data, Path) else "an image")
    try:
        with Image.open(data if isinstance(data, Path) else io.BytesIO(data)) as image:
            # Pillow would clip these at 255, to plain white, and floats in 0..1 to plain black.
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                raise UserError(f"{name} has 16-bit, 32-bit or float pixels (mode {image.mode}): save it with 8 bits")
            has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
            return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    except FileNotFoundError as error:
        raise UserError(f"{name} is missing") from error
    # Pillow reports a broken file by any of these, depending on the format and on where it is broken.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} cannot be decoded ({error}); fetch it again") from error


def composite(image: NDArray[np.uint8], background: tuple[int, int, int] = (255, 255, 255)) -> NDArray[np.uint8]:
    """Blend an image [h, w, 3 or 4] over a plain colour (0..255) by its straight alpha; without alpha it stays as it is.

    Do so before resizing: the colour under alpha 0 means nothing and must not bleed into its neighbours.

    Returns:
        [h, w, 3] uint8.
    """
    if image.shape[-1] == 3:
        return image
    foreground = Image.fromarray(image)
    blended = Image.new("RGB", foreground.size, background)
    blended.paste(foreground, mask=foreground.getchannel("A"))
    return np.asarray(blended)


def fit_square(
    image: NDArray[np.uint8], intrinsics: NDArray[Any], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Resize the shorter side to `size`, then crop the longer one about its middle; the intrinsics follow.

    As LVSM's loader does it: Lanczos; the longer side becomes round(size / shorter * longer / 8) * 8 first, so the two axes
    may be scaled differently (360 x 640 -> 256 x 456, offset 100), and the focal lengths and the principal point with them;
    then the principal point moves by the offset of the crop. (pixelSplat resizes to 256 x 455 and crops at 99, without
    adjusting the intrinsics: its pixels differ slightly.)

    Args:
        image: [h, w, 3] uint8.
        intrinsics: fx, fy, cx, cy [4] in pixels of `image`; pixel centres at + 0.5.
        size: pixels.

    Returns:
        [size, size, 3] uint8, and fx, fy, cx, cy [4] fp32 in its pixels.
    """
    shape = image.shape[:2]
    resized = [
        size if side == min(shape) else max(size, round(size / min(shape) * side / WIDTH_MULTIPLE) * WIDTH_MULTIPLE)
        for side in shape
    ]
    (height, width), (new_height, new_width) = shape, resized
    top, (left, source_left, columns, source_columns) = (new_height - size) // 2, _part(width, new_width, size)
    box = (source_left, 0, source_left + source_columns, height)
    part = Image.fromarray(image).resize((columns, new_height), Image.Resampling.LANCZOS, box=box)
    square = np.asarray(part.crop((left, top, left + size, top + size)))

    scale = np.array([new_width / width, new_height / height] * 2)
    shift = np.array([0, 0, (new_width - size) // 2, (new_height - size) // 2])
    return square, (np.asarray(intrinsics, np.float64) * scale - shift).astype(np.float32)


def _part(length: int, resized: int, size: int) -> tuple[int, int, int, int]:
    """Columns that must be resized so that the crop comes out as if all of them had been, bit for bit.

    640 -> 456 pixels is 80 -> 57, eight times: where both grids meet, a part can be cut out without moving a sample. (For
    rows, tall images as they are, Pillow's result was seen to change: all of them are resized.)

    Returns:
        Where the crop begins within the resized part; where the part begins in the source; its resized length; its length
        in the source.
    """
    blocks = math.gcd(length, resized)
    source, target = length // blocks, resized // blocks
    offset = (resized - size) // 2
    first, last = offset // target, -(-(offset + size) // target)
    return offset - first * target, first * source, (last - first) * target, (last - first) * source


class ImagePool:
    """Threads that decode and resize: both let go of Python's lock, so threads use all cores and share all memory.

    They start on first use and belong to the process that started them: a pool may be pickled or forked along with the
    split that holds it, and starts its own threads there.
    """

    def __init__(self, workers: int | None = None) -> None:
        """Work with `workers` threads; by default one for each usable core.

        Raises:
            UserError: fewer than one.
        """
        if workers is not None and workers < 1:
            raise UserError(f"workers must be >= 1, got {workers}")
        self.workers = workers or usable_cores()
        self._executor: ThreadPoolExecutor | None = None
        self._owner = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"workers": self.workers, "_executor": None, "_owner": 0}

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """``[function(item) for item in items]``; the first item that fails raises its error, once none is at work."""
        if self.workers == 1:
            return [function(item) for item in items]
        if self._executor is None or self._owner != os.getpid():
            self._executor = ThreadPoolExecutor(self.workers, thread_name_prefix="images")
            self._owner = os.getpid()
        waiting = [self._executor.submit(function, item) for item in items]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            for future in waiting:
                if not future.cancel():
                    future.exception()
            raise
