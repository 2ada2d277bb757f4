"""Attention with normalised queries and keys.

Axes: B batch, N and M tokens, D width, h heads, d head_dim (D = h * d).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-5


class HeadRMSNorm(nn.RMSNorm):
    """RMSNorm over the channels of a head, with one learned weight for all heads, computed in fp32."""

    def __init__(self, head_dim: int) -> None:
        super().__init__(head_dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d] in the type of ``x``."""
        return super().forward(x.float()).to(x.dtype)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention with scale 1/sqrt(d), without dropout.

    Args:
        queries: [B, N, h, d].
        keys: [B, M, h, d].
        values: [B, M, h, d].
        mask: bool, broadcastable to [B, h, N, M], True where a query may read; every query needs one key. None, which is
            the fast way, lets every query read every key.

    Returns:
        [B, N, h * d].
    """
    out = F.scaled_dot_product_attention(
        queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
    )
    return out.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention: fused projection [q|k|v], QK-norm, no biases (LVSM, published code)."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.fc = nn.Linear(width, width, bias=False)
        self.q_norm = HeadRMSNorm(head_dim)
        self.k_norm = HeadRMSNorm(head_dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; ``mask`` as in `attend`."""
        queries, keys, values = self.to_qkv(x).unflatten(-1, (3, -1, self.head_dim)).unbind(2)
        return self.fc(attend(self.q_norm(queries), self.k_norm(keys), values, mask))


class CrossAttention(nn.Module):
    """Multi-head cross-attention: projections [q] and [k|v], QK-norm, no biases (Efficient-LVSM, published code).

    Keys and values are made apart from the reading of them, so that those of views already seen can be kept.

    ``log_scale`` makes the attention sharper the more views it reads, against the thinning of a softmax over more and
    more tokens: queries and keys are both multiplied by log(views) - s + 1, where s is the logarithm of ``train_views``
    (``fixed``) or starts there and is learned (``learned``).
    """

    def __init__(self, width: int, head_dim: int, *, log_scale: str = "none", train_views: int = 2) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.fc = nn.Linear(width, width, bias=False)
        self.q_norm = HeadRMSNorm(head_dim)
        self.k_norm = HeadRMSNorm(head_dim)
        self.log_scale: Tensor | float | None = None
        if log_scale == "fixed":
            self.log_scale = math.log(train_views)
        elif log_scale == "learned":
            self.log_scale = nn.Parameter(torch.tensor([math.log(train_views)]))

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """[B, M, D] -> normalised keys and values, each [B, M, h, d]."""
        keys, values = self.to_kv(source).unflatten(-1, (2, -1, self.head_dim)).unbind(2)
        return self.k_norm(keys), values

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        log_views: Tensor | float = 0.0,
    ) -> Tensor:
        """Read ``keys`` and ``values`` [B, M, h, d] from ``x``.

        Args:
            x: [B, N, D].
            keys: as `keys_values` makes them.
            values: likewise.
            mask: as in `attend`.
            log_views: logarithm of the number of views that a query reads, a number or [B, 1 or N, 1, 1]; only needed
                with a ``log_scale``.

        Returns:
            [B, N, D].
        """
        queries = self.q_norm(self.to_q(x).unflatten(-1, (-1, self.head_dim)))
        if self.log_scale is not None:
            # Squared, for the keys' share too: keys that were kept while fewer views were there then stay right.
            queries = (queries * (log_views - self.log_scale + 1) ** 2).to(queries.dtype)
        return self.fc(attend(queries, keys, values, mask))
