"""Plain pre-norm Vision Transformer blocks, with biases, as MAE and CrossMAE use them.

Parameter names are those of the published checkpoints. No projection is normalised, GELU is the exact (erf) one, and the
attention takes no dropout.

Axes: B batch, N and M tokens, D width, E width of the tokens that are read, h heads.
"""

from __future__ import annotations

from math import lcm

from torch import Tensor, nn

from models.layers.attention import attend

NORM_EPS = 1e-6
MLP_RATIO = 4


def layer_norm(width: int) -> nn.LayerNorm:
    """LayerNorm with weight and bias."""
    return nn.LayerNorm(width, eps=NORM_EPS)


def require_divisible(name: str, width: int, heads: int, multiple: int = 1) -> None:
    """Raise ValueError unless ``width``, the value of the option ``name``, divides into ``heads`` and by ``multiple``."""
    step = lcm(heads, multiple)
    if width % step:
        whole = f"{multiple} and of " if multiple > 1 else ""
        raise ValueError(
            f"{name} must be a multiple of {whole}its {heads} heads, got {width}: try {max(1, width // step) * step}"
        )


class SelfAttention(nn.Module):
    """Multi-head self-attention with a fused projection [q|k|v]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        require_divisible("width", width, heads)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; ``mask`` as in `attend`."""
        queries, keys, values = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return self.proj(attend(queries, keys, values, mask))


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to a source of another width; projections [q] and [k|v]."""

    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__()
        require_divisible("width", width, heads)
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(source_width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D] reads [B, M, E] -> [B, N, D]; ``mask`` as in `attend`."""
        queries = self.q(x).unflatten(-1, (self.heads, -1))
        keys, values = self.kv(source).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return self.proj(attend(queries, keys, values, mask))


class MLP(nn.Module):
    """Linear, exact GELU, linear; hidden width 4 D."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """``x += SelfAttention(norm1 x); x += MLP(norm2 x)``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = layer_norm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; ``mask`` as in `attend`."""
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class CrossBlock(nn.Module):
    """Queries read a source, which is not normed here; with ``self_attention`` they read one another first (CrossMAE)."""

    def __init__(self, width: int, source_width: int, heads: int, self_attention: bool = False) -> None:
        super().__init__()
        self.norm0 = layer_norm(width) if self_attention else None
        self.self_attn = SelfAttention(width, heads) if self_attention else None
        self.norm1 = layer_norm(width)
        self.cross_attn = CrossAttention(width, source_width, heads)
        self.norm2 = layer_norm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None, self_mask: Tensor | None = None) -> Tensor:
        """Update the queries.

        Args:
            x: queries, [B, N, D].
            source: what they read, [B, M, E].
            mask: of the source, as in `attend`.
            self_mask: of the queries among themselves; no matter without self-attention.

        Returns:
            [B, N, D].
        """
        if self.self_attn is not None and self.norm0 is not None:
            x = x + self.self_attn(self.norm0(x), self_mask)
        x = x + self.cross_attn(self.norm1(x), source, mask)
        return x + self.mlp(self.norm2(x))


def xavier_init(module: nn.Module) -> None:
    """Initialise every Linear (xavier-uniform, bias 0) and LayerNorm (1, 0) inside ``module`` (MAE, published code)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def block_flops(tokens: int, width: int) -> int:
    """FLOPs of a `Block` on one sample: 2 per multiply-add, matrix products and attention."""
    return 24 * tokens * width**2 + 4 * tokens**2 * width


def cross_block_flops(queries: int, keys: int, width: int, source_width: int, self_attention: bool = False) -> int:
    """FLOPs of a `CrossBlock` on one sample, likewise."""
    flops = 20 * queries * width**2 + 4 * keys * source_width * width + 4 * queries * keys * width
    return flops + (8 * queries * width**2 + 4 * queries**2 * width if self_attention else 0)
