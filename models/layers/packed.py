"""Blocks on sequences of unequal length: padded, or packed, which spends nothing on the padding.

Axes: B sequences, N tokens of the longest, R real tokens of all of them, D width, E width of what is read, h heads.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.attention import attend
from models.layers.vit import Block, CrossAttention, CrossBlock, SelfAttention

Ragged = Literal["auto", "padded", "packed", "varlen"]
"""How blocks run on sequences that come with a mask. ``padded``: on all of [B, N], the padding hidden by a boolean mask.
``packed``: norms, projections and MLPs on the real tokens alone, the attention between them in groups of sequences of
like length, each padded to its own longest. ``varlen``: the attention packed too, by a fused CUDA kernel. ``auto``:
``varlen`` where it can be had, else ``packed``."""

GROUPS = 2
"""Groups that ``packed`` attention runs in: of lengths within +-20 % it costs 1.2 times that of equal ones, in one 1.44."""

FLASH_CAPABILITY = (8, 0)
"""Oldest CUDA compute capability that the packed kernel runs on."""


def varlen_problem(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Say why packed attention cannot be had for queries of this type on this device; None where it can."""
    if device.type != "cuda":
        return f"it needs a CUDA device, got {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"it needs fp16 or bf16 (autocast), got {str(dtype).removeprefix('torch.')}"
    if head_dim % 8:
        return f"it needs heads of a multiple of 8 channels, got {head_dim}"
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401
    except ImportError:
        return f"it needs torch.nn.attention.varlen, which torch {torch.__version__} does not have"
    if (capability := torch.cuda.get_device_capability(device)) < FLASH_CAPABILITY:
        return f"it needs compute capability 8.0 or newer, got {capability[0]}.{capability[1]}"
    return None


def layout(
    mask: Tensor | None, tokens: Tensor, head_dim: int, ragged: Ragged, readers: Padded | Packed | None = None
) -> Padded | Packed:
    """Choose how blocks run on ``tokens``.

    Args:
        mask: [B, N] bool, True for a real token; None where all are, which is always the plain way.
        tokens: [B, N, ...]; their device and type count. On the ``meta`` device, where a mask has no values, they stay
            padded.
        head_dim: channels of an attention head.
        ragged: what is asked for.
        readers: layout of the tokens that read these in a `CrossBlock`, where others do.

    Raises:
        ValueError: ``varlen`` where it cannot be had; the message says why.
    """
    if mask is None or ragged == "padded" or tokens.is_meta:
        return Padded(mask)
    device, dtype = tokens.device, tokens.dtype
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    problem = varlen_problem(device, dtype, head_dim)
    if ragged == "varlen" and problem:
        raise ValueError(f"ragged 'varlen' cannot be had here, {problem}: use 'auto'")
    return Packed(mask, readers, varlen=ragged != "packed" and problem is None)


class Padded:
    """Tokens with their padding, [B, N, D]; no token reads padding."""

    def __init__(self, mask: Tensor | None) -> None:
        self.keys = None
        if mask is not None:
            # A sequence without any real token reads its padding: softmax over nothing would be NaN on some kernels.
            self.keys = (mask | ~mask.any(1, keepdim=True))[:, None, None]  # [B, 1, 1, N]

    def pack(self, padded: Tensor) -> Tensor:
        """[B, N, ...], as it is."""
        return padded

    def unpack(self, tokens: Tensor) -> Tensor:
        """[B, N, ...], as it is."""
        return tokens

    def block(self, block: Block, x: Tensor) -> Tensor:
        """Run ``block`` on [B, N, D]."""
        return block(x, self.keys)

    def cross_block(self, block: CrossBlock, x: Tensor, source: Tensor, sources: Any) -> Tensor:
        """Run ``block`` on queries [B, N, D]; ``sources`` is the layout of the ``source`` [B, M, E]."""
        return block(x, source, sources.keys, self.keys)


class Packed:
    """The real tokens of all sequences one after the other, [R, D]."""

    def __init__(self, mask: Tensor, readers: Padded | Packed | None = None, *, varlen: bool = False) -> None:
        self.shape = mask.shape
        self.rows = mask.flatten().nonzero().squeeze(1)
        lengths = mask.sum(1)
        self.starts: Tensor | None = None
        if varlen:
            # Where each sequence starts, and the end of the last.
            self.starts = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
            return
        # Shortest first; what is read stands in the groups of those that read it.
        self.order: Tensor = readers.order if isinstance(readers, Packed) else lengths.argsort()
        # An empty sequence reads one token of padding, a zero: softmax over nothing would be NaN on some kernels.
        groups = [group for group in lengths[self.order].clamp(min=1).tensor_split(GROUPS) if len(group)]
        self.sizes = [(len(group), int(group.max())) for group in groups]
        self.keys = [
            (torch.arange(size, device=mask.device) < group[:, None])[:, None, None]  # [b, 1, 1, n]
            for group, (_, size) in zip(groups, self.sizes, strict=True)
        ]
        # Where each token stands in the groups, which lie one after the other.
        room = torch.cat([group.max().expand_as(group) for group in groups])
        starts = torch.empty_like(room).index_copy_(0, self.order, room.cumsum(0) - room)
        self.slots = (starts[:, None] + mask.cumsum(1) - 1).flatten()[self.rows]

    def pack(self, padded: Tensor) -> Tensor:
        """[B, N, ...] -> [R, ...]."""
        return padded.flatten(0, 1).index_select(0, self.rows)

    def unpack(self, tokens: Tensor) -> Tensor:
        """[R, ...] -> [B, N, ...], the padding zero."""
        padded = tokens.new_zeros(self.shape.numel(), *tokens.shape[1:])
        return padded.index_copy_(0, self.rows, tokens).unflatten(0, self.shape)

    def _group(self, tokens: Tensor) -> list[Tensor]:
        """[R, ...] -> [b, n, ...] for each group of b sequences, the longest of n tokens; the padding zero."""
        counts = [count * size for count, size in self.sizes]
        padded = tokens.new_zeros(sum(counts), *tokens.shape[1:]).index_copy_(0, self.slots, tokens)
        return [group.unflatten(0, size) for group, size in zip(padded.split(counts), self.sizes, strict=True)]

    def block(self, block: Block, x: Tensor) -> Tensor:
        """Run ``block`` on [R, D]."""
        x = x + self._self_attention(block.attn, block.norm1(x))
        return x + block.mlp(block.norm2(x))

    def cross_block(self, block: CrossBlock, x: Tensor, source: Tensor, sources: Any) -> Tensor:
        """Run ``block`` on queries [R, D]; ``sources`` is the layout of the ``source`` [R', E]."""
        if block.self_attn is not None and block.norm0 is not None:
            x = x + self._self_attention(block.self_attn, block.norm0(x))
        x = x + self._cross_attention(block.cross_attn, block.norm1(x), source, sources)
        return x + block.mlp(block.norm2(x))

    def _self_attention(self, attention: SelfAttention, x: Tensor) -> Tensor:
        queries, keys_values = attention.qkv(x).unflatten(-1, (3, attention.heads, -1)).split([1, 2], dim=1)
        return attention.proj(self._attend(queries.squeeze(1), keys_values, self))

    def _cross_attention(self, attention: CrossAttention, x: Tensor, source: Tensor, sources: Packed) -> Tensor:
        queries = attention.q(x).unflatten(-1, (attention.heads, -1))
        keys_values = attention.kv(source).unflatten(-1, (2, attention.heads, -1))
        return attention.proj(self._attend(queries, keys_values, sources))

    def _attend(self, queries: Tensor, keys_values: Tensor, sources: Packed) -> Tensor:
        """Attention within each sequence: queries [R, h, d] read [R', 2, h, d] -> [R, h * d]."""
        if self.starts is None or sources.starts is None:
            if sources.order is not self.order:
                raise ValueError("sources must be laid out for those that read them: give layout its readers")
            read, groups = [], zip(self._group(queries), sources._group(keys_values), sources.keys, strict=True)
            for reading, source, mask in groups:
                keys, values = source.unbind(2)
                read.append(attend(reading, keys, values, mask).flatten(0, 1))
            return torch.cat(read).index_select(0, self.slots)
        keys, values = keys_values.unbind(1)
        from torch.nn.attention.varlen import varlen_attn

        # By keyword: their order has changed between releases. The padded lengths bound the longest sequences, and
        # need no wait for the device.
        out = varlen_attn(
            query=queries,
            key=keys,
            value=values,
            cu_seq_q=self.starts,
            cu_seq_k=sources.starts,
            max_q=self.shape[1],
            max_k=sources.shape[1],
        )
        return out.flatten(1)  # type: ignore[union-attr]
