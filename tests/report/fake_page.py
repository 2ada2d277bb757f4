"""What a page is made of, without training: result folders with pictures, and verdicts; and what a browser finds in it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
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


class Reader(HTMLParser):
    """What a browser would find: elements with their attributes, tables by section, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.bold: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.style, self.text = "", ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "script":
            self.scripts.append((dict(attributes), ""))
        elif tag == "b":
            self.bold.append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif inside == "style":
            self.style += data
        else:
            self.text += data
            if any(cell in self._open for cell in ("td", "th")):
                self.rows[-1][-1] += data
            if "b" in self._open:
                self.bold[-1] += data

    @property
    def data(self) -> list[dict]:
        return [json.loads(content) for attributes, content in self.scripts if attributes.get("type")]
