"""CLIP's two towers for dense prediction, out of parts that open_clip builds (`models.layers.clip_weights`).

The image tower gives a feature for every patch: its last block passes values on without attention (MaskCLIP, Zhou et al.
2022). Attention weights are kept apart as ``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight``, as in the published
checkpoints of CAT-Seg, so that they can be trained apart. All other names are OpenAI's, which are open_clip's.

Axes: B pictures, N texts, L tokens, g x g grid of patches, D width of a tower, C channels that both towers share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.image_tower import ImageMaps, Pixels
from models.layers.sliding_window import bilinear
from models.layers.vit import block_flops

PARTS = ("q", "k", "v")
UPSAMPLING = (2, 4)
"""How much finer than the grid the guidance maps of the decoder are."""


class SplitAttention(nn.Module):
    """Multi-head self-attention with a weight for each of queries, keys and values, and one bias for all."""

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        """Take the weights over."""
        super().__init__()
        self.heads = fused.num_heads
        for part, weight in zip(PARTS, fused.in_proj_weight.chunk(3), strict=True):
            setattr(self, f"{part}_proj_weight", nn.Parameter(weight.detach().clone()))
        self.in_proj_bias = fused.in_proj_bias
        self.out_proj = fused.out_proj

    def part(self, name: str, x: Tensor) -> Tensor:
        """Queries, keys or values of [B, L, D], all heads side by side."""
        bias = self.in_proj_bias.chunk(3)[PARTS.index(name)]
        return F.linear(x, getattr(self, f"{name}_proj_weight"), bias)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """[B, L, D] -> [B, L, D]; ``causal``: a token reads those up to itself."""
        queries, keys, values = (self.part(name, x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in PARTS)
        out = F.scaled_dot_product_attention(queries, keys, values, is_causal=causal)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class CLIPTowers(nn.Module):
    """Dense image tower and text tower of a CLIP model; its `image` is the one, itself the other, as a `TextTower`.

    Its parameters bear the names of ``clip_model.`` in published checkpoints.
    """

    visual: Any
    transformer: Any
    unread: tuple[str, ...] = ("visual.",)

    def __init__(self, clip: Any, own_residual: bool) -> None:
        """Take the parts of an open_clip model over.

        Args:
            clip: an ``open_clip`` model with a plain vision transformer and a plain text transformer.
            own_residual: whether in the last image block each patch is added to its own value, as in CAT-Seg of 2023;
                otherwise the class token is, as in that of 2024.
        """
        super().__init__()
        self.own_residual = own_residual
        self.pixels = Pixels(*(clip.visual.preprocess_cfg[key] for key in ("mean", "std")))
        self.visual, self.transformer = clip.visual, clip.transformer
        self.token_embedding, self.ln_final = clip.token_embedding, clip.ln_final
        self.positional_embedding, self.text_projection = clip.positional_embedding, clip.text_projection
        self.logit_scale = clip.logit_scale
        for block in (*self.visual.transformer.resblocks, *self.transformer.resblocks):
            block.attn = SplitAttention(block.attn)

    @property
    def channels(self) -> int:
        """C."""
        return int(self.text_projection.shape[1])

    @property
    def encoded_width(self) -> int:
        """Of a text's feature, C."""
        return self.channels

    @property
    def image_width(self) -> int:
        """D of the image tower."""
        return int(self.visual.conv1.out_channels)

    @property
    def patch_size(self) -> int:
        """Edge of a patch in pixels."""
        return int(self.visual.conv1.kernel_size[0])

    def guidance_layers(self, wanted: Sequence[int] | None) -> tuple[int, int]:
        """Image blocks, counted from 0, whose outputs guide the decoder: at a third and at two thirds, unless told.

        Raises:
            ValueError: the tower has too few blocks; the last one's output, which is dense, is no guidance.
        """
        depth = len(self.visual.transformer.resblocks)
        first, second = wanted or (depth // 3 - 1, 2 * depth // 3 - 1)
        if not 0 <= first < depth - 1 or not 0 <= second < depth - 1:
            raise ValueError(
                f"guidance_layers must be blocks before the last of the image tower's {depth}, 0 to {depth - 2}, got "
                f"{[first, second]}: name others, or take a deeper clip_model"
            )
        return first, second

    def position(self, grid: tuple[int, int]) -> Tensor:
        """The image tower's position table [1 + h w, D], resized bicubically where the grid is another one."""
        table = self.visual.positional_embedding
        edge = round((len(table) - 1) ** 0.5)
        if grid == (edge, edge):
            return table
        patches = table[1:].T.unflatten(1, (edge, edge))[None].float()
        patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False)[0]
        return torch.cat([table[:1], patches.flatten(1).T.to(table.dtype)])

    def dense(self, image: Tensor, grid: tuple[int, int], layers: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """Describe every patch of pictures that are resized to the grid.

        Args:
            image: [B, 3, H, W], RGB in 0..1.
            grid: rows and columns of patches.
            layers: blocks whose patches are wanted too, counted from 0, not the last one.

        Returns:
            [B, C, h, w], and of each layer [B, D, h, w].
        """
        visual, blocks = self.visual, self.visual.transformer.resblocks
        pixels = self.pixels(bilinear(image, (grid[0] * self.patch_size, grid[1] * self.patch_size)))
        x = visual.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        x = visual.ln_pre(x + self.position(grid).to(x.dtype))
        outputs = []
        for block in blocks[:-1]:
            x = x + block.ls_1(block.attn(block.ln_1(x)))
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
            outputs.append(x)
        last, token, x = blocks[-1], x[:, :1], x[:, 1:]
        values = last.ls_1(last.attn.out_proj(last.attn.part("v", last.ln_1(x))))
        x = values + (x if self.own_residual else token)
        x = visual.ln_post(x + last.ls_2(last.mlp(last.ln_2(x)))) @ visual.proj
        maps = [outputs[layer][:, 1:].transpose(1, 2).unflatten(2, grid) for layer in layers]
        return x.transpose(1, 2).unflatten(2, grid), maps

    def dense_flops(self, grid: tuple[int, int]) -> int:
        """Of `dense` on one picture: 2 per multiply-add."""
        patches, d = grid[0] * grid[1], self.image_width
        blocks = self.visual.transformer.resblocks
        mlp = 2 * blocks[0].mlp.c_fc.out_features
        tokens = patches + 1
        full = (len(blocks) - 1) * (2 * tokens * d * (4 * d + mlp) + 4 * tokens**2 * d)
        last = 2 * patches * d * (2 * d + mlp)
        return 2 * patches * self.visual.conv1.weight.numel() + full + last + 2 * patches * d * self.channels

    def encode(self, tokens: Tensor) -> Tensor:
        """[N, L] -> [N, C]: the feature of each text's last token, the one with the highest id.

        Behind it tokens do not matter, so texts need no padding up to the whole context.

        Raises:
            ValueError: texts that are longer than the context.
        """
        context = len(self.positional_embedding)
        if tokens.shape[1] > context:
            raise ValueError(f"names must have at most the {context} tokens of CLIP's context, got {tokens.shape[1]}")
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        for block in self.transformer.resblocks:
            x = x + block.ls_1(block.attn(block.ln_1(x), causal=True))
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
        ends = tokens.argmax(-1)[:, None, None].expand(-1, 1, x.shape[-1])
        return self.ln_final(x.gather(1, ends)[:, 0]) @ self.text_projection

    def project(self, encoded: Tensor) -> Tensor:
        """Nothing is left to do."""
        return encoded

    def encode_flops(self, length: int) -> int:
        """Of one text."""
        d = len(self.text_projection)
        return len(self.transformer.resblocks) * block_flops(length, d) + 2 * self.text_projection.numel()

    def project_flops(self) -> int:
        """None."""
        return 0

    def train_only(self, what: str, *, image: bool, text: bool) -> None:
        """Fix all weights but some.

        Args:
            what: ``qv``: projections of queries and values (the recipe of 2024); ``attention``: all of attention, and the
                position tables (that of 2023); ``full``: all of the blocks; ``all``; ``none``.
            image: whether the image tower is trained.
            text: whether the text tower is.
        """
        for name, weight in self.named_parameters():
            attention = ".attn." in name or name.endswith("positional_embedding")
            chosen = {
                "qv": name.endswith(("q_proj_weight", "v_proj_weight")),
                "attention": attention,
                "full": ".resblocks." in name,
                "all": name != "logit_scale",
                "none": False,
            }[what]
            weight.requires_grad_(chosen and (image if name.startswith("visual.") else text))

    def unused_parameters(self) -> list[str]:
        """What no output depends on: queries and keys of the last image block, and the scale of CLIP's own loss."""
        last = f"visual.transformer.resblocks.{len(self.visual.transformer.resblocks) - 1}.attn."
        return [f"{last}q_proj_weight", f"{last}k_proj_weight", "logit_scale"]


class CLIPImage(nn.Module):
    """What the aggregator reads of a picture through CLIP alone (CAT-Seg of 2024).

    The dense features guide it; outputs of two blocks guide the decoder, the deeper one at the finer of two resolutions.
    """

    towers: CLIPTowers

    def __init__(
        self, towers: CLIPTowers, grid: tuple[int, int], layers: Sequence[int] | None, guidance: Sequence[int]
    ) -> None:
        """Build the up-sampling.

        Args:
            towers: whose image tower is read; not a part of this module.
            grid: rows and columns of tokens.
            layers: as in `CLIPTowers.guidance_layers`.
            guidance: whether the features are wanted as guidance, and the channels at twice and at four times the grid;
                0: not wanted.
        """
        super().__init__()
        self.__dict__["towers"] = towers  # not by setattr, which would register it twice
        self.grid, self.guidance = grid, tuple(guidance)
        wanted = [channels > 0 for channels in guidance[1:]]
        self.layers = towers.guidance_layers(layers) if any(wanted) else (0, 0)
        self.upsample1, self.upsample2 = (
            nn.ConvTranspose2d(towers.image_width, channels, factor, factor) if channels else None
            for channels, factor in zip(guidance[1:], UPSAMPLING, strict=True)
        )

    def forward(self, image: Tensor) -> ImageMaps:
        """[B, 3, H, W] -> the maps."""
        ups = [self.upsample1, self.upsample2]
        layers = [layer for layer, up in zip(self.layers, ups, strict=True) if up is not None]
        features, found = self.towers.dense(image, self.grid, layers)
        maps = iter(found)
        decoder = [None if up is None else up(next(maps)) for up in ups]
        return ImageMaps(features, (features if self.guidance[0] else None, *decoder))

    def flops(self) -> int:
        """Of one picture."""
        ups = [up for up in (self.upsample1, self.upsample2) if up is not None]
        cells = self.grid[0] * self.grid[1]
        return self.towers.dense_flops(self.grid) + sum(2 * cells * up.weight.numel() for up in ups)
