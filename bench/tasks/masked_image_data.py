"""Where the task ``masked-image`` gets its images from: the views of rendered scenes, or a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data import scenes
from bench.data.crops import crop_randomly, flips
from bench.data.image_folder import open_folder
from bench.data.scenes.shapes import CLASS_NAMES, SHAPES
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress
    from bench.tasks.masked_image_config import MaskedImageConfig

SKY, FIRST_SHAPE = CLASS_NAMES.index("sky"), CLASS_NAMES.index(next(iter(SHAPES)))
"""Classes of a rendered view; those before the first shape, sky and floor, are no object."""
SKY_SHARE = 0.005
"""Share of a view's pixels from which sky counts as seen: 64 % of the views."""
OBJECT_SHARES = (0.21, 0.30)
"""Shares of a view's pixels that part few, some and many object pixels: about a third of the views each."""
COMPOSITIONS = tuple(
    f"{sky}, {share} of the pixels show objects"
    for sky in ("no sky", "sky")
    for share in ("below 21 %", "21-30 %", "above 30 %")
)


class ImageSplit(Protocol):
    """One split of a set of images, numbered from 0 in an order that never changes, the first ones a fair sample of all.

    Optional members, found by ``getattr``: ``notices`` (lines that must stand under the table) and ``fingerprint`` (digest of
    what the split holds, wherever it lies).
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """What `labels` point to; empty where images have no class."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def sample_name(self, index: int) -> str:
        """Name of an image, for good: runs are paired by it, and its mask follows from it."""
        ...

    def load(
        self, indices: np.ndarray, draws: NDArray[np.uint64] | None = None, augment: str = "none"
    ) -> NDArray[np.uint8]:
        """Images [B, H, W, 3] as evaluation sees them, or as `augment` makes them from `draws` [B]."""
        ...

    def labels(self, indices: np.ndarray) -> NDArray[np.int64]:
        """[B] position in `classes`; -1 where the image has none of them."""
        ...


@dataclass(frozen=True)
class SceneImages:
    """An `ImageSplit` of all views of rendered scenes: first one view of every scene, then the next of every scene.

    What a view shows is either its *composition* (6 classes of 8 to 25 %: whether sky is seen, and how much of the view objects
    take) or the *shape* of its largest object (11 classes of 3 to 14 %; of half of the views the second largest takes more than
    0.55 of its pixels). Shapes are at chance (0.12 to 0.17) for raw pixels, random features and models of a few hundred steps.
    """

    split: scenes.SceneSplit
    count: int
    label: str = "composition"

    @property
    def classes(self) -> tuple[str, ...]:
        """The compositions or the shapes."""
        return tuple(SHAPES) if self.label == "shape" else COMPOSITIONS

    def __len__(self) -> int:
        """Number of images."""
        return self.count

    def sample_name(self, index: int) -> str:
        """``0007/05`` is view 5 of scene 7, as in view synthesis."""
        view, scene = divmod(int(index), len(self.split))
        return self.split.sample_name(scene, view)

    def load(
        self, indices: np.ndarray, draws: NDArray[np.uint64] | None = None, augment: str = "none"
    ) -> NDArray[np.uint8]:
        """Views `indices` [B] as rendered, or as `augment` makes them from `draws` [B]."""
        images = self.split.rgb[indices % len(self.split), indices // len(self.split)]
        if draws is None or augment == "none":
            return images
        if augment == "crop":
            size = images.shape[1]
            images = np.stack([crop_randomly(image, draw, size) for image, draw in zip(images, draws, strict=True)])
        mirrored = flips(draws)
        images[mirrored] = images[mirrored, :, ::-1]
        return images

    def labels(self, indices: np.ndarray) -> NDArray[np.int64]:
        """[B] composition, or shape of the object that takes most pixels; -1 where none is seen."""
        seen = self.split.classes[indices % len(self.split), indices // len(self.split)]
        if self.label == "composition":
            objects = np.digitize((seen >= FIRST_SHAPE).mean((1, 2)), OBJECT_SHARES)
            return objects + (len(OBJECT_SHARES) + 1) * ((seen == SKY).mean((1, 2)) > SKY_SHARE)
        pixels = np.stack([(seen == FIRST_SHAPE + shape).sum((1, 2)) for shape in range(len(SHAPES))], axis=1)
        return np.where(pixels.any(1), pixels.argmax(1), -1)


def steps(count: int, step: int) -> Iterator[np.ndarray]:
    """Numbers 0 .. count - 1, `step` at a time."""
    for start in range(0, count, step):
        yield np.arange(start, min(start + step, count))


class Source:
    """Opens the splits of a configuration."""

    def __init__(self, config: MaskedImageConfig, cache_dir: Path) -> None:
        """Nothing is read before `open`."""
        self._config, self._cache_dir = config, cache_dir

    def render(self, report: Progress | None = None, workers: int | None = None) -> None:
        """Render what is missing of the embedded scenes."""
        splits = ("train", "validation", "test")
        scenes.prepare(self._config.scene_spec, splits, self._cache_dir, workers=workers, progress=report)

    def open(self, split: str, report: Progress | None = None) -> ImageSplit:
        """``train``, ``validation`` or ``test``; of as many images as the options allow.

        Raises:
            UserError: the data is not there.
        """
        config, limit = self._config, self._config.image_limit(split)
        if config.data == "scenes":
            opened = scenes.open_split(config.scene_spec, split, self._cache_dir)
            views = opened.rgb.shape[0] * opened.rgb.shape[1]
            return SceneImages(opened, views if limit is None else min(limit, views), config.probe_label)
        return open_folder(
            self._root,
            split,
            image_size=config.image_size,
            limit=limit,
            # Where training shares the cores with decoding, no more threads than the comparison was given.
            workers=None if torch.cuda.is_available() else torch.get_num_threads(),
            report=report,
        )

    @property
    def _root(self) -> Path:
        path = self._config.data_path
        if path is None:
            raise UserError(
                "task.data_path is not set: give a folder of images, with train/ and val/ as ImageNet has them or without, or "
                "set task.data: scenes for the embedded ones"
            )
        root = Path(path).expanduser()
        if not root.is_dir():
            raise UserError(f"task.data_path: {path} is no folder; it must hold images")
        return root
