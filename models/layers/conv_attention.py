"""Convolutional embedding and mixed attention of template and search maps (MixFormer on CvT).

Cui et al., "MixFormer: End-to-End Tracking with Iterative Mixed Attention", on the blocks of Wu et al., "CvT: Introducing
Convolutions to Vision Transformers". Parameter names are those of the published checkpoints. There is no
position embedding: position comes from the padding of the convolutions.

The tokens of all pictures lie in one tensor [B, N, C], first those of the templates, then those of the search picture, each
row by row; a *layout* says which is which. Keys and values are strided by 2, so of a map of edge s they have
ceil(s / 2)^2 tokens, M in all.

Axes: B samples, N tokens, M keys, C width, h heads, d head_dim (C = h * d), s edge of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.vit import MLP_RATIO, require_divisible

NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.1
QUICK_GELU = 1.702
KERNEL = 3
"""Edge of the depth-wise convolutions."""
KEY_STRIDE = 2


class Maps(NamedTuple):
    """Square feature maps of one edge, one behind the other."""

    number: int
    size: int
    """Edge of each."""

    @property
    def tokens(self) -> int:
        """Their tokens."""
        return self.number * self.size**2

    @property
    def keys(self) -> int:
        """Their keys, or values."""
        return self.number * strided(self.size, KEY_STRIDE) ** 2


Layout = Sequence[Maps]
"""What lies in a tensor of tokens: (templates, search), or one of the two alone."""


class KeysValues(NamedTuple):
    """Keys and values of a block, projected: [B, M, C], or split into heads, [B, M, h, d]."""

    keys: Tensor
    values: Tensor


def strided(size: int, stride: int) -> int:
    """Edge of a map after a convolution that pads half its kernel: ceil(size / stride)."""
    return -(-size // stride)


def to_maps(x: Tensor, layout: Layout) -> list[Tensor]:
    """[B, N, C] -> for each entry of the layout [B * number, C, s, s], in the memory format channels-last."""
    parts = x.split([maps.tokens for maps in layout], dim=1)
    return [
        part.reshape(-1, maps.size, maps.size, x.shape[-1]).permute(0, 3, 1, 2)
        for part, maps in zip(parts, layout, strict=True)
    ]


def to_tokens(parts: Sequence[Tensor], batch: int) -> Tensor:
    """[B * number, C, s, s] each, of any edges -> [B, N, C]; the inverse of `to_maps`."""
    return torch.cat([part.permute(0, 2, 3, 1).reshape(batch, -1, part.shape[1]) for part in parts], dim=1)


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the channels, computed in the type of its weights, which is fp32 under autocast too."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C] in the type of ``x``."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class TokenBatchNorm(nn.Module):
    """Batch norm over all tokens of a batch; the same four tensors in the state dict whether frozen or not.

    Frozen, as in the published trackers, all four are buffers and nothing is ever updated: a fixed affine map. Otherwise it
    learns like any batch norm, with the statistics of templates and search taken together.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, frozen: bool) -> None:
        super().__init__()
        self.frozen = frozen
        for name, value in (("weight", torch.ones(width)), ("bias", torch.zeros(width))):
            if frozen:
                self.register_buffer(name, value)
            else:
                self.register_parameter(name, nn.Parameter(value))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        learns = self.training and not self.frozen
        normed = F.batch_norm(x.flatten(0, 1), self.running_mean, self.running_var, self.weight, self.bias, learns,
                              BATCH_NORM_MOMENTUM, NORM_EPS)  # fmt: skip
        return normed.view_as(x)


class ConvProjection(nn.Module):
    """Depth-wise 3x3 convolution without bias, then batch norm: what stands before a linear projection."""

    def __init__(self, width: int, stride: int, frozen: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, KERNEL, stride, KERNEL // 2, groups=width, bias=False)
        self.bn = TokenBatchNorm(width, frozen)

    def forward(self, parts: Sequence[Tensor], batch: int) -> Tensor:
        """Maps as `to_maps` gives them -> [B, N or M, C]."""
        return self.bn(to_tokens([self.conv(part) for part in parts], batch))


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Softmax attention: [B, N, C] reads [B, M, C] -> [B, N, C].

    The scale is C^-0.5, not d^-0.5: inherited from CvT, and what the published weights are trained for.
    """
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v, scale=queries.shape[-1] ** -0.5).transpose(1, 2).flatten(2)


def mix(
    read: Callable[[Tensor, Tensor, Tensor], Tensor],
    queries: Tensor,
    own: KeysValues,
    kept: KeysValues | None = None,
    apart: tuple[int, int] | None = None,
) -> Tensor:
    """Mixed attention, with every tensor's tokens along its second axis.

    Args:
        read: attention of queries to keys and values.
        queries: of all tokens, those of the templates first.
        own: keys and values of the same tokens.
        kept: keys and values of templates that are not among the tokens, which all of them read too.
        apart: how many tokens and how many keys the templates have, where they read one another alone; None where
            everything reads everything.

    Returns:
        As ``read``, for all tokens.
    """
    keys, values = own
    if kept is not None:
        keys, values = torch.cat([kept.keys, keys], dim=1), torch.cat([kept.values, values], dim=1)
    if apart is None:
        return read(queries, keys, values)
    tokens, known = apart
    templates = read(queries[:, :tokens], keys[:, :known], values[:, :known])
    return torch.cat([templates, read(queries[:, tokens:], keys, values)], dim=1)


class MixedAttention(nn.Module):
    """Attention in which templates and search picture are both tokens and context.

    ``asymmetric``: templates read templates, the search picture reads everything. Otherwise everything reads everything.
    """

    def __init__(self, width: int, heads: int, asymmetric: bool, freeze_batch_norm: bool) -> None:
        super().__init__()
        require_divisible("width", width, heads)
        self.heads, self.asymmetric = heads, asymmetric
        self.conv_proj_q = ConvProjection(width, 1, freeze_batch_norm)
        self.conv_proj_k = ConvProjection(width, KEY_STRIDE, freeze_batch_norm)
        self.conv_proj_v = ConvProjection(width, KEY_STRIDE, freeze_batch_norm)
        self.proj_q = nn.Linear(width, width)
        self.proj_k = nn.Linear(width, width)
        self.proj_v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout, kept: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """Mix.

        Args:
            x: [B, N, C].
            layout: of ``x``.
            kept: keys and values of templates that are not in ``x``, which all of it reads too.

        Returns:
            [B, N, C], and the keys and values of ``x``.
        """
        parts, batch = to_maps(x, layout), x.shape[0]
        queries = self.proj_q(self.conv_proj_q(parts, batch))
        own = KeysValues(self.proj_k(self.conv_proj_k(parts, batch)), self.proj_v(self.conv_proj_v(parts, batch)))
        apart = (layout[0].tokens, layout[0].keys) if self.asymmetric and len(layout) == 2 else None
        return self.proj(mix(partial(attend, heads=self.heads), queries, own, kept, apart)), own


class QuickMLP(nn.Module):
    """Linear, quick GELU x * sigmoid(1.702 x), linear; hidden width 4 C."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        # As a scaled silu it takes fewer passes over the hidden layer than written out.
        return self.fc2(F.silu(QUICK_GELU * self.fc1(x)) / QUICK_GELU)


class DropPath(nn.Module):
    """In training, drop a residual branch of a sample with probability ``rate`` and scale up those that are kept."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]."""
        if not self.training or not self.rate:
            return x
        keep = 1 - self.rate
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep
        return x * (kept / keep).to(x.dtype)


class MixedBlock(nn.Module):
    """``x += MixedAttention(norm1 x); x += QuickMLP(norm2 x)``, each branch behind a `DropPath`."""

    def __init__(
        self, width: int, heads: int, *, asymmetric: bool, freeze_batch_norm: bool, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = MixedAttention(width, heads, asymmetric, freeze_batch_norm)
        self.norm2 = LayerNorm(width)
        self.mlp = QuickMLP(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, layout: Layout, kept: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """As `MixedAttention.forward`."""
        mixed, own = self.attn(self.norm1(x), layout, kept)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x))), own


class ConvEmbed(nn.Module):
    """Overlapping convolution that shrinks maps, then LayerNorm over the channels."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        # Published as padding 2 of kernel 7 and padding 1 of kernel 3.
        self.kernel, self.stride, self.padding = kernel, stride, stride // 2
        self.proj = nn.Conv2d(channels, width, kernel, stride, self.padding)
        self.norm = LayerNorm(width)

    def size(self, size: int) -> int:
        """Edge of the map that comes of pictures of edge ``size``."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    def forward(self, parts: Sequence[Tensor], batch: int) -> Tensor:
        """Pictures or maps [B * number, channels, s, s] each -> tokens [B, N, C]."""
        return self.norm(to_tokens([self.proj(part) for part in parts], batch))


def embed_flops(embed: ConvEmbed, layout: Layout) -> int:
    """FLOPs of a `ConvEmbed` that makes ``layout``, on one sample: 2 per multiply-add of the convolution."""
    return 2 * sum(maps.tokens for maps in layout) * embed.proj.weight.numel()


def mixed_block_flops(width: int, layout: Layout, *, asymmetric: bool) -> int:
    """FLOPs of a `MixedBlock` on one sample: 2 per multiply-add, matrix products, convolutions and attention.

    Args:
        width: C.
        layout: of the tokens.
        asymmetric: whether the first of two entries reads itself alone.
    """
    tokens, keys = sum(maps.tokens for maps in layout), sum(maps.keys for maps in layout)
    pairs = tokens * keys
    if asymmetric and len(layout) == 2:
        pairs -= layout[0].tokens * layout[1].keys
    convolutions = 2 * KERNEL**2 * width * (tokens + 2 * keys)
    products = 2 * width**2 * (tokens + 2 * keys + tokens + 2 * MLP_RATIO * tokens)
    return convolutions + products + 4 * width * pairs
