"""One layer of CAT-Seg's aggregator: every class's map by itself, then the classes at every place.

Axes: B samples, T classes, h x w grid, D hidden width, G width of a guidance.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from models.layers.aggregator_config import CATSegAggregatorConfig
from models.layers.chunks import in_chunks
from models.layers.class_attention import ClassBlock, class_flops, class_guidance_flops
from models.layers.windowed_blocks import (
    ConvBlocks,
    WindowedBlocks,
    conv_flops,
    conv_guidance_flops,
    windowed_flops,
    windowed_guidance_flops,
)


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
            tokens = None if chunk is None else chunk * x.shape[2] * x.shape[3]
            x = self.attention(x, text, pooling, tokens)
        return x


def layer_flops(
    config: CATSegAggregatorConfig,
    grid: tuple[int, int],
    samples: int,
    classes: int,
    texts: int,
    *,
    training: bool,
    published: bool,
) -> int:
    """FLOPs of an `AggregatorLayer`: 2 per multiply-add, products, convolutions and attention.

    Args:
        config: of the aggregator.
        grid: h and w.
        samples: B.
        classes: T.
        texts: lists of classes whose text is worked on: B, or 1.
        training: whether pooling is that of training.
        published: guidance is projected anew for each class and each place, and every filler is computed.
    """
    places, width, guidance = grid[0] * grid[1], config.hidden_width, config.appearance_guidance_width
    each, flops = classes if published else 1, 0
    if config.spatial == "swin":
        per_map = windowed_flops(grid, config.window_size, width)
        flops += samples * (classes * per_map + each * windowed_guidance_flops(places, guidance, width))
    elif config.spatial == "conv":
        flops += samples * (classes * conv_flops(places, width) + each * conv_guidance_flops(places, guidance, width))
    if not config.classwise:
        return flops
    rows, columns = config.pooling(training=training)
    pooled = (grid[0] // rows) * (grid[1] // columns)
    missing = max(0, config.padding - classes)
    tokens = classes + (min(1, missing) if config.fold_padding and not published else missing)
    shared = class_guidance_flops(tokens, config.text_guidance_width, width)
    flops += samples * class_flops(pooled, tokens, width, config.heads, config.attention)
    return flops + shared * (samples * pooled if published else texts)
