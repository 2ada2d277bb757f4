"""Class aggregation: at every place of a picture the classes read one another, under the guidance of their text.

Parameter names are those of CAT-Seg's published checkpoints. As in `models.layers.windowed_blocks` the guidance's share of
queries and keys is made apart: once for a class instead of once for each place.

Axes: B samples, T classes (S with those that pad them), h x w grid, N places, D hidden width, G width of the guidance, a
heads of d channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.chunks import in_chunks
from models.layers.vit import MLP_RATIO

CLASS_ATTENTIONS = ("linear", "full")
CPU_TOKENS = 1024
"""Tokens that are computed at once on a CPU where no gradient needs them later: they then stay in its cache."""
EPS = 1e-6
"""Keeps linear attention from dividing by zero."""


def linear_attention(queries: Tensor, keys: Tensor, values: Tensor, repeats: int = 1) -> Tensor:
    """Attention with phi(q).phi(k) in place of exp(q.k), phi = elu + 1 (Katharopoulos et al. 2020).

    Args:
        queries: [N, S, a, d].
        keys: likewise.
        values: likewise.
        repeats: the last key and value stand for so many.

    Returns:
        [N, S, a, d].
    """
    classes = keys.shape[1]
    queries, keys = (F.elu(x.transpose(1, 2)) + 1 for x in (queries, keys))
    if repeats > 1:
        keys = torch.cat([keys[:, :, :-1], keys[:, :, -1:] * repeats], dim=2)
    # Values are divided by their number and multiplied again: half-precision sums over many classes would overflow.
    summary = keys.transpose(2, 3) @ (values.transpose(1, 2) / classes)
    shares = queries @ keys.sum(2)[..., None] + EPS
    return ((queries @ summary) * (classes / shares)).transpose(1, 2)


def full_attention(queries: Tensor, keys: Tensor, values: Tensor, repeats: int = 1) -> Tensor:
    """Softmax attention with scale 1/sqrt(d); shapes and ``repeats`` as in `linear_attention`."""
    mask = None
    if repeats > 1:
        mask = queries.new_zeros(1, 1, 1, keys.shape[1])
        mask[..., -1] = math.log(repeats)
    queries, keys, values = (x.transpose(1, 2) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2)


class ClassAttention(nn.Module):
    """Multi-head attention without an output projection; queries and keys see the guidance, values do not."""

    def __init__(self, width: int, guidance: int, heads: int, attention: str) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.attend = linear_attention if attention == "linear" else full_attention
        self.q = nn.Linear(width + guidance, width)
        self.k = nn.Linear(width + guidance, width)
        self.v = nn.Linear(width, width)

    def guide(self, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """The guidance's share of queries and keys: [..., G] -> twice [..., D]."""
        return F.linear(guidance, self.q.weight[:, self.width :]), F.linear(guidance, self.k.weight[:, self.width :])

    def forward(self, x: Tensor, guided: tuple[Tensor, Tensor] | None, repeats: int = 1) -> Tensor:
        """Read the other classes.

        Args:
            x: [B, N, S, D].
            guided: what `guide` gave, [B or 1, S, D] each.
            repeats: the last class stands for so many.

        Returns:
            [B, N, S, D].
        """
        queries, keys = (F.linear(x, part.weight[:, : self.width], part.bias) for part in (self.q, self.k))
        if guided is not None:
            queries, keys = queries + guided[0][:, None], keys + guided[1][:, None]
        queries, keys, values = (y.flatten(0, 1).unflatten(-1, (self.heads, -1)) for y in (queries, keys, self.v(x)))
        return self.attend(queries, keys, values, repeats).reshape(x.shape)


class ClassBlock(nn.Module):
    """``pooled += attention(norm1 pooled); pooled += MLP(norm2 pooled); x += pooled``, the last one bilinearly enlarged.

    The pooled map holds the input itself, which is thus added twice, as published.

    Args:
        width: D.
        guidance: G, 0 for none.
        heads: a.
        attention: one of `CLASS_ATTENTIONS`.
        padding: fewer classes than this are filled up with a learned one, which is attended to like any other; 0: none.
        fold: let one filler stand for all, which are alike; the same values for next to no work.
    """

    def __init__(
        self, width: int, guidance: int, heads: int, attention: str, padding: int = 0, *, fold: bool = False
    ) -> None:
        super().__init__()
        self.padding, self.fold = padding, fold
        self.attention = ClassAttention(width, guidance, heads, attention)
        self.MLP = nn.Sequential(nn.Linear(width, MLP_RATIO * width), nn.ReLU(), nn.Linear(MLP_RATIO * width, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.padding_tokens = nn.Parameter(torch.zeros(1, 1, width)) if padding else None
        self.padding_guidance = nn.Parameter(torch.zeros(1, 1, guidance)) if padding and guidance else None

    def slots(self, classes: int) -> tuple[int, int]:
        """How many fillers are computed beside so many classes, and how many each of them stands for."""
        missing = max(0, self.padding - classes)
        return (1, missing) if missing and self.fold else (missing, 1)

    def forward(self, x: Tensor, text: Tensor | None, pooling: tuple[int, int], chunk: int | None = None) -> Tensor:
        """Let the classes read one another.

        Args:
            x: [B, T, h, w, D].
            text: [B or 1, T, G], the guidance.
            pooling: rows and columns that are averaged to one place before.
            chunk: tokens of a sample, fillers among them, that are computed at once, but a place at least; None: all.

        Returns:
            [B, T, h, w, D].
        """
        samples, classes, height, width, _ = x.shape
        slots, _ = self.slots(classes)
        guided = None
        if text is not None:
            if self.padding_guidance is not None:
                text = torch.cat([text, self.padding_guidance.expand(len(text), slots, -1)], dim=1)
            guided = self.attention.guide(text)
        pooled = x.flatten(0, 1)
        if pooling != (1, 1):
            pooled = F.avg_pool2d(pooled.permute(0, 3, 1, 2), pooling).permute(0, 2, 3, 1)
        grid = pooled.shape[1:3]
        tokens = pooled.flatten(1, 2).unflatten(0, (samples, classes)).transpose(1, 2)
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            chunk = min(chunk or CPU_TOKENS, CPU_TOKENS)
        places = None if chunk is None else max(1, chunk // (classes + slots))
        tokens = in_chunks(lambda part: self.mix(part, guided), tokens, places, dim=1)
        pooled = tokens.transpose(1, 2).flatten(0, 1).unflatten(1, grid)
        if pooling != (1, 1):
            pooled = F.interpolate(pooled.permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=True)
            pooled = pooled.permute(0, 2, 3, 1)
        return x + pooled.unflatten(0, (samples, classes))

    def mix(self, tokens: Tensor, guided: tuple[Tensor, Tensor] | None) -> Tensor:
        """[B, N, T, D] -> [B, N, T, D]; ``guided``: [B or 1, S, D] each, for queries and keys."""
        samples, places, classes, _ = tokens.shape
        slots, repeats = self.slots(classes)
        if self.padding_tokens is not None:
            # Without a slot too: DistributedDataParallel waits for a gradient, if only of 0.
            tokens = torch.cat([tokens, self.padding_tokens.expand(samples, places, slots, -1)], dim=2)
        tokens = tokens + self.attention(self.norm1(tokens), guided, repeats)
        return (tokens + self.MLP(self.norm2(tokens)))[:, :, :classes]


def class_flops(places: int, classes: int, width: int, heads: int, attention: str) -> int:
    """FLOPs of a `ClassBlock` on one sample's ``places`` pooled places without guidance, 2 per multiply-add.

    ``classes`` is S, the padding among them.
    """
    products = 2 * width**2 * (3 + 2 * MLP_RATIO)
    head = width // heads
    attending = 4 * width * head + 2 * width if attention == "linear" else 4 * width * classes
    return places * classes * (products + attending)


def class_guidance_flops(classes: int, guidance: int, width: int) -> int:
    """FLOPs of the guidance's share for so many classes, likewise."""
    return 4 * classes * guidance * width
