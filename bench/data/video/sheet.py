"""A picture of the clips for the documentation and for the eye.

from PIL import Image; Image.fromarray(contact_sheet()).quantize(128).save("docs/video.png")
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.data.video.render import Clip, make_clip
from bench.data.video.spec import FACTORS, VideoSpec

ROWS = (("test", 0), ("test", 1), ("test", 2), ("test", 3), ("test", 4), ("shifted", 0))
"""One clip of each factor, in the order of `FACTORS`, and one of the other textures."""
SEEN = ((235, 120, 70), (80, 150, 235), (120, 200, 90), (200, 120, 210))
"""Colour of each target where it is seen; hidden parts are half as bright."""


def contact_sheet(spec: VideoSpec | None = None) -> NDArray[np.uint8]:
    """Two rows a clip: every second frame, and the targets in it, their hidden parts darker."""
    spec = spec or VideoSpec(factors=FACTORS)
    rows = []
    for split, number in ROWS:
        clip = make_clip(spec, split, number)
        for pictures in (clip.rgb, _targets(clip, spec.objects)):
            rows.append(np.concatenate(list(pictures[::2]), axis=1))
    return np.concatenate(rows)


def _targets(clip: Clip, objects: int) -> NDArray[np.uint8]:
    picture = np.full((*clip.masks.shape, 3), 30, np.uint8)
    for number in range(objects):
        hidden = (clip.amodal >> number & 1 == 1) & (clip.masks == 0)
        picture[hidden] = np.array(SEEN[number], np.uint8) // 2
    for number in range(objects):
        picture[clip.masks == number + 1] = SEEN[number]
    return picture
