"""Weighted feature maps: every decoder block reads its own mixture of the encoder's layers (CrossMAE, section 3.3).

Axes: k maps, J decoder blocks, B samples, N tokens, E width of the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.vit import layer_norm


class MapWeights(nn.Module):
    """The learned weight of every map in every block's mixture, without bias."""

    def __init__(self, maps: int, layers: int) -> None:
        super().__init__()
        self.linear = nn.Linear(maps, layers, bias=False)
        nn.init.xavier_uniform_(self.linear.weight)

    def mix(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, N, E], k of them -> mixtures [J, B, N, E], one for each block."""
        # The maps come first rather than last as in the published code: each mixture is then in one piece.
        return (self.linear.weight @ torch.stack(list(maps)).flatten(1)).unflatten(1, maps[0].shape)


class FeatureMaps(MapWeights):
    """Mixtures of ``maps`` feature maps for ``layers`` decoder blocks, each with its own LayerNorm of ``width``."""

    def __init__(self, maps: int, layers: int, width: int) -> None:
        super().__init__(maps, layers)
        self.norms = nn.ModuleList(layer_norm(width) for _ in range(layers))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, N, E], k of them -> what each of the J blocks reads, [B, N, E]."""
        return [norm(mixture) for norm, mixture in zip(self.norms, self.mix(maps), strict=True)]


def feature_map_flops(maps: int, layers: int, tokens: int, width: int) -> int:
    """FLOPs of mixing ``maps`` maps of ``tokens`` tokens for ``layers`` blocks; 2 per multiply-add."""
    return 2 * maps * layers * tokens * width
