"""MixFormer on a plain ViT: a tracker whose tokens of template and search pictures share every attention.

Cui et al., "MixFormer: End-to-End Tracking with Iterative Mixed Attention" (journal version, MixViT), and its published
code; what all MixFormers have stands in `models.layers.mixed_tracker`. Against the one on CvT there is one grid from the
first block to the last, positions are fixed tables, keys and values are not strided, and the corner head is a pyramid.

Axes: B samples, C channels, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from models.layers.config import require_choice, require_positive
from models.layers.conv_attention import KeysValues, Layout, Maps, to_maps
from models.layers.corner_head import CornerHead, PyramidCornerHead, corner_head_flops, pyramid_corner_head_flops
from models.layers.mixed_tracker import MixedTracker, MixedTrackerConfig
from models.layers.mixed_vit import MixedViTBlock, mixed_vit_block_flops
from models.layers.score_branch import ScoreBranch
from models.layers.sincos import sincos_grid
from models.layers.vit import require_divisible

HEADS = ("pyramid", "corner")
CHANNELS = 3
WEIGHT_STD = 0.02
"""Standard deviation of initial linear weights."""
DEAD_WEIGHTS = frozenset(
    f"backbone.{name}" for name in ("cls_token", "pos_embed", "norm.weight", "norm.bias", "head.weight", "head.bias")
)
"""Weights of published checkpoints that nothing reads: what else a ViT for classification has."""


@dataclass(frozen=True)
class MixFormerViTConfig(MixedTrackerConfig):
    """Size and variant of the model; the defaults are the published tracker on ViT-B."""

    search_size: int = 288
    """Edge of the square search pictures in pixels; a multiple of ``patch_size``, like ``template_size``."""
    patch_size: int = 16
    """Edge of a token in pixels."""
    width: int = 768
    """Channels of a token; a multiple of ``heads`` and of 4."""
    layers: int = 12
    """Blocks."""
    heads: int = 12
    """Attention heads of a block."""
    head: str = "pyramid"
    """What reads the box: towers that grow to four cells a token and see the features again (``pyramid``), or plain ones
    (``corner``)."""
    drop_path: float = 0.1
    """Probability of dropping a residual branch in training at the last block; from 0 at the first it grows linearly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "patch_size", "width", "layers", "heads")
        for name in ("search_size", "template_size"):
            size, patch = getattr(self, name), self.patch_size
            if size % patch:
                raise ValueError(
                    f"{name} must be a multiple of patch_size {patch}, got {size}: try {max(1, size // patch) * patch}"
                )
        require_divisible("width", self.width, self.heads, 4)  # 4: sine and cosine of row and of column
        require_choice(self, "head", HEADS)
        if type(self.drop_path) not in (int, float) or not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be a number >= 0 and below 1, got {self.drop_path!r}")


VIT_L: dict[str, Any] = {"search_size": 384, "template_size": 192, "width": 1024, "layers": 24, "heads": 16}
"""Options of the published large tracker, on ViT-L."""

PRESETS: dict[str, MixFormerViTConfig] = {
    "tiny": MixFormerViTConfig(
        search_size=96, template_size=32, patch_size=8, width=64, layers=3, heads=4, head_width=48, drop_path=0.0
    ),
    "small": MixFormerViTConfig(
        search_size=192, template_size=64, width=384, layers=6, heads=6, head_width=192, drop_path=0.0
    ),
    "paper": MixFormerViTConfig(),
}


class PatchEmbed(nn.Module):
    """Linear map of square patches."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(CHANNELS, width, patch_size, patch_size)

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, 3, e, e] -> [B, tokens, C], row by row."""
        return self.proj(pictures).flatten(2).transpose(1, 2)


class MixedViT(nn.Module):
    """The backbone: patches, a table of positions for each size of picture, blocks."""

    pos_embed_t: Tensor
    pos_embed_s: Tensor

    def __init__(self, config: MixFormerViTConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.patch_size, config.width)
        for name, size in (("pos_embed_t", config.template_size), ("pos_embed_s", config.search_size)):
            cells = size // config.patch_size
            self.register_buffer(name, sincos_grid(cells, cells, config.width)[None])
        self.blocks = nn.ModuleList(
            MixedViTBlock(
                config.width,
                config.heads,
                asymmetric=config.attention == "asymmetric",
                drop_path=config.drop_path * layer / max(1, config.layers - 1),
            )
            for layer in range(config.layers)
        )


class MixFormerViT(MixedTracker):
    """Tracker with mixed attention and corner head; parameters bear the names of the published checkpoints."""

    config: MixFormerViTConfig
    config_class = MixFormerViTConfig
    dead_weights = DEAD_WEIGHTS

    def __init__(self, config: MixFormerViTConfig) -> None:
        super().__init__(config)
        self.stride = config.patch_size
        self.backbone = MixedViT(config)
        head = PyramidCornerHead if config.head == "pyramid" else CornerHead
        self.box_head = head(
            config.width, config.head_width, stride=self.stride, size=config.search_size, cells=self._cells
        )
        self.score_branch = ScoreBranch(config.width, config.heads) if config.score_branch else None
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=WEIGHT_STD)
                nn.init.zeros_(part.bias)

    def embed(self, name: str, pictures: Tensor) -> Tensor:
        """Patches and their positions."""
        tokens = self.backbone.patch_embed(pictures.flatten(0, 1))
        table = self.backbone.pos_embed_s if name == "search" else self.backbone.pos_embed_t
        return (tokens + table).unflatten(0, pictures.shape[:2]).flatten(1, 2)

    def mix(self, x: Tensor, layout: Layout, kept: Sequence[KeysValues] = ()) -> tuple[list[Tensor], list[KeysValues]]:
        """All blocks; no norm behind the last, as published."""
        layout = self._grids(layout)
        blocks: list[KeysValues] = []
        for index, block in enumerate(self.backbone.blocks):
            x, own = block(x, layout, kept[index] if kept else None)
            blocks.append(own)
        return to_maps(x, layout), blocks

    def embed_flops(self, pictures: Layout) -> int:
        """Of the patches."""
        tokens = sum(maps.tokens for maps in self._grids(pictures))
        return 2 * tokens * CHANNELS * self.config.patch_size**2 * self.config.width

    def backbone_flops(self, pictures: Layout) -> int:
        """Of patches and blocks."""
        block = mixed_vit_block_flops(self.config.width, self._grids(pictures), asymmetric=self.asymmetric)
        return self.embed_flops(pictures) + self.config.layers * block

    def head_flops(self) -> int:
        """Of both towers."""
        count = pyramid_corner_head_flops if self.config.head == "pyramid" else corner_head_flops
        return count(self.config.width, self.config.head_width, self._cells)

    @property
    def _cells(self) -> int:
        """Edge of the search picture's grid."""
        return self.config.search_size // self.config.patch_size

    def _grids(self, pictures: Layout) -> list[Maps]:
        """Layout of the tokens, given that of the pictures."""
        return [Maps(maps.number, maps.size // self.config.patch_size) for maps in pictures]
