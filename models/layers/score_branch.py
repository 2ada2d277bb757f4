"""Score of a tracked box: how surely the target is in it, so that the box may serve as an online template (MixFormer).

A learned token reads the features inside the box, then those of the template. Parameter names are those of the published
checkpoints.

Axes: B samples, C channels, w width and h height of the search map in cells, p edge of the pooled map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.conv_attention import LayerNorm, attend
from models.layers.vit import require_divisible

POOLED = 4
READS = 2
"""Features inside the box, then the template."""
TOKEN_STD = 0.02


def hat_integral(x: Tensor) -> Tensor:
    """Integral of the hat max(0, 1 - |t|) from -infinity to ``x``."""
    x = x.clamp(-1, 1)
    return 0.5 + x - x * x.abs() / 2


def pool_box(features: Tensor, boxes: Tensor, pooled: int) -> Tensor:
    """Mean of a bilinear map over each cell of a grid in a box: precise RoI pooling, as an exact separable integral.

    Jiang et al., "Acquisition of Localization Confidence for Accurate Object Detection". The map is interpolated between
    its cells, which lie at whole coordinates, and falls to zero within one cell outside.

    Args:
        features: [B, C, h, w].
        boxes: corners x0, y0, x1, y1 in cells, one box a sample, [B, 4].
        pooled: p.

    Returns:
        [B, C, p, p], in fp32; 0 where a box is empty or turned around.
    """
    features, boxes = features.float(), boxes.float()
    shares = torch.linspace(0, 1, pooled + 1, device=boxes.device)
    weights = []
    for axis, cells in ((1, features.shape[2]), (0, features.shape[3])):
        start, length = boxes[:, axis], (boxes[:, axis + 2] - boxes[:, axis]).clamp(min=0)
        edges = start[:, None] + length[:, None] * shares  # [B, p + 1]
        below = hat_integral(edges[..., None] - torch.arange(cells, device=boxes.device))  # [B, p + 1, cells]
        step = length[:, None, None] / pooled
        weights.append(below.diff(dim=1) / step.clamp(min=torch.finfo(torch.float32).eps))
    rows, columns = weights
    return rows[:, None] @ features @ columns[:, None].mT


class ScoreBranch(nn.Module):
    """Two reads of a learned token, then three linear layers; no residuals.

    Args:
        width: C.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        require_divisible("width", width, heads)
        self.heads = heads
        self.score_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.score_token, std=TOKEN_STD)
        self.norm1 = LayerNorm(width)
        self.proj_q, self.proj_k, self.proj_v, self.proj = (
            nn.ModuleList(nn.Linear(width, width) for _ in range(READS)) for _ in range(4)
        )
        self.norm2 = nn.ModuleList(LayerNorm(width) for _ in range(READS))
        layers = [nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)]
        self.score_head = nn.ModuleDict({"layers": nn.ModuleList(layers)})

    def forward(self, template: Tensor, search: Tensor, boxes: Tensor) -> Tensor:
        """Score a box.

        Args:
            template: features of the template, [B, C, h, w] of any size.
            search: features of the search picture, [B, C, h, w].
            boxes: corners x0, y0, x1, y1 in cells of the search map, [B, 4].

        Returns:
            Logits [B].
        """
        x = self.norm1(self.score_token.expand(search.shape[0], -1, -1))
        inside = pool_box(search, boxes, POOLED).to(search.dtype)
        for i, source in enumerate((inside, template)):
            tokens = source.flatten(2).mT  # [B, cells, C]
            read = attend(self.proj_q[i](x), self.proj_k[i](tokens), self.proj_v[i](tokens), self.heads)
            x = self.norm2[i](self.proj[i](read))
        first, second, last = self.score_head["layers"].children()
        return last(second(first(x).relu()).relu())[:, 0, 0]
