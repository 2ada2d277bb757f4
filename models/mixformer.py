"""MixFormer on CvT: a tracker with three stages of convolutional embedding and mixed attention.

Cui et al., "MixFormer: End-to-End Tracking with Iterative Mixed Attention" (CVPR 2022), and its published code; what all
MixFormers have stands in `models.layers.mixed_tracker`.

Axes: B samples, C channels of the last stage, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from models.layers.config import require_bool
from models.layers.conv_attention import (
    ConvEmbed,
    KeysValues,
    Layout,
    Maps,
    MixedBlock,
    embed_flops,
    mixed_block_flops,
    to_maps,
)
from models.layers.corner_head import CornerHead, corner_head_flops
from models.layers.mixed_tracker import MixedTracker, MixedTrackerConfig
from models.layers.score_branch import ScoreBranch
from models.layers.vit import require_divisible

STAGES = 3
STRIDE = 16
"""Pixels between two cells of the last stage."""
EMBED_KERNELS = (7, 3, 3)
EMBED_STRIDES = (4, 2, 2)
SMALLEST = 3
"""Pixels of the smallest picture that the first embedding can read."""
WEIGHT_STD = 0.02
"""Standard deviation of initial linear weights."""
DEAD_WEIGHTS = frozenset(f"backbone.{part}.{kind}" for part in ("norm", "head") for kind in ("weight", "bias"))
"""Weights of published checkpoints that nothing reads: the classifier of CvT's pretraining and the norm before it."""


@dataclass(frozen=True)
class MixFormerCvTConfig(MixedTrackerConfig):
    """Size and variant of the model; the defaults are the published tracker on CvT-21. Odd pictures are fine too."""

    widths: Sequence[int] = (64, 192, 384)
    """Channels of each stage; a multiple of its heads."""
    layers: Sequence[int] = (1, 4, 16)
    """Blocks of each stage."""
    heads: Sequence[int] = (1, 3, 6)
    """Attention heads of each stage."""
    drop_path: Sequence[float] = (0.0, 0.0, 0.1)
    """Probability of dropping a residual branch in training at the last block of each stage; from 0 at the first block of
    the stage it grows linearly."""
    freeze_batch_norm: bool = True
    """Whether the batch norms of the attention projections are fixed buffers, as published, where a pretrained backbone
    sets them; from scratch they then do nothing. Otherwise they learn, and the same checkpoints load. The corner head's
    batch norms always learn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("search_size", "template_size"):
            if getattr(self, name) < SMALLEST:
                raise ValueError(f"{name} must be at least {SMALLEST} pixels, got {getattr(self, name)}")
        for name in ("widths", "layers", "heads", "drop_path"):
            self._require_stages(name)
        for width, heads in zip(self.widths, self.heads, strict=True):
            require_divisible("widths", width, heads)
        require_bool(self, "freeze_batch_norm")

    def _require_stages(self, name: str) -> None:
        """Make the named field a tuple; raise ValueError unless it has a legal number for each stage."""
        values = getattr(self, name)
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != STAGES:
            raise ValueError(f"{name} must be a list of {STAGES} numbers, one a stage, got {values!r}")
        if name == "drop_path":
            if not all(type(value) in (int, float) and 0 <= value < 1 for value in values):
                raise ValueError(f"drop_path must hold numbers >= 0 and below 1, got {list(values)}")
        elif not all(type(value) is int and value >= 1 for value in values):
            raise ValueError(f"{name} must hold integers >= 1, got {list(values)}")
        object.__setattr__(self, name, tuple(values))


CVT_W24: dict[str, Any] = {
    "widths": (192, 768, 1024),
    "layers": (2, 2, 12),
    "heads": (3, 12, 16),
    "drop_path": (0.0, 0.0, 0.3),
}
"""Options of the published large tracker, on CvT-w24."""

PRESETS: dict[str, MixFormerCvTConfig] = {
    "tiny": MixFormerCvTConfig(
        search_size=96,
        template_size=32,
        widths=(16, 48, 96),
        layers=(1, 1, 3),
        heads=(1, 3, 6),
        head_width=48,
        drop_path=(0.0, 0.0, 0.0),
        freeze_batch_norm=False,
    ),
    "small": MixFormerCvTConfig(
        search_size=192,
        template_size=64,
        widths=(32, 96, 192),
        layers=(1, 2, 6),
        heads=(1, 3, 6),
        head_width=192,
        drop_path=(0.0, 0.0, 0.0),
        freeze_batch_norm=False,
    ),
    "paper": MixFormerCvTConfig(),
}


class Stage(nn.Module):
    """An embedding and its blocks."""

    def __init__(self, config: MixFormerCvTConfig, stage: int) -> None:
        super().__init__()
        width, layers, rate = config.widths[stage], config.layers[stage], config.drop_path[stage]
        channels = config.widths[stage - 1] if stage else 3
        self.patch_embed = ConvEmbed(channels, width, EMBED_KERNELS[stage], EMBED_STRIDES[stage])
        self.blocks = nn.ModuleList(
            MixedBlock(
                width,
                config.heads[stage],
                asymmetric=config.attention == "asymmetric",
                freeze_batch_norm=config.freeze_batch_norm,
                drop_path=rate * layer / max(1, layers - 1),
            )
            for layer in range(layers)
        )

    def shrink(self, layout: Layout) -> list[Maps]:
        """Layout of the stage's tokens, given that of the pictures or maps that it embeds."""
        return [Maps(maps.number, self.patch_embed.size(maps.size)) for maps in layout]


class MixFormerCvT(MixedTracker):
    """Tracker with mixed attention and corner head; parameters bear the names of the published checkpoints."""

    config: MixFormerCvTConfig
    config_class = MixFormerCvTConfig
    dead_weights = DEAD_WEIGHTS
    stride = STRIDE

    def __init__(self, config: MixFormerCvTConfig) -> None:
        super().__init__(config)
        self.backbone = nn.ModuleDict({f"stage{stage}": Stage(config, stage) for stage in range(STAGES)})
        cells = config.search_size
        for stage in self.stages:
            cells = stage.patch_embed.size(cells)
        self.box_head = CornerHead(
            config.widths[-1], config.head_width, stride=STRIDE, size=config.search_size, cells=cells
        )
        self.score_branch = ScoreBranch(config.widths[-1], config.heads[-1]) if config.score_branch else None
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=WEIGHT_STD)
                nn.init.zeros_(part.bias)

    @property
    def stages(self) -> list[Stage]:
        """The stages in order."""
        return list(self.backbone.values())  # type: ignore[arg-type]

    def embed(self, name: str, pictures: Tensor) -> Tensor:
        """The first stage's, the same for all pictures."""
        return self.stages[0].patch_embed([pictures.flatten(0, 1)], pictures.shape[0])

    def mix(self, x: Tensor, layout: Layout, kept: Sequence[KeysValues] = ()) -> tuple[list[Tensor], list[KeysValues]]:
        """All stages, from the blocks of the first on."""
        blocks: list[KeysValues] = []
        for stage, module in enumerate(self.stages):
            if stage:
                x = module.patch_embed(to_maps(x, layout), x.shape[0])
            layout = module.shrink(layout)
            for block in module.blocks:
                x, own = block(x, layout, kept[len(blocks)] if kept else None)
                blocks.append(own)
        return to_maps(x, layout), blocks

    def embed_flops(self, pictures: Layout) -> int:
        """Of the first stage's embedding."""
        return self._embed_flops(0, pictures)

    def backbone_flops(self, pictures: Layout) -> int:
        """Of all stages."""
        flops, layout = 0, pictures
        for stage, (width, layers) in enumerate(zip(self.config.widths, self.config.layers, strict=True)):
            flops += self._embed_flops(stage, layout)
            layout = self.stages[stage].shrink(layout)
            flops += layers * mixed_block_flops(width, layout, asymmetric=self.asymmetric)
        return flops

    def head_flops(self) -> int:
        """Of both towers."""
        return corner_head_flops(self.config.widths[-1], self.config.head_width, len(self.box_head.coordinates))

    def _embed_flops(self, stage: int, layout: Layout) -> int:
        module = self.stages[stage]
        return embed_flops(module.patch_embed, module.shrink(layout))
