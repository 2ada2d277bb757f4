"""RealEstate10K as pixelSplat publishes it: ``ROOT/{train,test}/NNNNNN.torch`` of about 100 MB each, and ``index.json``.

A chunk is a torch-saved list of clips: ``key``; ``images``, a list of 1-D uint8 tensors that hold JPEG files of 360 x 640;
``cameras`` [N, 18]: fx, fy, cx, cy as shares of width and height, two zeros, the 3 x 4 world-to-camera matrix row by row
(OpenCV). ``url`` and ``timestamps`` stand beside them and are not read.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.data.images import decode
from bench.data.re10k.archive import Span, read_archive, read_array, read_bytes
from bench.data.re10k.index import FRAME, Part, Scene, SceneIndex, open_index, summarise
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.scenes.cache import Progress

ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"\x60\x82"}
"""How a JPEG and a PNG (of chunks that others made) begin and end."""


class Chunks:
    """A split in chunks: every JPEG by itself, without loading its chunk."""

    normalised = True
    """Intrinsics are shares of the image's width and height."""

    def __init__(
        self, folder: Path, cache_dir: Path, *, workers: int | None = None, report: Progress | None = None
    ) -> None:
        """Open the chunks in `folder`; the index is made if it is not in the cache.

        Raises:
            UserError: no index.json; a chunk that is missing, truncated, or not of this layout.
        """
        self.folder = folder
        files = list_chunks(folder)
        self.index: SceneIndex = open_index(folder, "chunks", files, _read, cache_dir, workers=workers, report=report)

    def image(self, scene: Scene, frame: np.void) -> NDArray[np.uint8]:
        """One image [h, w, 3], decoded.

        Raises:
            UserError: the chunk has changed, or the image is damaged; names chunk, scene and frame.
        """
        chunk = self.folder / scene.source
        data = read_bytes(chunk, int(frame["offset"]), int(frame["length"]))
        return decode(data, f"frame {frame['number']} of scene {scene.key} in {chunk}")[..., :3]


def list_chunks(folder: Path) -> list[Path]:
    """The chunks that ``index.json`` names, sorted.

    Raises:
        UserError: index.json is missing or no object of scene: chunk.
    """
    path = folder / "index.json"
    try:
        index = json.loads(path.read_text())
        names = sorted(set(index.values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("it must map scenes to files beside it")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: fetch it, it comes with the chunks") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from error
    return [folder / name for name in names]


def read_chunk(path: Path) -> list[tuple[str, list[Span], NDArray[np.void]]]:
    """Clips of a chunk: key, where each JPEG lies, frames [N] of `FRAME`.

    Raises:
        UserError: truncated, or not of this layout.
    """
    clips = []
    try:
        for clip in read_archive(path):
            spans: list[Span] = clip["images"]
            cameras = read_array(path, clip["cameras"])
            if not spans or cameras.shape != (len(spans), 18) or any(span.dtype != "<u1" for span in spans):
                raise ValueError(f"scene {clip['key']} has {len(spans)} images and cameras {list(cameras.shape)}")
            frames = np.zeros(len(spans), FRAME)
            frames["number"] = np.arange(len(spans))
            frames["offset"], frames["length"] = [span.offset for span in spans], [span.length for span in spans]
            frames["intrinsics"], frames["w2c"] = cameras[:, :4], cameras[:, 6:].reshape(-1, 3, 4)
            clips.append((str(clip["key"]), spans, frames))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no chunk of RealEstate10K ({type(error).__name__}: {error})") from error
    return clips


def _read(files: Sequence[Path]) -> Part:
    part: Part = []
    for path in files:
        for key, spans, frames in read_chunk(path):
            whole = _whole(path, spans)
            if not whole.any():
                continue
            frames = frames[whole]
            try:
                scene = summarise(key, path.name, frames, _shape(path, spans[int(whole.argmax())]), normalised=True)
                part.append((replace(scene, damaged=len(spans) - len(frames)), frames))
            except ValueError as error:
                raise UserError(f"{path}: {error}; fetch it again") from error
    return part


def _whole(path: Path, spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Which images begin and end as they must: one that was cut short is found before a comparison is hours old.

    A frame without an image leaves a gap in the numbers, as in the converted tree.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{path} cannot be opened ({error.strerror}); fetch it again") from error
    try:
        return np.array(
            [
                span.length > 4
                and ENDS.get(os.pread(file, 2, span.offset)) == os.pread(file, 2, span.offset + span.length - 2)
                for span in spans
            ]
        )
    finally:
        os.close(file)


def _shape(path: Path, span: Span) -> tuple[int, int]:
    """Height and width of an image by its header; (0, 0) if it has none."""
    try:
        with Image.open(io.BytesIO(read_bytes(path, span.offset, span.length))) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError):
        return 0, 0
