"""What a page is made of, without training: result folders with pictures, and verdicts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.report.fake_store import FakeStore

GAP, HEADER = 4, 20
LEADS = 3
"""Two inputs and the truth."""
HOSTILE = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


def grid(rows: int, columns: int, edge: int = 128, factor: int = 2) -> NDArray[np.uint8]:
    """A labelled grid of tiles that all differ, each enlarged by `factor`."""
    canvas = np.full((HEADER + rows * (edge + GAP) - GAP, columns * (edge + GAP) - GAP, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = HEADER + row * (edge + GAP), column * (edge + GAP)
            canvas[top : top + edge, left : left + edge] = tile(row, column, edge, factor)
    return canvas


def tile(row: int, column: int, edge: int, factor: int = 1) -> NDArray[np.uint8]:
    """Tile [edge, edge, 3] with a pattern of its own."""
    generator, side = np.random.default_rng([row, column]), edge // factor
    small = np.full((side, side, 3), generator.integers(0, 250, 3), np.uint8)
    small[: side // 2, : side // 2] = generator.integers(0, 250, (side // 2, side // 2, 3))
    return small.repeat(factor, axis=0).repeat(factor, axis=1)


def write(folder: Path, *, pictures: bool = True, **options: Any) -> Path:
    """A comparison, with a grid of four rows where wanted."""
    store = FakeStore(**options)
    store.write(folder)
    if pictures:
        (folder / "pictures").mkdir()
        Image.fromarray(grid(4, LEADS + len(store.arms))).save(folder / "pictures" / "grid.png")
    return folder


def verdict(number: int = 0, **changes: Any) -> Any:
    """A verdict as `bench.report.claims` gives it."""
    claim = {
        "id": f"claim-{number}",
        "says": f"claim number {number} of a paper",
        "source": "a paper",
        "table": f"table {number}",
        "value": 1.5,
        "unit": "dB",
        "quoted": "1.5 dB",
        "task": ("nvs", "vos")[number % 2],
        "scale": "tiny",
        "note": "",
    }
    said = {
        "claim": SimpleNamespace(**claim),
        "status": ("reproduced", "not reproduced", "not testable here")[number % 3],
        "shown": "" if number % 3 == 2 else "1.4 [1.2, 1.6] dB",
        "reason": "needs a GPU" if number % 3 == 2 else "",
        "device": "Fake 2-core CPU",
        "folders": (),
        "command": "isochron run nvs" if number % 3 == 2 else "",
        "cost": "",
    }
    return SimpleNamespace(**said | changes)
