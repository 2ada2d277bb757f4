"""CAT-Seg's aggregator: class maps of a picture from how well its places fit the classes' texts.

Cho et al., "CAT-Seg: Cost Aggregation for Open-Vocabulary Semantic Segmentation" (CVPR 2024), and its published code in
both versions: of 2023, and of 2024, which fills the classes up to 256. The cosine of every place with every class is
embedded, aggregated over space and over classes in turn, and enlarged. No weight belongs to a class: any list of classes
will do, in any order.

Axes: B samples, T classes, P prompts of a class, C width of the features, h x w grid of the image, D hidden width, G width
of a guidance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.aggregator_config import PRESETS, CATSegAggregatorConfig
from models.layers.aggregator_layer import AggregatorLayer, layer_flops
from models.layers.chunks import in_chunks
from models.layers.config import build_config
from models.layers.cost_volume import best_classes, cost_volume, embed_cost, embed_features, mean_text, pick
from models.layers.guided_decoder import GuidedUp, project_guidance, up_flops, up_guidance_flops
from models.layers.windowed_blocks import window_layout
from models.reference import load_strictly, unwrap_keys

__all__ = ["OTHER_SUBTREES", "PREFIX", "PRESETS", "CATSegAggregator", "CATSegAggregatorConfig"]

KERNEL = 7
"""Edge of the first convolution."""
DROPPED_LOGIT = -100.0
"""Logit of classes that fit worse than as many others as ``class_padding`` allows."""
PREFIX = "sem_seg_head.predictor.transformer."
"""Where published checkpoints of the whole network hold the aggregator."""
OTHER_SUBTREES = ("sem_seg_head.predictor.clip_model.", "backbone.", "upsample1.", "upsample2.")
"""What they hold beside it: CLIP, the 2023 version's backbone, the 2024 version's enlarging of decoder guidance."""


class CATSegAggregator(nn.Module):
    """The aggregator; parameters bear the names of the published checkpoints, without their prefix."""

    config_class: ClassVar[type[CATSegAggregatorConfig]] = CATSegAggregatorConfig
    config: CATSegAggregatorConfig

    def __init__(self, config: CATSegAggregatorConfig) -> None:
        super().__init__()
        self.config = config
        width, first, second = config.hidden_width, *config.decoder_widths
        self.layers = nn.ModuleList(AggregatorLayer(config) for _ in range(config.layers))
        channels = config.prompts if config.volume == "cost" else 2 * config.feature_width
        self.conv1 = nn.Conv2d(channels, width, KERNEL, padding=KERNEL // 2)
        self.guidance_projection: nn.Sequential | None = None
        self.text_guidance_projection: nn.Sequential | None = None
        self.decoder_guidance_projection: nn.ModuleList | None = None
        if config.appearance_guidance_width:
            self.guidance_projection = project_guidance(*config.appearance_guidance)
        if config.text_guidance_width:
            self.text_guidance_projection = nn.Sequential(
                nn.Linear(config.feature_width, config.text_guidance_width), nn.ReLU()
            )
        widths = config.decoder_guidance_widths
        if any(widths):
            self.decoder_guidance_projection = nn.ModuleList(
                project_guidance(source, guidance) if guidance else nn.Identity()
                for source, guidance in zip(config.decoder_guidance[0], widths, strict=True)
            )
        self.decoder1 = GuidedUp(width, first, widths[0]) if config.decoder else None
        self.decoder2 = GuidedUp(first, second, widths[1]) if config.decoder else None
        self.head = nn.Conv2d(second if config.decoder else width, 1, 3, padding=1)

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> Self:
        """Build the model from published weights.

        Args:
            state: of the aggregator, or of the whole network, whose other parts are dropped (`OTHER_SUBTREES`).
            **config: options by name.

        Raises:
            ValueError: a key is missing, superfluous, or of another shape, or a mask is another one; the message names it.
        """
        model = cls(build_config(cls.config_class, config))
        masks = {name: mask.clone() for name, mask in model.named_buffers() if name.endswith("attn_mask")}
        weights = unwrap_keys(state, OTHER_SUBTREES)
        load_strictly(model, {name.removeprefix(PREFIX): value for name, value in weights.items()})
        for name, mask in masks.items():
            if not torch.equal(model.get_buffer(name), mask):
                raise ValueError(f"state[{name!r}] is not the mask of windows of {model.config.window_size}: check it")
        return model

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        guidance_0: Tensor | None = None,
        guidance_1: Tensor | None = None,
        guidance_2: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Segment pictures by classes.

        Args:
            image_features: [B, C, h, w], normalised here.
            text_features: [B, T, P, C], normalised here; [1, T, P, C], or an expanded one, where all samples have the same
                classes, whose text is then worked on once.
            guidance_0: appearance guidance [B, G, h, w]. Of a guidance that is switched off nothing is read.
            guidance_1: the coarser guidance of the decoder, [B, G, 2h, 2w].
            guidance_2: the finer one, [B, G, 4h, 4w].

        Returns:
            ``logits``: [B, T, 4h, 4w]; [B, T, h, w] without a decoder.

        Raises:
            ValueError: shapes that do not fit one another or the options.
        """
        guidances = (guidance_0, guidance_1, guidance_2)
        self._check(image_features, text_features, guidances)
        text = text_features[:1] if _shared(text_features) else text_features
        classes = text.shape[1]
        cost = kept = None
        if self.config.volume == "cost" or self._cuts(classes):
            cost = cost_volume(image_features, text)
        if cost is not None and self._cuts(classes):
            kept = best_classes(cost, self.config.padding)
            # Published so: the prompts of classes that were chosen are averaged normalised, otherwise as they are.
            cost, text = pick(cost, kept), pick(F.normalize(text, dim=-1), kept)
        logits = self._aggregate(image_features, cost, text, *guidances)
        if kept is None:
            return {"logits": logits}
        everywhere = logits.new_full((len(logits), classes, *logits.shape[2:]), DROPPED_LOGIT)
        return {"logits": everywhere.scatter(1, kept[..., None, None].expand_as(logits), logits)}

    def _aggregate(self, image: Tensor, cost: Tensor | None, text: Tensor, *guidances: Tensor | None) -> Tensor:
        """Logits [B, T, 4h, 4w] of the classes that are kept."""
        chunk = None if self.training else self.config.class_chunk
        if self.config.volume == "cost":
            assert cost is not None
            x = embed_cost(self.conv1, cost, chunk)
        else:
            x = embed_features(self.conv1, image, text, chunk)
        appearance = of_text = None
        if self.guidance_projection is not None:
            appearance = self.guidance_projection(guidances[0]).permute(0, 2, 3, 1)
        if self.text_guidance_projection is not None:
            of_text = self.text_guidance_projection(mean_text(text))
        pooling = self.config.pooling(training=self.training)
        for layer in self.layers:
            x = layer(x, appearance, of_text, pooling, chunk)
        guided: list[Tensor | None] = [None, None]
        for number, up in enumerate((self.decoder1, self.decoder2)):
            if up is not None and self.config.decoder_guidance_widths[number]:
                assert self.decoder_guidance_projection is not None
                guided[number] = up.guide(self.decoder_guidance_projection[number](guidances[1 + number]))
        return in_chunks(lambda part: self._decode(part, *guided), x, chunk, dim=1)

    def _decode(self, x: Tensor, coarse: Tensor | None, fine: Tensor | None) -> Tensor:
        """[B, T, h, w, D] -> [B, T, 4h, 4w]; the guidances as `GuidedUp.guide` gave them."""
        maps = x.flatten(0, 1).permute(0, 3, 1, 2)
        if self.decoder1 is not None and self.decoder2 is not None:
            maps = self.decoder2(self.decoder1(maps, coarse), fine)
        return self.head(maps)[:, 0].unflatten(0, x.shape[:2])

    def _cuts(self, classes: int) -> bool:
        """Whether there are more classes than are computed."""
        return 0 < self.config.padding < classes

    def _check(self, image: Tensor, text: Tensor, guidances: Sequence[Tensor | None]) -> None:
        """Raise ValueError unless the inputs fit."""
        config = self.config
        if image.ndim != 4 or image.shape[1] != config.feature_width:
            raise ValueError(f"image_features must be [B, {config.feature_width}, h, w], got {list(image.shape)}")
        samples, _, height, width = image.shape
        prompts = config.prompts if config.volume == "cost" else "P"
        fits = text.ndim == 4 and text.shape[0] in (1, samples) and text.shape[1] and text.shape[3] == image.shape[1]
        if not fits or (config.volume == "cost" and text.shape[2] != config.prompts):
            raise ValueError(
                f"text_features must be [{samples} or 1, T, {prompts}, {config.feature_width}], got {list(text.shape)}"
            )
        if config.spatial == "swin":
            window_layout((height, width), config.window_size, shifted=False)
        sources = (config.appearance_guidance[0], *config.decoder_guidance[0])
        used = (config.appearance_guidance_width, *config.decoder_guidance_widths)
        for number, guidance in enumerate(guidances):
            shape = [samples, sources[number], height << number, width << number]
            if used[number] and (guidance is None or list(guidance.shape) != shape):
                got = None if guidance is None else list(guidance.shape)
                raise ValueError(f"guidance_{number} must be {shape}, got {got}")

    def reference_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor:
        """The published loss: mean binary cross-entropy over all pixels and classes.

        Args:
            batch: ``labels`` int64 [B, H, W], number of the class in the sample's list; any other number is none of them,
                and counts.
            outputs: ``logits`` [B, T, ...], enlarged bilinearly here.
        """
        labels, logits = batch["labels"], outputs["logits"].float()
        logits = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
        classes = torch.arange(logits.shape[1], device=labels.device)
        target = (labels[:, None] == classes[:, None, None]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, target)

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of a forward pass in the mode, training or not, that the model is in: 2 per multiply-add.

        Counts matrix products, convolutions and attention, and reads shapes only.

        Args:
            batch: ``image_features`` [B, C, h, w] and ``text_features`` [B or 1, T, P, C].
        """
        return self._flops(batch, published=False)

    def published_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The same of the published way: every guidance is concatenated for each class and each place.

        There the feature volume is made and convolved whole, fillers are computed one by one, the text of a list that the
        samples share once for each sample, and the cost of classes that are kept twice.
        """
        return self._flops(batch, published=True)

    def _flops(self, batch: Mapping[str, Tensor], *, published: bool) -> int:
        config, (samples, channels, *shape) = self.config, batch["image_features"].shape
        text = batch["text_features"]
        grid = (shape[0], shape[1])
        places, width, (_, classes, prompts, _) = grid[0] * grid[1], config.hidden_width, text.shape
        cuts, cost = self._cuts(classes), 2 * places * prompts * channels
        flops = samples * classes * cost if config.volume == "cost" or cuts else 0
        texts = 1 if _shared(text) and not cuts and not published else samples
        if cuts:
            classes = config.padding
            flops += samples * classes * cost if published else 0
        # How often work on the picture is done: once for all classes, or for each of them.
        each = classes if published else 1

        first = 2 * places * KERNEL**2 * width
        if config.volume == "cost":
            flops += samples * classes * first * prompts
        elif published:
            flops += samples * classes * first * 2 * channels
        else:
            flops += samples * first * channels
            flops += texts * classes * (2 * channels * KERNEL**2 * width + first)

        flops += samples * 18 * places * config.appearance_guidance[0] * config.appearance_guidance_width
        flops += texts * classes * 2 * config.text_guidance[0] * config.text_guidance_width
        flops += config.layers * layer_flops(
            config, grid, samples, classes, texts, training=self.training, published=published
        )
        if not config.decoder:
            return flops + samples * classes * 18 * places * width
        for source, out, channels, beside in zip(
            (width, config.decoder_widths[0]),
            config.decoder_widths,
            config.decoder_guidance[0],
            config.decoder_guidance_widths,
            strict=True,
        ):
            flops += samples * classes * up_flops(places, source, out, beside)
            flops += samples * (72 * places * channels * beside + each * up_guidance_flops(places, out, beside))
            places *= 4
        return flops + samples * classes * 18 * places * config.decoder_widths[1]


def _shared(text: Tensor) -> bool:
    """Whether the text features [B, T, P, C] are the same for all samples by construction."""
    return len(text) == 1 or text.stride(0) == 0
