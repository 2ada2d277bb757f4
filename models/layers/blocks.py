"""Pre-norm transformer blocks without biases.

Parameter names are those of the published checkpoints (hence ``mlp.mlp.0``), so that state dicts pass in both directions
without a table of names.

Axes: B batch, N and M tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers.attention import NORM_EPS, CrossAttention, SelfAttention

MLP_RATIO = 4


def layer_norm(width: int, *, affine: bool) -> nn.LayerNorm:
    """LayerNorm without bias; with a learned weight if ``affine``."""
    return nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=affine, bias=False)


class MLP(nn.Module):
    """Linear, exact (erf) GELU, linear; hidden width 4 D, no biases."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width, bias=False),
            nn.GELU(),
            nn.Linear(MLP_RATIO * width, width, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.mlp(x)


class SelfBlock(nn.Module):
    """``x += SelfAttention(norm x); x += MLP(norm x)``: the block of LVSM, and of Efficient-LVSM's input stream."""

    def __init__(self, width: int, head_dim: int, *, affine_norm: bool) -> None:
        super().__init__()
        self.norm1 = layer_norm(width, affine=affine_norm)
        self.attn = SelfAttention(width, head_dim)
        self.norm2 = layer_norm(width, affine=affine_norm)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; a token attends to all N tokens of its sequence that ``mask`` leaves (see `attend`)."""
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class FeedForwardBlock(nn.Module):
    """``x += MLP(norm x)``, norm without weights: an input stream whose tokens do not read one another."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = layer_norm(width, affine=False)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[..., D] -> [..., D]; ``mask`` has no meaning where nothing is read."""
        return x + self.mlp(self.norm(x))


class SelfCrossBlock(nn.Module):
    """Self-attention within a target view, cross-attention to the inputs, one MLP; norms without weights.

    The block of Efficient-LVSM's target stream. ``attention`` are `CrossAttention`'s options.
    """

    def __init__(self, width: int, head_dim: int, **attention: Any) -> None:
        super().__init__()
        self.norm = layer_norm(width, affine=False)  # has no weights, so that one serves all places
        self.self_attn = SelfAttention(width, head_dim)
        self.cross_attn = CrossAttention(width, head_dim, **attention)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, source: Tensor, *reading: Any) -> Tensor:
        """Update the target tokens from themselves and from the input tokens.

        Args:
            x: target tokens, [B, V, P, D].
            source: input tokens of all input views, [B, M, D].
            *reading: ``mask`` and ``log_views`` of `CrossAttention` for the V P queries of a scene.

        Returns:
            [B, V, P, D]. A target view depends on no other one.
        """
        return self.read(x, *self.keys_values(source), *reading)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """What the targets read of the input tokens [B, M, D]: keys and values, each [B, M, h, d]."""
        return self.cross_attn.keys_values(self.norm(source))

    def read(self, x: Tensor, keys: Tensor, values: Tensor, *reading: Any) -> Tensor:
        """`forward` with keys and values that were made before."""
        views = x.flatten(0, 1)  # [B V, P, D]
        views = views + self.self_attn(self.norm(views))
        scene = views.view(x.shape).flatten(1, 2)  # [B, V P, D]
        scene = scene + self.cross_attn(self.norm(scene), keys, values, *reading)
        return (scene + self.mlp(self.norm(scene))).view(x.shape)


class SharedInputBlock(nn.Module):
    """Self-attention and MLP of a target block as a block of the input stream, where the streams share weights.

    It has no weights of its own, and none of ``block``'s among its own; a module it is so that hooks see the stream.
    """

    block: SelfCrossBlock

    def __init__(self, block: SelfCrossBlock) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not by setattr, which would register it, and its weights, a second time

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `SelfBlock.forward`."""
        block = self.block
        x = x + block.self_attn(block.norm(x), mask)
        return x + block.mlp(block.norm(x))


class CrossBlock(nn.Module):
    """`SelfCrossBlock` without its self-attention: a target token reads nothing but the inputs."""

    def __init__(self, width: int, head_dim: int, **attention: Any) -> None:
        super().__init__()
        self.norm = layer_norm(width, affine=False)
        self.attn = CrossAttention(width, head_dim, **attention)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, source: Tensor, *reading: Any) -> Tensor:
        """As `SelfCrossBlock.forward`."""
        return self.read(x, *self.keys_values(source), *reading)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """As `SelfCrossBlock.keys_values`."""
        return self.attn.keys_values(self.norm(source))

    def read(self, x: Tensor, keys: Tensor, values: Tensor, *reading: Any) -> Tensor:
        """As `SelfCrossBlock.read`."""
        scene = x.flatten(1, 2)  # [B, V P, D]
        scene = scene + self.attn(self.norm(scene), keys, values, *reading)
        return (scene + self.mlp(self.norm(scene))).view(x.shape)


def init_depth_scaled(block: nn.Module, index: int) -> None:
    """Draw every linear weight of the block at 0-based ``index`` from normal(0, 0.02 / sqrt(2 (index + 1))).

    LVSM, published code ("special_init" with "depth_init"): the scale follows the block's own index, not the depth of the
    network, and holds for all of the block's linear maps.
    """
    for module in block.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * (index + 1)))


def run_block(block: Callable[..., Any], *inputs: Any, checkpointed: bool) -> Any:
    """Call ``block``; if ``checkpointed``, keep only its inputs and compute the rest anew in the backward pass."""
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
