"""A picture of the pictures for the documentation and for the eye.

from PIL import Image; Image.fromarray(contact_sheet()).save("docs/segmentation.png", optimize=True)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.data.labelled import VOID
from bench.data.named.scene import make_picture
from bench.data.named.spec import NamedSceneSpec

ROWS = (("train", 0), ("train", 6), ("test", 0), ("words", 0))
"""Split and first picture of each row."""


def contact_sheet(spec: NamedSceneSpec | None = None, columns: int = 6) -> NDArray[np.uint8]:
    """Two rows each: pictures, and the classes in them, coloured by group and a little brighter or darker by class."""
    spec = spec or NamedSceneSpec()
    rows = []
    for split, first in ROWS:
        pictures = [make_picture(spec, split, first + column) for column in range(columns)]
        palette = _palette(spec, split)
        rows.append(np.concatenate([picture.rgb for picture in pictures], axis=1))
        rows.append(np.concatenate([palette[picture.labels] for picture in pictures], axis=1))
    return np.concatenate(rows)


def _palette(spec: NamedSceneSpec, split: str) -> NDArray[np.uint8]:
    """Colour of each label [65536, 3]: stuff grey and pale, seen names blue, unseen orange, left-out words white, void black."""
    tones = {"seen": (70, 130, 220), "unseen": (240, 150, 50), "word": (250, 250, 250)}
    palette = np.zeros((VOID + 1, 3), np.uint8)
    vocabulary = spec.vocabulary(split)
    for label, group in enumerate(vocabulary.groups):
        palette[label] = np.array(tones[group]) * (0.7 + 0.3 * (label * 0.618 % 1))
    palette[:2] = (100, 100, 100), (190, 205, 225)
    return palette
