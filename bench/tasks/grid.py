"""Images in labelled columns, for the eye."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 4
"""White pixels between tiles."""
HEADER = 20
"""Height of the line of labels in pixels."""
SMALLEST_TILE = 128
"""Tiles smaller than this are enlarged by whole pixels, so that labels fit and nothing is blurred."""


def labelled_grid(columns: Mapping[str, Tensor]) -> np.ndarray:
    """Grid with one labelled column an entry and one row an image.

    Args:
        columns: label to RGB images in 0..1 (clamped), [rows, 3, H, W], all of one shape.

    Returns:
        uint8 [height, width, 3] on white.
    """
    tiles = {label: _tiles(images) for label, images in columns.items()}
    rows, height, width = next(iter(tiles.values())).shape[:3]
    canvas = Image.new(
        "RGB", (len(tiles) * (width + GAP) - GAP, HEADER + rows * (height + GAP) - GAP), color=(255, 255, 255)
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for column, (label, images) in enumerate(tiles.items()):
        left = column * (width + GAP)
        draw.text((left + width // 2, HEADER // 2), _fitted(label, width, font), fill=(0, 0, 0), font=font, anchor="mm")
        for row, pixels in enumerate(images):
            canvas.paste(Image.fromarray(pixels), (left, HEADER + row * (height + GAP)))
    return np.asarray(canvas)


def _tiles(images: Tensor) -> np.ndarray:
    """[rows, 3, H, W] in 0..1 to uint8 [rows, h, w, 3], enlarged by a whole factor where small."""
    pixels = (images.detach().float().cpu().clamp(0, 1) * 255).round().byte().movedim(1, -1).numpy()
    factor = max(1, -(-SMALLEST_TILE // pixels.shape[2]))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)


def _fitted(label: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The label, shortened until it is no wider than its column."""
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(label + "…") > width:
        label = label[:-1]
    return label + "…"
