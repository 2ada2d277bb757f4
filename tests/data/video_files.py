"""Videos made up: in memory, and as files in the published layouts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.index_masks import pascal_palette
from bench.data.video.clips import Boxes, ClipInfo

HEIGHT, WIDTH = 24, 32


def picture(frame: int, video: int = 0, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """A smooth picture that differs from frame to frame and from video to video."""
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    return np.stack([rows * 5 + frame, columns * 4 + 9 * video, rows + columns + 3 * frame], -1).astype(np.uint8)


def mask(*objects: int, frame: int = 0, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """A square for each object number, in places of their own, that moves by a pixel a frame."""
    out = np.zeros(shape, np.uint8)
    for place, number in enumerate(objects):
        left = 8 * place + frame % 4
        out[2 : 2 + 10, left : left + 6] = number
    return out


@dataclass
class Made:
    """Clips in memory, with masks and boxes: clip 0 has a late object, void pixels and a frame without truth."""

    count: int = 3
    length: int = 5
    fingerprint: str = "made"
    notices: tuple[str, ...] = ("made up",)

    def __len__(self) -> int:
        return self.count

    def info(self, clip: int) -> ClipInfo:
        annotated = np.ones(self.length, bool)
        if clip == 0:
            annotated[3] = False
        return ClipInfo(f"clip-{clip}", self.length, HEIGHT, WIDTH, (0, 2) if clip == 0 else (0,), annotated)

    def frames(self, clip: int, which: np.ndarray) -> np.ndarray:
        return np.stack([picture(int(frame), clip) for frame in which])

    def masks(self, clip: int, which: np.ndarray) -> np.ndarray:
        out = np.stack([mask(*((1, 2) if clip == 0 and frame >= 2 else (1,)), frame=int(frame)) for frame in which])
        out[:, -1] = 255
        return out

    def boxes(self, clip: int) -> Boxes:
        frames = np.arange(self.length, dtype=np.float32)
        xywh = np.stack([frames, frames + 2.25, np.full_like(frames, 6), np.full_like(frames, 10)], -1)
        visible, present = np.linspace(1, 0, self.length, dtype=np.float32), np.ones(self.length, bool)
        present[1] = False
        xywh[1], visible[1] = np.nan, 0
        return Boxes(xywh, visible, present)


def save_frame(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def save_mask(path: Path, numbers: np.ndarray, palette: list[int] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers)
    image.putpalette(palette or pascal_palette())
    image.save(path)


def save_davis(root: Path, names: dict[str, list[str]], frames: int = 3) -> Path:
    """DAVIS 2017 at 480p: list -> names of its sequences; test-dev has first masks only."""
    for listed, sequences in names.items():
        for number, name in enumerate(sequences):
            for frame in range(frames):
                save_frame(root / "JPEGImages" / "480p" / name / f"{frame:05d}.jpg", picture(frame, number))
                if frame == 0 or listed != "test-dev":
                    save_mask(root / "Annotations" / "480p" / name / f"{frame:05d}.png", mask(1, 2, frame=frame))
        path = root / "ImageSets" / "2017" / f"{listed}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in sequences))
    return root


def save_youtube_vos(root: Path, videos: int = 12) -> Path:
    """YouTube-VOS: every 5th of 16 frames; object 3 begins in the first frame, object 5 in 00010; also all frames of valid."""
    for part in ("train", "valid"):
        meta = {}
        for number in range(videos if part == "train" else 2):
            name = f"{part}{number:04d}"
            for frame in range(16):
                image = picture(frame, number)
                if part == "valid":
                    save_frame(root / "valid_all_frames" / "JPEGImages" / name / f"{frame:05d}.jpg", image)
                if frame % 5:
                    continue
                save_frame(root / part / "JPEGImages" / name / f"{frame:05d}.jpg", image)
                objects = {"train": (3, 5) if frame >= 10 else (3,), "valid": {0: (3,), 10: (5,)}.get(frame, ())}[part]
                if objects:
                    save_mask(root / part / "Annotations" / name / f"{frame:05d}.png", mask(*objects, frame=frame))
            stems = {"3": ["00000", "00005", "00010", "00015"], "5": ["00010", "00015"]}
            meta[name] = {"objects": {i: {"category": "cat", "frames": found} for i, found in stems.items()}}
        (root / part / "meta.json").write_text(json.dumps({"videos": meta}))
    return root


def save_lasot(root: Path, videos: list[str], frames: int = 4) -> Path:
    """LaSOT: frame 2 is fully occluded, frame 3 out of view."""
    for number, name in enumerate(videos):
        folder = root / name.rpartition("-")[0] / name
        for frame in range(frames):
            save_frame(folder / "img" / f"{frame + 1:08d}.jpg", picture(frame, number))
        (folder / "groundtruth.txt").write_text(
            "".join(f"{frame + 1},{2 * frame + 1},6,8\n" for frame in range(frames))
        )
        (folder / "full_occlusion.txt").write_text("0,0,1,0")
        (folder / "out_of_view.txt").write_text("0,0,0,1")
    return root
