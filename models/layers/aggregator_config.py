"""Options of CAT-Seg's aggregator (`models.catseg_aggregator`), their checks and presets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.layers.class_attention import CLASS_ATTENTIONS
from models.layers.config import require_bool, require_choice, require_count, require_positive
from models.layers.guided_decoder import require_groups
from models.layers.vit import require_divisible
from models.layers.windowed_blocks import BOTTLENECK, window_layout

VERSIONS = ("2023", "2024")
VOLUMES = ("cost", "feature")
SPATIAL_LAYERS = ("swin", "conv", "none")


@dataclass(frozen=True)
class CATSegAggregatorConfig:
    """Size and variant; the defaults are the published aggregator of 2024 on CLIP ViT-L/14."""

    version: str = "2024"
    """``2023`` has no class padding. In `models.catseg` CLIP's last image block, too, is that of the version."""
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
    where they do: the same values with less memory. Costs, hidden maps and logits of all classes are held nonetheless. Null:
    all at once."""

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
        if self.fold_padding and not self.class_padding:
            raise ValueError("fold_padding must be false without class_padding, where it has no effect, got True")
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
