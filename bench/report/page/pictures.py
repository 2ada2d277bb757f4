"""The qualitative grid of a comparison, cut into its tiles and packed again without labels and gaps, as text for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import UserError

GAP, HEADER = 4, 20
"""White pixels between tiles, and above the first row: as `bench.tasks.grid` lays them out."""
SMALLEST = 16
"""Edge of the smallest tile that is looked for."""
LARGEST = 192
"""Tiles with a longer edge are reduced to it."""
HEAVY = 400_000
"""Letters of an address beyond which a picture is compressed with losses."""
LOSSLESS = {"lossless": True, "quality": 75, "method": 4}
"""WebP that keeps every pixel: a tenth less than PNG. More effort gains another 4 % for twenty times as long."""
EASY_TO_SEE = 96
"""Pixels that a tile should have on the screen."""
LEADS = {
    "nvs": ("input", "ground truth"),
    "masked-image": ("original", "masked"),
    "hydrology": ("truth", "visible"),
    "vos": ("frame", "truth"),
    "tracking": ("truth",),
    "openvocab": ("picture", "truth"),
}
"""Task -> columns before those of the arms; the first name is repeated, with numbers, where there are more of them."""
TIMES = {"vos": 3, "tracking": 3}
"""Rows that show one clip at several times; other tasks have one a sample."""


@dataclass(frozen=True)
class Grid:
    """A picture without labels and gaps: tiles of one size, row by row."""

    uri: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    """What each row shows."""
    samples: Mapping[str, tuple[int, ...]]
    """Sample -> rows that show it."""
    size: tuple[int, int]
    """Width and height of a tile in pixels."""
    first_arm: int
    """Column of the first arm."""
    lossy: bool
    """Whether fine detail was given up for the size of the page."""

    @property
    def zoom(self) -> int:
        """Times that small tiles are enlarged where all are shown at once."""
        return max(1, -(-EASY_TO_SEE // self.size[0]))


def read(path: Path, task: str, arms: Sequence[str], samples: Sequence[str], quick: Sequence[str]) -> Grid | None:
    """Read and pack ``pictures/grid.png``; None where there is none.

    Args:
        path: of the grid.
        task: whose grid it is.
        arms: names of the arms that it shows, in order: its last columns.
        samples: names of the test samples, in the order of the final evaluation.
        quick: those of the quick evaluations.

    Raises:
        UserError: the file is no picture, or none of so many columns.
    """
    if not path.is_file() or not arms:
        return None
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a picture ({error}); restore it") from None
    tiles = cut(pixels)
    if tiles is None or tiles.shape[1] < len(arms):
        raise UserError(f"{path}: is no grid with a column for each of {len(arms)} arms; restore it")
    tiles = _shrunk(tiles)
    rows, columns, height, width = tiles.shape[:4]
    shown = _shown(task, rows, samples, quick)
    packed = Image.fromarray(tiles.swapaxes(1, 2).reshape(rows * height, columns * width, 3))
    uri = as_uri(packed, **LOSSLESS)
    lossy = len(uri) > HEAVY
    return Grid(
        uri=as_uri(packed, quality=90, method=6) if lossy else uri,
        columns=(*_leads(task, columns - len(arms)), *arms),
        rows=tuple(_row_name(row, shown) for row in range(rows)),
        samples=shown,
        size=(width, height),
        first_arm=columns - len(arms),
        lossy=lossy,
    )


def cut(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Tiles [rows, columns, h, w, 3] of a labelled grid [H, W, 3]: the smallest ones with white gaps; None where there are none."""
    body = pixels[HEADER:]
    white = (body == 255).all(axis=2)
    heights = _tile_edges(white.all(axis=1))
    widths = _tile_edges(white.all(axis=0))
    if heights is None or widths is None:
        return None
    rows, columns = ((body.shape[axis] + GAP) // (edge + GAP) for axis, edge in ((0, heights), (1, widths)))
    padded = np.pad(body, ((0, GAP), (0, GAP), (0, 0)))
    tiles = padded.reshape(rows, heights + GAP, columns, widths + GAP, 3)[:, :heights, :, :widths]
    return np.ascontiguousarray(tiles.swapaxes(1, 2))


def _tile_edges(white: NDArray[np.bool_]) -> int | None:
    """Smallest edge for which the lines between tiles all are `white` and the tiles fill the length."""
    for edge in range(SMALLEST, len(white) + 1):
        count, rest = divmod(len(white) + GAP, edge + GAP)
        if rest == 0:
            between = np.pad(white, (0, GAP), constant_values=True).reshape(count, edge + GAP)[:, edge:]
            if between.all():
                return edge
    return None


def _shrunk(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tiles without the whole-pixel enlargement that small ones had, and none larger than `LARGEST`."""
    height, width = tiles.shape[2:4]
    for factor in range(16, 1, -1):
        if height % factor == 0 and width % factor == 0:
            small = tiles[:, :, ::factor, ::factor]
            if (small.repeat(factor, axis=2).repeat(factor, axis=3) == tiles).all():
                return small
    if max(height, width) <= LARGEST:
        return tiles
    scale = LARGEST / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(
        [[np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.LANCZOS)) for tile in row] for row in tiles]
    )


def as_uri(image: Image.Image, **options: int) -> str:
    """A picture as a ``data:`` address of WebP."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _leads(task: str, count: int) -> tuple[str, ...]:
    """Names of the columns before the arms'."""
    names = LEADS.get(task, ())
    extra = count - len(names) + 1
    if not names or extra < 1:
        return tuple(f"column {number + 1}" for number in range(count))
    first = names[:1] if extra == 1 else tuple(f"{names[0]} {number + 1}" for number in range(extra))
    return (*first, *names[1:])


def _shown(task: str, rows: int, samples: Sequence[str], quick: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Sample -> its rows, as far as the layout of the task's grid tells; of a clip every object."""
    if task == "hydrology":
        return {quick[0]: tuple(range(rows))} if quick else {}
    if task == "tracking":  # its second clip depends on how many are followed at once
        return {quick[0]: tuple(range(min(rows, TIMES[task])))} if quick else {}
    if task not in LEADS:
        return {}
    found: dict[str, tuple[int, ...]] = {}
    times, units = TIMES.get(task, 1), list(dict.fromkeys(_unit(task, sample) for sample in samples))
    for sample in samples:
        number = units.index(_unit(task, sample))
        own = tuple(range(number * times, (number + 1) * times))
        first_view = task != "nvs" or not any(own == taken for taken in found.values())
        if own[-1] < rows and first_view:
            found[sample] = own
    return found


def _unit(task: str, sample: str) -> str:
    """What a row, or a group of rows, stands for: the scene of a view, the clip of an object, or the sample itself."""
    return "/".join(sample.split("/")[:2]) if task in ("nvs", "vos") else sample


def _row_name(row: int, shown: Mapping[str, tuple[int, ...]]) -> str:
    for sample, rows in shown.items():
        if row in rows:
            names = [name for name, others in shown.items() if others == rows]
            name = sample if len(names) == 1 else sample.rpartition("/")[0]
            return name if len(rows) == 1 else f"{name}, {rows.index(row) + 1} of {len(rows)}"
    return f"row {row + 1}"
