"""Options of the task ``masked-image`` and its presets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from math import floor
from typing import Any

from bench.data import scenes
from bench.data.image_folder import AUGMENTS
from bench.errors import UserError
from bench.tasks.options import is_count

DATA = ("scenes", "folder")
PROBE_LABELS = ("composition", "shape")

OWN_AUGMENT = {"scenes": "flip", "folder": "crop"}
"""What ``augment: auto`` comes to: rendered scenes have no pixels to spare for a crop, photographs are cropped as in MAE."""

TRAIN_VIEWS, TEST_VIEWS = 6, 16
"""Views rendered of a training (or validation) and of a test scene: those of view synthesis, so that both share one cache."""

SCENES = {"train": 1, "validation": 64, "test": 100}
"""Fewest scenes of a split."""

ENDLESS_IMAGES = 120_000
"""What "all" means for training images that are rendered, of which there is no end."""


@dataclass(frozen=True)
class MaskedImageConfig:
    """Options of the task; every field is one key under ``task:`` in a comparison."""

    data: str = "scenes"
    """``scenes`` (every view of the embedded scenes is an image, rendered on first use) or ``folder`` (images under `data_path`)."""
    data_path: str | None = None
    """``folder`` only: folder of images, with ``train``, ``val`` and ``test`` or without; see ``docs/bring-your-data.md``."""
    image_size: int = 64
    """Height and width in pixels; at least 16."""
    patch_size: int = 8
    """Edge of a patch in pixels; divides `image_size`."""
    mask_ratio: float = 0.75
    """Share of the patches that are hidden: floor(L (1 - mask_ratio)) of L are kept, in exact decimal arithmetic."""
    norm_pix_loss: bool = False
    """Predict each patch normalised by its own mean and deviation. Then no prediction tells pixels: the headline is the error of
    normalised patches instead of the masked PSNR."""
    augment: str = "auto"
    """What training does to an image: ``none``, ``flip`` (one in two is mirrored), ``crop`` (a random part of 20-100 % of the
    area, resized bicubically, and flip: MAE's), or ``auto``: flip for scenes, crop for a folder."""
    train_images: int | None = 12_000
    """Images of the split: so many are rendered; of a folder at most so many, a fair sample. 0 or null: all (of the rendered ones,
    which have no end: 120,000, and the views of 64 and of 100 scenes)."""
    validation_images: int | None = 256
    test_images: int | None = 400
    eval_batch: int = 64
    """Images in one evaluation batch: fixed, so that an arm's score does not depend on its memory."""
    probe_images: int = 1000
    """Training images whose frozen features train the k-NN and linear probes of the final evaluation; 0: no probes."""
    probe_label: str = "composition"
    """``scenes`` only: what the probes tell of a view: its ``composition`` (sky or none, and how much objects take) or the ``shape``
    of its largest object, which needs a far better encoder. Of a folder it is the class folder."""

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_images"):
                if not (is_count(value, 0) or (value is None and "None" in field.type)):
                    null = ", or null for all" if "None" in field.type else ""
                    raise UserError(f"task.{field.name} must be a whole number{null}, got {value!r}")
            elif field.type == "int" and not is_count(value, 1):
                raise UserError(f"task.{field.name} must be a whole number of at least 1, got {value!r}")
            elif field.type == "bool" and not isinstance(value, bool):
                raise UserError(f"task.{field.name} must be true or false, got {value!r}")
        for name, value, known in (
            ("data", self.data, DATA),
            ("augment", self.augment, ("auto", *AUGMENTS)),
            ("probe_label", self.probe_label, PROBE_LABELS),
        ):
            if value not in known:
                raise UserError(f"task.{name} must be one of {', '.join(known)}, got {value!r}")
        if self.data_path == "":
            raise UserError("task.data_path is empty: give a folder, or null for none")
        if self.data == "scenes" and self.data_path is not None:
            raise UserError(
                f"task.data_path is {self.data_path!r}, but task.data: scenes are rendered; set task.data to folder"
            )
        if self.data == "folder" and self.probe_label != PROBE_LABELS[0]:
            raise UserError("task.probe_label: only scenes has it, task.data is folder; leave it out")
        if self.image_size < 16:
            raise UserError(f"task.image_size must be at least 16, got {self.image_size}")
        if self.image_size % self.patch_size:
            raise UserError(
                f"task.patch_size must divide task.image_size, {self.image_size}, got {self.patch_size}: choose another"
            )
        ratio = self.mask_ratio
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < 1:
            raise UserError(f"task.mask_ratio must lie between 0 and 1, got {ratio!r}")
        if self.kept == 0:
            raise UserError(f"task.mask_ratio {ratio} keeps none of {self.patches} patches: lower it")

    @property
    def patches(self) -> int:
        """Patches L of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def kept(self) -> int:
        """Patches that stay visible; the others are masked."""
        return floor(self.patches * (1 - Fraction(str(self.mask_ratio))))

    def shared_options(self) -> dict[str, Any]:
        """Options that the task's architectures have too, under the same name: these must be equal."""
        return {name: getattr(self, name) for name in ("image_size", "patch_size", "mask_ratio", "norm_pix_loss")}

    def image_limit(self, split: str) -> int | None:
        """Most images of a split, None for all of them."""
        count: int | None = getattr(self, f"{split}_images")
        return count or None

    @property
    def scene_spec(self) -> scenes.SceneSpec:
        """The rendered scenes that these options need."""
        train = self.image_limit("train") or ENDLESS_IMAGES
        wanted = {"train": -(-train // TRAIN_VIEWS), "validation": 0, "test": 0}
        for split, views in (("validation", TRAIN_VIEWS), ("test", TEST_VIEWS)):
            wanted[split] = -(-(self.image_limit(split) or 0) // views)
        counts = {f"{split}_scenes": max(SCENES[split], count) for split, count in wanted.items()}
        return scenes.SceneSpec(image_size=self.image_size, train_views=TRAIN_VIEWS, test_views=TEST_VIEWS, **counts)


PRESETS: dict[str, MaskedImageConfig] = {
    "tiny": MaskedImageConfig(),
    "small": MaskedImageConfig(image_size=128, train_images=24_000, test_images=None, probe_images=4000),
    "paper": MaskedImageConfig(
        data="folder",
        image_size=224,
        patch_size=16,
        norm_pix_loss=True,
        train_images=None,
        validation_images=1000,
        test_images=10_000,
        probe_images=20_000,
    ),
}
"""``tiny``: two cores, minutes; the images of the task ``nvs`` at `tiny`. ``small``: one GPU, minutes; those of ``nvs`` at
`small`. ``paper``: MAE's image and patch size on a folder such as ImageNet, which must be given (`data_path`)."""
