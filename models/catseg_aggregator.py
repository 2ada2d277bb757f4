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
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.chunks import in_chunks
from models.layers.class_attention import CLASS_ATTENTIONS, ClassBlock, class_flops, class_guidance_flops
from models.layers.config import build_config, require_bool, require_choice, require_count, require_positive
from models.layers.cost_volume import best_classes, cost_volume, embed_cost, embed_features, mean_text, pick
from models.layers.guided_decoder import GuidedUp, project_guidance, require_groups, up_flops, up_guidance_flops
from models.layers.vit import require_divisible
from models.layers.windowed_blocks import (
    BOTTLENECK,
    ConvBlocks,
    WindowedBlocks,
    conv_flops,
    conv_guidance_flops,
    window_layout,
    windowed_flops,
    windowed_guidance_flops,
)
from models.reference import load_strictly, unwrap_keys

VERSIONS = ("2023", "2024")
VOLUMES = ("cost", "feature")
SPATIAL_LAYERS = ("swin", "conv", "none")
KERNEL = 7
"""Edge of the first convolution."""
DROPPED_LOGIT = -100.0
"""Logit of classes that fit worse than as many others as ``class_padding`` allows."""
PREFIX = "sem_seg_head.predictor.transformer."
"""Where published checkpoints of the whole network hold the aggregator."""
OTHER_SUBTREES = ("sem_seg_head.predictor.clip_model.", "backbone.", "upsample1.", "upsample2.")
"""What they hold beside it: CLIP, the 2023 version's backbone, the 2024 version's enlarging of decoder guidance."""


@dataclass(frozen=True)
class CATSegAggregatorConfig:
    """Size and variant; the defaults are the published aggregator of 2024 on CLIP ViT-L/14."""

    version: str = "2024"
    """``2023`` has no class padding."""
    feature_width: int = 768
    """C of image and text features."""
    hidden_width: int = 128
    layers: int = 2
    heads: int = 4
    """Of spatial and class attention."""
    attention: str = "linear"
    """Of the classes to one another: ``linear`` or ``full``; the weights are the same."""
    volume: str = "cost"
    """``cost``: cosines; ``feature``: image and text features side by side, which knows neither other texts nor prompts
    apart."""
    prompts: int = 1
    """P; of no matter to ``volume: feature``."""
    resolution: Sequence[int] = (24, 24)
    """Rows and columns of the grid. Other grids are fine too, if the windows tile them; published weights hold a mask of
    this one."""
    spatial: str = "swin"
    """Aggregation over space: ``swin`` windows, a ``conv`` bottleneck, or ``none``."""
    classwise: bool = True
    """Whether there is an aggregation over classes."""
    window_size: int = 12
    """Places along the edge of a window."""
    pooling_size: Sequence[int] = (2, 2)
    """Rows and columns of places that are averaged before classes read one another; (1, 1): none."""
    test_pooling_size: Sequence[int] | None = None
    """The same in evaluation mode, (1, 1) in the published evaluation; null: as in training."""
    text_guidance: Sequence[int] = (768, 128)
    """Width of the text features, and what they are projected to; a 0 in either switches the guidance off."""
    appearance_guidance: Sequence[int] = (768, 128)
    """Likewise for the guidance of the spatial layers."""
    decoder_guidance: Sequence[Sequence[int]] = ((256, 128), (32, 16))
    """Widths of the decoder's two guidances, coarse and fine, and what these are projected to; a 0 switches one off."""
    decoder: bool = True
    """Whether maps are enlarged; otherwise the head reads the hidden maps, and logits have the size of the grid."""
    decoder_widths: Sequence[int] = (64, 32)
    class_padding: int | None = 256
    """Fewer classes are filled up to this number with a learned one; of more, only as many are kept as fit some place
    best. Null or 0: neither."""
    fold_padding: bool = False
    """Compute the fillers, which are all alike, once: the same values, without the published cost."""
    class_chunk: int | None = None
    """In evaluation mode, classes that are computed at once where they do not know of one another, and as much work at once
    where they do: the same values with less memory. Null: all."""

    def __post_init__(self) -> None:
        require_choice(self, "version", VERSIONS)
        require_choice(self, "attention", CLASS_ATTENTIONS)
        require_choice(self, "volume", VOLUMES)
        require_choice(self, "spatial", SPATIAL_LAYERS)
        require_positive(self, "feature_width", "hidden_width", "layers", "heads", "prompts", "window_size")
        require_bool(self, "classwise", "decoder", "fold_padding")
        for name in ("resolution", "pooling_size", "decoder_widths"):
            self._require_pair(name, getattr(self, name), least=1)
        if self.test_pooling_size is not None:
            self._require_pair("test_pooling_size", self.test_pooling_size, least=1)
        for name in ("text_guidance", "appearance_guidance"):
            self._require_pair(name, getattr(self, name))
        if len(self.decoder_guidance) != 2:
            raise ValueError(f"decoder_guidance must hold two pairs of widths, got {self.decoder_guidance!r}")
        for pair in self.decoder_guidance:
            self._require_pair("decoder_guidance", pair)
        object.__setattr__(self, "decoder_guidance", tuple(map(tuple, self.decoder_guidance)))
        if self.class_padding is not None:
            require_count(self, "class_padding")
        if self.class_chunk is not None:
            require_positive(self, "class_chunk")
        self._require_fit()

    def _require_pair(self, name: str, value: Any, least: int = 0) -> None:
        """Make the named field a tuple; raise ValueError unless it holds two integers of at least ``least``."""
        legal = isinstance(value, Sequence) and len(value) == 2
        if not legal or not all(type(number) is int and number >= least for number in value):
            raise ValueError(f"{name} must hold two integers >= {least}, got {value!r}")
        if name != "decoder_guidance":
            object.__setattr__(self, name, tuple(value))

    def _require_fit(self) -> None:
        """Raise ValueError where one option does not fit another."""
        if self.version == "2023" and self.class_padding:
            raise ValueError(f"class_padding must be null with version 2023, which has none, got {self.class_padding}")
        require_divisible("hidden_width", self.hidden_width, self.heads, BOTTLENECK if self.spatial == "conv" else 1)
        if self.text_guidance_width and self.text_guidance[0] != self.feature_width:
            raise ValueError(
                f"text_guidance must start with feature_width {self.feature_width}, got {self.text_guidance[0]}: the text "
                "features are the guidance"
            )
        if self.spatial == "swin":
            window_layout(self.grid, self.window_size, shifted=False)
        for name in ("pooling_size", "test_pooling_size"):
            pooling = getattr(self, name)
            if pooling is not None and any(p > edge for p, edge in zip(pooling, self.grid, strict=True)):
                raise ValueError(f"{name} must be at most resolution {self.grid}, got {pooling}")
        if self.decoder:
            for width in self.decoder_widths:
                require_groups("decoder_widths", width)
            sources = (self.hidden_width, self.decoder_widths[0])
            for guidance, source in zip(self.decoder_guidance_widths, sources, strict=True):
                if guidance >= source:
                    raise ValueError(
                        f"decoder_guidance must be projected to less than the {source} channels that it is set beside, "
                        f"got {guidance}"
                    )

    @property
    def grid(self) -> tuple[int, int]:
        """The resolution."""
        return self.resolution[0], self.resolution[1]

    @property
    def text_guidance_width(self) -> int:
        """Width of the projected text guidance, 0 where there is none."""
        return self.text_guidance[1] if self.classwise and all(self.text_guidance) else 0

    @property
    def appearance_guidance_width(self) -> int:
        """Width of the projected appearance guidance, 0 where there is none."""
        return self.appearance_guidance[1] if self.spatial != "none" and all(self.appearance_guidance) else 0

    @property
    def decoder_guidance_widths(self) -> tuple[int, ...]:
        """Widths of the projected decoder guidances, 0 where there is none."""
        pairs = zip(*self.decoder_guidance, strict=True)
        return tuple(width if self.decoder and source else 0 for source, width in pairs)

    @property
    def padding(self) -> int:
        """Number that classes are filled up to and cut off at; 0: neither."""
        return (self.class_padding or 0) if self.classwise else 0

    def pooling(self, *, training: bool) -> tuple[int, int]:
        """Rows and columns that are pooled in the class layers, in that mode."""
        pooling = self.pooling_size if training else self.test_pooling_size or self.pooling_size
        return pooling[0], pooling[1]


PRESETS: dict[str, CATSegAggregatorConfig] = {
    "tiny": CATSegAggregatorConfig(
        feature_width=64,
        hidden_width=32,
        resolution=(12, 12),
        window_size=6,
        test_pooling_size=(1, 1),
        text_guidance=(64, 32),
        appearance_guidance=(32, 32),
        decoder_guidance=((16, 8), (8, 8)),
        decoder_widths=(32, 16),
        class_padding=None,
    ),
    "small": CATSegAggregatorConfig(
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
    ),
    "paper": CATSegAggregatorConfig(test_pooling_size=(1, 1)),
}


class AggregatorLayer(nn.Module):
    """Aggregation over space, then over classes; either may be missing."""

    def __init__(self, config: CATSegAggregatorConfig) -> None:
        super().__init__()
        width, guidance = config.hidden_width, config.appearance_guidance_width
        self.swin_block: WindowedBlocks | None = None
        self.conv_block: ConvBlocks | None = None
        if config.spatial == "swin":
            self.swin_block = WindowedBlocks(width, guidance, config.heads, config.grid, config.window_size)
        elif config.spatial == "conv":
            self.conv_block = ConvBlocks(width, guidance)
        self.attention: ClassBlock | None = None
        if config.classwise:
            self.attention = ClassBlock(
                width,
                config.text_guidance_width,
                config.heads,
                config.attention,
                config.padding,
                fold=config.fold_padding,
            )

    def forward(
        self, x: Tensor, appearance: Tensor | None, text: Tensor | None, pooling: tuple[int, int], chunk: int | None
    ) -> Tensor:
        """Aggregate once.

        Args:
            x: [B, T, h, w, D].
            appearance: [B, h, w, G], projected.
            text: [B or 1, T, G], projected.
            pooling: rows and columns that are averaged to one place before classes read one another.
            chunk: classes that are computed at once; None: all.

        Returns:
            [B, T, h, w, D].
        """
        spatial: Any = self.swin_block or self.conv_block
        if spatial is not None:
            guided = None if appearance is None else spatial.guide(appearance)
            x = in_chunks(lambda part: spatial(part, guided), x, chunk, dim=1)
        if self.attention is not None:
            places = None if chunk is None else max(1, chunk * x.shape[2] * x.shape[3] // x.shape[1])
            x = self.attention(x, text, pooling, places)
        return x


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

        guidance = config.appearance_guidance_width
        flops += samples * 18 * places * config.appearance_guidance[0] * guidance
        flops += texts * classes * 2 * config.text_guidance[0] * config.text_guidance_width
        flops += config.layers * self._class_flops(grid, classes, samples, texts, published=published)
        if config.spatial == "swin":
            per_map = windowed_flops(grid, config.window_size, width)
            shared = windowed_guidance_flops(places, guidance, width)
            flops += config.layers * samples * (classes * per_map + each * shared)
        elif config.spatial == "conv":
            shared = conv_guidance_flops(places, guidance, width)
            flops += config.layers * samples * (classes * conv_flops(places, width) + each * shared)
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

    def _class_flops(self, grid: tuple[int, int], classes: int, samples: int, texts: int, *, published: bool) -> int:
        """Of one layer."""
        config = self.config
        if not config.classwise:
            return 0
        rows, columns = config.pooling(training=self.training)
        pooled = (grid[0] // rows) * (grid[1] // columns)
        missing = max(0, config.padding - classes)
        tokens = classes + (min(1, missing) if config.fold_padding and not published else missing)
        flops = samples * class_flops(pooled, tokens, config.hidden_width, config.heads, config.attention)
        shared = class_guidance_flops(tokens, config.text_guidance_width, config.hidden_width)
        return flops + shared * (samples * pooled if published else texts)


def _shared(text: Tensor) -> bool:
    """Whether the text features [B, T, P, C] are the same for all samples by construction."""
    return len(text) == 1 or text.stride(0) == 0
