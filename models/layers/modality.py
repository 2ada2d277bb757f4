"""Encoder and decoder of one modality of a masked autoencoder; both work on sequences, and nothing is pooled.

Axes: B samples, N encoded tokens (the one that is never hidden first), M predicted tokens, E width of the encoder,
D width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.layers.feature_maps import FeatureMaps, feature_map_flops
from models.layers.packed import Ragged, layout
from models.layers.tokens import learned_token
from models.layers.vit import Block, CrossBlock, block_flops, cross_block_flops, layer_norm

DecoderKind = Literal["cross", "self"]


class Encoded(NamedTuple):
    """What a decoder reads."""

    maps: Sequence[Tensor]
    """The encoder's output, or, for weighted feature maps, several of its layers; [B, N, E] each."""
    mask: Tensor | None = None
    """[B, N] bool, True for a real token; None where all are."""
    positions: Tensor | None = None
    """Embedding of the tokens' positions in the decoder's width, [B, N, D]; read by decoders of kind ``self`` only."""


class ModalityEncoder(nn.Module):
    """Pre-norm transformer blocks with a final norm, or, for weighted feature maps, the maps of some layers, not normed.

    Args:
        width: channels E of a token.
        layers: number of blocks.
        heads: attention heads.
        map_layers: numbers (from 0) of the blocks whose outputs are returned; None returns the normed end alone. Blocks
            behind the last of them are there, but do not run.
        use_input: whether the tokens before the first block are one more map, the first.
        ragged: how to run on sequences with padding.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        map_layers: Sequence[int] | None = None,
        use_input: bool = False,
        ragged: Ragged = "auto",
    ) -> None:
        super().__init__()
        self.width, self.head_dim, self.ragged, self.use_input = width, width // heads, ragged, use_input
        self.map_layers = map_layers
        self.layers_run = layers if map_layers is None else max(map_layers) + 1
        self.blocks: Sequence[Block] = nn.ModuleList(Block(width, heads) for _ in range(layers))  # type: ignore[assignment]
        self.norm = layer_norm(width) if map_layers is None else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """[B, N, E], mask [B, N] bool -> maps, [B, N, E] each, what stands in padding without meaning."""
        sequences = layout(mask, x, self.head_dim, self.ragged)
        x = sequences.pack(x)
        maps = [x] if self.use_input else []
        for layer, block in enumerate(self.blocks[: self.layers_run]):
            x = sequences.block(block, x)
            if self.map_layers is not None and layer in self.map_layers:
                maps.append(x)
        if self.norm is not None:
            maps = [self.norm(x)]
        return [sequences.unpack(one) for one in maps]

    def flops(self, tokens: int) -> int:
        """FLOPs of one sample with N = ``tokens``; 2 per multiply-add, matrix products and attention."""
        return self.layers_run * block_flops(tokens, self.width)


class ModalityDecoder(nn.Module):
    """Predict the numbers of masked tokens from an encoded sequence and from the positions of the tokens.

    Args:
        width: channels D.
        source_width: channels E of the encoded tokens.
        layers: number of blocks.
        heads: attention heads.
        numbers: what to predict of each token.
        kind: ``cross``: the predicted tokens read the encoded ones and, unless ``self_attention``, not one another
            (CrossMAE). ``self``: encoded tokens, in the decoder's width, and predicted ones all read one another (MAE).
        self_attention: for ``cross``, let the predicted tokens read one another before.
        maps: number of feature maps to mix anew for each block; 0 reads the encoder's output.
        ragged: how to run on sequences with padding.
    """

    def __init__(
        self,
        width: int,
        source_width: int,
        layers: int,
        heads: int,
        numbers: int,
        *,
        kind: DecoderKind = "cross",
        self_attention: bool = False,
        maps: int = 0,
        ragged: Ragged = "auto",
    ) -> None:
        super().__init__()
        self.width, self.source_width, self.ragged = width, source_width, ragged
        self.head_dim, self.self_attention, self.maps = width // heads, self_attention, maps
        self.mask_token = learned_token(width)
        self.embed = nn.Linear(source_width, width) if kind == "self" else None
        self.feature_maps = FeatureMaps(maps, layers, source_width) if maps else None
        self.blocks: Sequence[Any] = nn.ModuleList(  # type: ignore[assignment]
            Block(width, heads) if kind == "self" else CrossBlock(width, source_width, heads, self_attention)
            for _ in range(layers)
        )
        self.norm = layer_norm(width)
        self.head = nn.Linear(width, numbers)

    def forward(self, positions: Tensor, encoded: Encoded, mask: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            positions: embedding of the positions of the predicted tokens, [B, M, D].
            encoded: what is known.
            mask: [B, M] bool, True for a real token; None where all are.

        Returns:
            [B, M, numbers] fp32; zero in the padding.
        """
        source, source_mask = encoded.maps[0], encoded.mask
        if mask is not None or source_mask is not None:
            if mask is None:
                mask = positions.new_ones(positions.shape[:2], dtype=torch.bool)
            if source_mask is None:
                source_mask = source.new_ones(source.shape[:2], dtype=torch.bool)
        queries = self.mask_token + positions
        if self.embed is None:
            decoded = self._read(queries, mask, encoded.maps, source_mask)
        else:
            source = self.embed(source)
            if encoded.positions is not None:
                source = source + encoded.positions
            decoded = self._join(queries, mask, source, source_mask)
        numbers = self.head(self.norm(decoded)).float()
        return numbers if mask is None else numbers.masked_fill(~mask[..., None], 0)

    def _read(self, queries: Tensor, mask: Tensor | None, maps: Sequence[Tensor], source_mask: Tensor | None) -> Tensor:
        """Form ``cross``: -> [B, M, D]."""
        tokens = layout(mask, queries, self.head_dim, self.ragged)
        sources = layout(source_mask, maps[0], self.head_dim, self.ragged, readers=tokens)
        maps = [sources.pack(one) for one in maps]
        read = [maps[0]] * len(self.blocks) if self.feature_maps is None else self.feature_maps(maps)
        x = tokens.pack(queries)
        for block, source in zip(self.blocks, read, strict=True):
            x = tokens.cross_block(block, x, source, sources)
        return tokens.unpack(x)

    def _join(self, queries: Tensor, mask: Tensor | None, source: Tensor, source_mask: Tensor | None) -> Tensor:
        """Form ``self``: -> [B, M, D]."""
        joined = torch.cat([source.to(queries.dtype), queries], dim=1)
        if mask is not None and source_mask is not None:
            mask = torch.cat([source_mask, mask], dim=1)
        tokens = layout(mask, joined, self.head_dim, self.ragged)
        x = tokens.pack(joined)
        for block in self.blocks:
            x = tokens.block(block, x)
        return tokens.unpack(x)[:, source.shape[1] :]

    def flops(self, predicted: int, encoded: int) -> int:
        """FLOPs of one sample with M = ``predicted`` and N = ``encoded``; 2 per multiply-add, matrix products and attention."""
        flops, layers = 2 * predicted * self.head.weight.numel(), len(self.blocks)
        if self.embed is not None:
            flops += 2 * encoded * self.embed.weight.numel()
            return flops + layers * block_flops(encoded + predicted, self.width)
        flops += feature_map_flops(self.maps, layers, encoded, self.source_width)
        return flops + layers * cross_block_flops(
            predicted, encoded, self.width, self.source_width, self.self_attention
        )
