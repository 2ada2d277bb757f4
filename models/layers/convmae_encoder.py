"""The encoder of ConvMAE: two stages of convolution blocks, then a ViT on the coarsest grid.

Gao et al., "ConvMAE: Masked Convolution Meets Masked Autoencoders", and its published code, without what only its
pretraining needs (masking, multi-scale fusion, decoder).

Axes: B pictures, H and W their rows and columns in pixels, hw tokens of a picture, C1, C2 and C widths of the three stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.config import build_config, require_choice, require_positive
from models.layers.conv_blocks import ConvBlock, MapEmbedding, conv_block_flops, embedding_flops
from models.layers.sincos import sincos_grid
from models.layers.vit import Block, block_flops, layer_norm, require_divisible
from models.reference import load_strictly, unwrap_keys

CHANNELS = 3
INIT_STD = 0.02
CONTENT, SHARPNESS = 1.5, 2.0
"""Of ``init: matching``: size of the tokens before their position is added, and factor on queries and keys."""

SIZES: dict[str, dict[str, Any]] = {
    "base": {"widths": (256, 384, 768), "layers": (2, 2, 11), "heads": 12},
    "large": {"widths": (384, 768, 1024), "layers": (2, 2, 20), "heads": 16},
}
"""Published sizes: name -> options."""

PRETRAINING = frozenset(
    [
        "decoder_blocks",
        "decoder_embed",
        "decoder_norm",
        "decoder_pos_embed",
        "decoder_pred",
        "mask_token",
        "stage1_output_decode",
        "stage2_output_decode",
    ]
)
"""First parts of the keys that only masked pretraining has: decoder and multi-scale fusion."""


@dataclass(frozen=True)
class ConvMAEConfig:
    """Size of the encoder; the defaults are ConvMAE-Base at 384 px."""

    image_size: int = 384
    """Edge in pixels of the square picture that the position table is made for; a multiple of the total stride. Other
    sizes and shapes have the table resized, bicubically."""
    widths: Sequence[int] = (256, 384, 768)
    """Channels of the three stages; the last a multiple of ``heads`` and of 4."""
    layers: Sequence[int] = (2, 2, 11)
    """Blocks of the three stages: convolution, convolution, attention."""
    heads: int = 12
    """Heads of an attention block."""
    strides: Sequence[int] = (4, 2, 2)
    """Strides, and kernels, of the three embeddings; their product is the total stride."""
    taps: str = "blocks"
    """Where f4 and f8 are taken: behind the ``blocks`` of their stage, or straight behind its ``embed``."""
    init: str = "published"
    """Weights of linear layers at the start. ``published``: deviation 0.02. ``matching``, for small models from scratch:
    0.02 sqrt(768 / inputs), which is the same at the published width; tokens that say as much of what is seen as of where; keys
    equal to queries and twice as large; a memory frame's picture embedded as the query's. Attention then begins by finding
    tokens that look alike. With logits near 0 a narrow model takes long to attend to anything."""

    def __post_init__(self) -> None:
        for name in ("widths", "layers", "strides"):
            values = getattr(self, name)
            if not isinstance(values, Sequence) or [type(value) for value in values] != [int] * 3 or min(values) < 1:
                raise ValueError(f"{name} must be three integers >= 1, one a stage, got {values!r}")
            object.__setattr__(self, name, tuple(values))
        require_positive(self, "image_size", "heads")
        require_divisible("widths[2]", self.widths[2], self.heads, 4)  # 4: sine and cosine of row and of column
        require_choice(self, "taps", ("blocks", "embed"))
        require_choice(self, "init", ("published", "matching"))
        if self.image_size % self.stride:
            raise ValueError(
                f"image_size must be a multiple of the total stride {self.stride}, got {self.image_size}: "
                f"try {max(1, self.image_size // self.stride) * self.stride}"
            )

    @property
    def stride(self) -> int:
        """Total stride of the three stages: edge of a token in pixels."""
        return prod(self.strides)


class QueryFeatures(NamedTuple):
    """What the convolution trunk makes of a picture, the same for all objects."""

    tokens: Tensor
    """[B, hw, C], row by row, positions added."""
    f4: Tensor
    """[B, C1, H / s, W / s] behind the first stage, of stride s."""
    f8: Tensor
    """[B, C2, ..] behind the second stage."""


class ConvMAEStages(nn.Module):
    """The weights of the encoder, under their published names, and its stages one by one."""

    config: ConvMAEConfig
    embeds: ClassVar[dict[str, int]]
    """First embeddings by name, and the channels that each reads."""

    def __init__(self, config: ConvMAEConfig) -> None:
        super().__init__()
        self.config = config
        (first, second, width), strides = config.widths, config.strides
        for name, channels in self.embeds.items():
            self.add_module(name, MapEmbedding(channels, first, strides[0]))
        self.patch_embed2 = MapEmbedding(first, second, strides[1])
        self.patch_embed3 = MapEmbedding(second, width, strides[2])
        self.patch_embed4 = nn.Linear(width, width)
        self.blocks1 = nn.Sequential(*(ConvBlock(first) for _ in range(config.layers[0])))
        self.blocks2 = nn.Sequential(*(ConvBlock(second) for _ in range(config.layers[1])))
        self.blocks3: Sequence[Any] = nn.ModuleList(  # type: ignore[assignment]
            self.make_block() for _ in range(config.layers[2])
        )
        self.norm = layer_norm(width)
        edge = config.image_size // config.stride
        # The leading row is for a class token, which the checkpoints' table has room for.
        self.pos_embed = nn.Parameter(F.pad(sincos_grid(edge, edge, width), (0, 0, 1, 0))[None])
        matching = config.init == "matching"
        for part in self.modules():
            if isinstance(part, nn.Linear):
                scale = (SIZES["base"]["widths"][2] / part.in_features) ** 0.5 if matching else 1.0
                nn.init.trunc_normal_(part.weight, std=INIT_STD * scale)
                nn.init.zeros_(part.bias)
        if matching:
            self._match()

    @torch.no_grad()
    def _match(self) -> None:
        """Let attention begin by finding tokens that look alike."""
        nn.init.trunc_normal_(self.patch_embed4.weight, std=CONTENT / self.config.widths[2] ** 0.5)
        for block in self.blocks3:
            queries, keys, _ = block.attn.qkv.weight.chunk(3)
            keys.copy_(queries.mul_(SHARPNESS))
        ours, *others = (getattr(self, name).proj for name in self.embeds)
        for other in others:
            other.weight[:, :CHANNELS] = ours.weight
            other.bias.copy_(ours.bias)

    def make_block(self) -> Block:
        """One attention block."""
        return Block(self.config.widths[2], self.config.heads)

    def trunk(self, embed: str, x: Tensor) -> QueryFeatures:
        """Run the stages before attention.

        Args:
            embed: name of the first embedding.
            x: [N, channels, H, W].

        Raises:
            ValueError: channels other than the embedding's, or a size that is no multiple of the total stride.
        """
        channels, stride = self.embeds[embed], self.config.stride
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % stride or x.shape[3] % stride:
            raise ValueError(
                f"pictures must be [B, {channels}, H, W] with H and W multiples of {stride}, got {list(x.shape)}: pad them"
            )
        embedded = self.get_submodule(embed)(x)
        stage1 = self.blocks1(embedded)
        embedded2 = self.patch_embed2(stage1)
        stage2 = self.blocks2(embedded2)
        stage3 = self.patch_embed3(stage2)
        tokens = self.patch_embed4(stage3.flatten(2).transpose(1, 2)) + self.positions(*stage3.shape[2:])
        return QueryFeatures(tokens, *((stage1, stage2) if self.config.taps == "blocks" else (embedded, embedded2)))

    def positions(self, rows: int, columns: int) -> Tensor:
        """The position table [1, rows * columns, C], resized where the grid is not the configured one."""
        edge = self.config.image_size // self.config.stride
        table = self.pos_embed[:, 1:]
        if (rows, columns) == (edge, edge):
            return table
        grid = table.transpose(1, 2).unflatten(2, (edge, edge))
        return F.interpolate(grid, size=(rows, columns), mode="bicubic").flatten(2).transpose(1, 2)

    def to_map(self, tokens: Tensor, f8: Tensor) -> Tensor:
        """Norm tokens [N, hw, C] and lay them out as [N, C, h16, w16], on the grid below ``f8`` [B, C2, h8, w8]."""
        stride = self.config.strides[2]
        return self.norm(tokens).transpose(1, 2).unflatten(2, (f8.shape[2] // stride, f8.shape[3] // stride))

    def trunk_flops(self, height: int, width: int, channels: int = CHANNELS) -> int:
        """FLOPs of `trunk` on one picture of ``height`` x ``width`` pixels: 2 per multiply-add."""
        flops, pixels = 0, height * width
        for index, (out, stride) in enumerate(zip(self.config.widths, self.config.strides, strict=True)):
            pixels //= stride**2
            flops += embedding_flops(pixels, channels, out, stride)
            if index < 2:
                flops += self.config.layers[index] * conv_block_flops(pixels, out)
            channels = out
        return flops + 2 * pixels * channels**2


class ConvMAE(ConvMAEStages):
    """The encoder of pictures, whole."""

    config_class: ClassVar[type[ConvMAEConfig]] = ConvMAEConfig
    embeds: ClassVar[dict[str, int]] = {"patch_embed1": CHANNELS}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Describe pictures [B, 3, H, W] by f4 [B, C1, ..], f8 [B, C2, ..] and f16 [B, C, ..]."""
        tokens, f4, f8 = self.trunk("patch_embed1", image)
        for block in self.blocks3:
            tokens = block(tokens)
        return {"f16": self.to_map(tokens, f8), "f8": f8, "f4": f4}

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of a forward pass on ``image`` [B, 3, H, W]: 2 per multiply-add, products, convolutions, attention."""
        samples, _, height, width = batch["image"].shape
        tokens = height * width // self.config.stride**2
        blocks = self.config.layers[2] * block_flops(tokens, self.config.widths[2])
        return samples * (self.trunk_flops(height, width) + blocks)

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> Self:
        """Build the encoder from a published checkpoint.

        Args:
            state: as `encoder_weights` takes it. Its position table is dropped, for that of the configuration.
            **config: the options of the configuration.

        Raises:
            ValueError: an unknown option, or a key that is missing, superfluous or of another shape.
        """
        model = cls(build_config(cls.config_class, config))
        load_strictly(model, {"pos_embed": model.pos_embed, **encoder_weights(state)})
        return model


def encoder_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The encoder's weights in a published checkpoint, of pretraining or of the encoder alone, without position table.

    Args:
        state: its state dict, or the file's dict that holds it under ``model``; wrapper prefixes are stripped. Exactly
            ``pos_embed`` and `PRETRAINING` are dropped.
    """
    dropped = PRETRAINING | {"pos_embed"}
    return {key: value for key, value in unwrap_keys(state).items() if key.split(".")[0] not in dropped}
