"""Options of the task ``openvocab`` and its presets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from bench.data.labelled_sets import SETS
from bench.data.named import NamedSceneSpec
from bench.errors import UserError
from bench.tasks.options import is_count, is_number

PICTURES = ("embedded", *SETS)
TOKENIZERS = ("bytes", "clip", "minilm")
CLASS_LISTS = ("drawn", "fixed")
SCENES = ("image_size", "train_images", "validation_images", "test_images", "words_images")
"""Options of `NamedSceneSpec` by the same name."""
WORDS = ("textures", "colours", "shapes")
FIELDS = ("image_features", "text_features", "guidance_0", "guidance_1", "guidance_2")
"""Inputs with ``data: aligned``."""
LABEL_SCALE = 4
"""Label pixels on a side of one of the aggregator's image tokens."""


@dataclass(frozen=True)
class OpenVocabularyConfig:
    """Options of the task; every field is one key under ``task:`` in a comparison."""

    only_of: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(("image_size", "words_images", *WORDS), ("embedded",)),
        **dict.fromkeys(("data_path", "class_file", "test_data", "test_path", "test_class_file"), SETS),
        **dict.fromkeys(("crop_size", "scale", "tokenizer", "text_length", "templates"), PICTURES),
        **dict.fromkeys(("feature_width", "grid", "guidance_widths"), ("aligned",)),
        **dict.fromkeys(("prompts", "seen_classes", "unseen_classes", "feature_noise"), ("aligned",)),
    }
    """Options -> the only data that have them."""
    inputs_of: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(PICTURES, ("image", "names")),
        "aligned": FIELDS,
    }
    """`data` -> batch keys that architectures receive."""

    data: str = "embedded"
    """``embedded`` (rendered scenes whose names are composed of words), ``aligned`` (made-up features of image and text that agree
    already: the head of `catseg-aggregator` alone), a real set, or ``folder`` (images, index masks and a file of class names)."""
    data_path: str | None = None
    """Real data only: the folder it is trained on; see ``docs/bring-your-data.md``."""
    class_file: str | None = None
    """Real data only: file of its class names, a JSON array or one a line; null: one in its folder."""
    ignore_index: int | None = None
    """``folder`` only: value of void pixels in index masks; null: 255, or 65535 where 255 is a class."""
    test_data: str | None = None
    """Real data only: another set that is scored; null: that of `data`."""
    test_path: str | None = None
    """Real data only: its folder; null: `data_path`."""
    test_class_file: str | None = None
    """Real data only: file of the class names of `test_data`."""
    data_seed: int = 0
    """Of what is generated: another seed draws other pictures, and other classes are unseen. Real data stay as they are."""
    image_size: int = 80
    """``embedded`` only: height and width of rendered pictures in pixels."""
    train_images: int | None = 2000
    """Pictures of the split; of files at most so many, the first ones; null: all there are (files only)."""
    validation_images: int | None = 60
    test_images: int | None = 100
    words_images: int = 40
    """``embedded`` only: pictures that also show things with a word that training lacks; a control, scored apart. 0: none."""
    textures: int = 2
    """``embedded`` only: words of each kind that names are composed of."""
    colours: int = 6
    shapes: int = 4
    crop_size: int = 64
    """Height and width of training crops in pixels."""
    scale: tuple[float, float] = (1.0, 1.25)
    """The shorter side of a training picture over `crop_size` before it is cropped: least and most."""
    classes_per_list: int = 12
    """Classes T that a training sample is asked about: those that its crop shows and others at random."""
    class_list: str = "drawn"
    """``drawn``: anew for every sample, in random order. ``fixed``: the whole vocabulary of training for all, as published."""
    tokenizer: str = "bytes"
    """``bytes``, ``clip`` or ``minilm``: what token ids of names stand for."""
    text_length: int = 32
    """Tokens L of a prompt, with padding."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts of a class: {} is its name, of several names parted by commas the first. ``imagenet-80``: the 80 published ones."""
    feature_width: int = 64
    """``aligned`` only: width C of the features."""
    grid: int = 12
    """``aligned`` only: image tokens on a side; labels have four times as many pixels."""
    guidance_widths: tuple[int, int, int] = (32, 16, 8)
    """``aligned`` only: channels of the guidance at one, two and four times the grid."""
    prompts: int = 1
    """``aligned`` only: prompts P of a class, each with noise of its own where there are several."""
    seen_classes: int = 12
    unseen_classes: int = 12
    feature_noise: float = 4.3
    """``aligned`` only: length of the noise that is added to each image token, whose class is a vector of length 1."""
    eval_batch: int = 4
    """Pictures in one evaluation batch, where they have one size: fixed, so that an arm's score does not depend on its memory."""

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        for name in ("scale", "templates", "guidance_widths"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, value, known in (
            ("data", self.data, ("embedded", "aligned", *SETS)),
            ("test_data", self.test_data, (None, *SETS)),
            ("class_list", self.class_list, CLASS_LISTS),
            ("tokenizer", self.tokenizer, TOKENIZERS),
        ):
            if value not in known:
                raise UserError(f"task.{name} must be one of {', '.join(filter(None, known))}, got {value!r}")
        for field in fields(self):
            owners = self.only_of.get(field.name, ())
            harmless = (field.default, SMALL.get(field.name), PAPER.get(field.name))
            if owners and self.data not in owners and getattr(self, field.name) not in harmless:
                raise UserError(
                    f"task.{field.name} is an option of {', '.join(owners)} alone, but task.data is {self.data}; leave it out, or "
                    f"set its default, {json.dumps(field.default)}"
                )
            self._check_number(field.name, field.type)
        self._check_shapes()
        if self.embedded:
            try:
                self.named_spec  # noqa: B018 (checks what it is given)
            except UserError as error:
                raise UserError(
                    str(error).replace("named.seed", "task.data_seed").replace("named.", "task.", 1)
                ) from None

    def _check_number(self, name: str, kind: Any) -> None:
        value, smallest = (
            getattr(self, name),
            {"words_images": 0, "data_seed": 0, "crop_size": 16, "grid": 4}.get(name, 1),
        )
        if kind == "int" and not is_count(value, smallest):
            raise UserError(f"task.{name} must be a whole number of at least {smallest}, got {value!r}")
        if (
            kind == "int | None"
            and name != "ignore_index"
            and not (is_count(value, 1) or (value is None and self.data in SETS))
        ):
            null = ", or null for all" * (self.data in SETS)
            raise UserError(f"task.{name} must be a whole number of at least 1{null}, got {value!r}")
        if kind == "str | None" and value == "":
            raise UserError(f"task.{name} is empty: give a folder, or null for none")

    def _check_shapes(self) -> None:
        if self.ignore_index is not None and "folder" not in (self.data, self.test_data):
            raise UserError(
                f"task.ignore_index is an option of folder alone, but task.data is {self.data}; leave it out"
            )
        if len(self.scale) != 2 or not all(map(is_number, self.scale)) or not 1 <= self.scale[0] <= self.scale[1]:
            raise UserError(f"task.scale must be two numbers from 1, the smaller one first, got {list(self.scale)!r}")
        if len(self.guidance_widths) != 3 or not all(is_count(width, 1) for width in self.guidance_widths):
            raise UserError(
                f"task.guidance_widths must be three whole numbers from 1, got {list(self.guidance_widths)!r}"
            )
        if not is_number(self.feature_noise) or self.feature_noise < 0:
            raise UserError(f"task.feature_noise must be a number from 0, got {self.feature_noise!r}")
        for template in self.templates:
            if template != "imagenet-80" and template.count("{}") != 1:
                raise UserError(f"task.templates must hold {{}} once each, for the name, got {template!r}")
        if not self.templates:
            raise UserError('task.templates is empty: give at least "{}", the bare name')
        if self.data == "aligned" and self.classes_per_list > self.seen_classes:
            raise UserError(
                f"task.classes_per_list must be at most task.seen_classes, {self.seen_classes}, got {self.classes_per_list}"
            )

    @property
    def embedded(self) -> bool:
        """Whether pictures are rendered."""
        return self.data == "embedded"

    @property
    def aligned(self) -> bool:
        """Whether there are features instead of pictures and names."""
        return self.data == "aligned"

    @property
    def named_spec(self) -> NamedSceneSpec:
        """The rendered pictures that these options need."""
        options = {name: getattr(self, name) for name in (*SCENES, *WORDS)}
        return NamedSceneSpec(**{**options, "words_images": self.words_images or 1, "seed": self.data_seed})

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that are prepared."""
        return ("train", "validation", "test", *(("words",) if self.embedded and self.words_images else ()))

    @property
    def prompt_count(self) -> int:
        """Prompts P of a class."""
        return self.prompts if self.aligned else sum(80 if one == "imagenet-80" else 1 for one in self.templates)

    @property
    def label_size(self) -> int:
        """Height and width of training labels."""
        return LABEL_SCALE * self.grid if self.aligned else self.crop_size

    def image_limit(self, split: str) -> int | None:
        """Most pictures of a split, None for all of them."""
        limit: int | None = getattr(self, f"{split}_images")
        return limit

    def shared_options(self) -> dict[str, Any]:
        """What an architecture must be built for."""
        shared = {"prompts": self.prompt_count, "class_list": self.class_list}
        if self.aligned:
            return {**shared, "feature_width": self.feature_width, "resolution": (self.grid, self.grid)}
        return {**shared, "crop_size": self.crop_size, "tokenizer": self.tokenizer}


# What presets say is no mistake where a comparison has other data.
SMALL: dict[str, Any] = {
    "image_size": 160,
    "train_images": 20_000,
    "test_images": 400,
    "words_images": 100,
    "textures": 3,
    "colours": 8,
    "shapes": 8,
    "crop_size": 128,
    "classes_per_list": 32,
    "feature_width": 256,
    "grid": 16,
    "guidance_widths": (256, 128, 64),
    "seen_classes": 64,
    "unseen_classes": 64,
    "feature_noise": 8.0,
}


PAPER: dict[str, Any] = {
    "crop_size": 384,
    "scale": (1.0, 1.0),
    "class_list": "fixed",
    "tokenizer": "clip",
    "text_length": 77,
    "templates": ("A photo of a {} in the scene",),
}

PRESETS: dict[str, OpenVocabularyConfig] = {
    "tiny": OpenVocabularyConfig(),
    "small": OpenVocabularyConfig(**SMALL),
    "paper": OpenVocabularyConfig(
        data="coco-stuff", train_images=None, validation_images=500, test_images=None, eval_batch=1, **PAPER
    ),
}
"""``tiny``: two cores, minutes. ``small``: one GPU, minutes. ``paper``: crops, prompt and class list of the published training on
COCO-Stuff, which must be given (`data_path`), scored on `test_data`."""
