"""ViT blocks in which template and search pictures are both tokens and context (MixFormer on a plain ViT).

Cui et al., "MixFormer: End-to-End Tracking with Iterative Mixed Attention" (journal version) and its published code.
Parameter names are those of the published checkpoints, which are a ViT's.

Axes: B samples, N tokens, D width, h heads, d head_dim (D = h * d).
"""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.attention import attend
from models.layers.conv_attention import DropPath, KeysValues, Layout, mix
from models.layers.vit import MLP, block_flops, layer_norm, require_divisible


class MixedSelfAttention(nn.Module):
    """Multi-head attention with a fused projection [q|k|v] and scale d^-0.5.

    ``asymmetric``: templates read templates, the search picture reads everything. Otherwise everything reads everything.
    """

    def __init__(self, width: int, heads: int, asymmetric: bool) -> None:
        super().__init__()
        require_divisible("width", width, heads)
        self.heads, self.asymmetric = heads, asymmetric
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout, kept: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """Mix.

        Args:
            x: [B, N, D].
            layout: of ``x``: templates and search maps, or one of the two.
            kept: keys and values of templates that are not in ``x``, which all of it reads too.

        Returns:
            [B, N, D], and the keys and values of ``x``, [B, N, h, d] each.
        """
        queries, *own = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        templates = layout[0].tokens if self.asymmetric and len(layout) == 2 else None
        apart = None if templates is None else (templates, templates)
        return self.proj(mix(attend, queries, KeysValues(*own), kept, apart)), KeysValues(*own)


class MixedViTBlock(nn.Module):
    """``x += MixedSelfAttention(norm1 x); x += MLP(norm2 x)``, each branch behind a `DropPath`."""

    def __init__(self, width: int, heads: int, *, asymmetric: bool, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = MixedSelfAttention(width, heads, asymmetric)
        self.norm2 = layer_norm(width)
        self.mlp = MLP(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, layout: Layout, kept: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """As `MixedSelfAttention.forward`."""
        mixed, own = self.attn(self.norm1(x), layout, kept)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x))), own


def mixed_vit_block_flops(width: int, layout: Layout, *, asymmetric: bool) -> int:
    """FLOPs of a `MixedViTBlock` on one sample: 2 per multiply-add, matrix products and attention.

    Args:
        width: D.
        layout: of the tokens.
        asymmetric: whether the first of two entries reads itself alone.
    """
    flops = block_flops(sum(maps.tokens for maps in layout), width)
    if asymmetric and len(layout) == 2:
        flops -= 4 * width * layout[0].tokens * layout[1].tokens
    return flops
