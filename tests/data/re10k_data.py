"""RealEstate10K chunks made up: photographs that a camera on a curve sees, in the published layout."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

CHUNK = "000000.torch"


@cache
def photograph(shape: tuple[int, int]) -> Image.Image:
    from skimage import data

    return Image.fromarray(data.coffee()).resize((shape[1] * 5 // 4, shape[0] * 5 // 4))


def jpeg(shape: tuple[int, int], frame: int, scene: int = 0, quality: int = 90) -> bytes:
    """Another part of the photograph for every frame and scene."""
    height, width = shape
    left, top = (5 * frame + 7 * scene) % (width // 4), (3 * frame + scene) % (height // 4)
    buffer = io.BytesIO()
    photograph(shape).crop((left, top, left + width, top + height)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def cameras(frames: int, *, focal: float = 0.5, step: float = 0.03) -> np.ndarray:
    """[N, 18]: a camera that walks and turns."""
    rows = []
    for frame in range(frames):
        sine, cosine = np.sin(0.01 * frame), np.cos(0.01 * frame)
        rotation = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
        translation = -rotation @ np.array([step * frame, 0.01, 2 * step * frame])
        rows.append([focal, 16 / 9 * focal, 0.5, 0.5, 0, 0, *np.c_[rotation, translation].ravel()])
    return np.array(rows)


def clip(key: str, frames: int, shape: tuple[int, int] = (36, 64), scene: int = 0, **camera: float) -> dict:
    return {
        "key": key,
        "url": "none",
        "timestamps": torch.arange(frames) * 33_333,
        "cameras": torch.tensor(cameras(frames, **camera), dtype=torch.float32),
        "images": [torch.frombuffer(bytearray(jpeg(shape, f, scene)), dtype=torch.uint8) for f in range(frames)],
    }


def write_split(folder: Path, *chunks: list[dict]) -> Path:
    """Chunks and ``index.json`` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    index = {}
    for number, clips in enumerate(chunks):
        torch.save(clips, folder / f"{number:06d}.torch")
        index |= {clip["key"]: f"{number:06d}.torch" for clip in clips}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def write_evaluation(path: Path, **scenes: tuple[list[int], list[int]] | None) -> Path:
    entries = {key: entry and {"context": entry[0], "target": entry[1]} for key, entry in scenes.items()}
    path.write_text(json.dumps(entries))
    return path
