"""Attention of blocks of queries to a few blocks of keys, by PyTorch's FlexAttention.

Queries, and keys, are cut into blocks of 128 consecutive ones; the last may be shorter. The keys begin with those of the
query frame, and a block that holds one of them is always kept, whole. Of the other blocks, every block of queries keeps in
every head those with the largest mean logit, mean over all pairs of the two blocks.

Axes: N streams, h heads, d channels of a head, hw queries, M keys, Q blocks of queries, K kept blocks of keys.
"""

from __future__ import annotations

import shutil
from functools import cache
from importlib.util import find_spec
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128
"""Queries, and keys, in a block; FlexAttention's own default."""
COMPILERS = ("g++", "clang++", "c++")


def block_counts(tokens: int, keys: int) -> tuple[int, int]:
    """Number of blocks that ``keys`` keys make: those with keys of the query frame of ``tokens`` tokens, and the others."""
    own = ceil(tokens / BLOCK)
    return own, ceil(keys / BLOCK) - own


@torch.no_grad()
def choose_blocks(queries: Tensor, keys: Tensor, kept: int) -> Tensor:
    """Choose ``kept`` blocks of keys beside the query frame's own.

    Args:
        queries: [N, h, hw, d].
        keys: [N, h, M, d], the query frame's hw first.
        kept: at most the number of other blocks.

    Returns:
        [N, h, Q, K] int64: numbers of the kept blocks, ascending.
    """
    own, _ = block_counts(queries.shape[2], keys.shape[2])
    means = _block_means(queries)
    logits = means @ _block_means(keys)[:, :, own:].transpose(-2, -1)
    best = logits.topk(kept, dim=-1).indices.sort(-1).values + own
    return torch.cat([torch.arange(own, device=keys.device).expand(*means.shape[:3], -1), best], dim=-1)


def _blocks(x: Tensor) -> Tensor:
    """[N, h, M, d] -> [N, h, blocks, 128, d], zeros where the last block is short."""
    blocks = ceil(x.shape[2] / BLOCK)
    return F.pad(x, (0, 0, 0, blocks * BLOCK - x.shape[2])).unflatten(2, (blocks, BLOCK))


def _block_means(x: Tensor) -> Tensor:
    """[N, h, M, d] -> [N, h, blocks, d]."""
    sums = _blocks(x).sum(3)
    return sums / (x.shape[2] - BLOCK * torch.arange(sums.shape[2], device=x.device)).clamp(max=BLOCK)[:, None]


def attend_blocks(queries: Tensor, keys: Tensor, values: Tensor, blocks: Tensor, scale: float) -> Tensor:
    """Softmax attention of every block of queries to its blocks of keys.

    On a CPU FlexAttention has no backward pass, so that with gradients it is `attend_tiles` there; so it is on ``meta``.

    Args:
        queries: [N, h, hw, d].
        keys: [N, h, M, d].
        values: [N, h, M, d].
        blocks: [N, h, Q, K] int64, numbers of blocks of keys.
        scale: of the logits.

    Returns:
        [N, h, hw, d].

    Raises:
        ValueError: the device cannot: it has no FlexAttention, or no compiler for it.
    """
    device = queries.device.type
    training = torch.is_grad_enabled() and any(part.requires_grad for part in (queries, keys, values))
    # FlexAttention refuses gradients on a CPU only after it has begun to compile, and once it has, whatever the process
    # compiles of it later gives wrong numbers (torch 2.15). So it is never asked.
    if device == "meta" or (device == "cpu" and training):
        return attend_tiles(queries, keys, values, blocks, scale)
    _require_flex(device)
    from torch.nn.attention.flex_attention import BlockMask

    counts = torch.full(blocks.shape[:3], blocks.shape[3], dtype=torch.int32, device=blocks.device)
    columns = ceil(keys.shape[2] / BLOCK)
    indices = F.pad(blocks, (0, columns - blocks.shape[3])).int()
    mask = BlockMask.from_kv_blocks(
        torch.zeros_like(counts),
        torch.zeros_like(indices),
        counts,
        indices,
        BLOCK_SIZE=BLOCK,
        seq_lengths=(queries.shape[2], keys.shape[2]),
    )
    return _compiled()(queries, keys, values, block_mask=mask, scale=scale)


def attend_tiles(queries: Tensor, keys: Tensor, values: Tensor, blocks: Tensor, scale: float) -> Tensor:
    """The same as `attend_blocks`, by fetching its keys for every block of queries: on any device, slower than dense."""
    tiles = blocks.flatten(2)[..., None, None].expand(-1, -1, -1, BLOCK, keys.shape[3])
    fetched = [_blocks(part).gather(2, tiles).unflatten(2, blocks.shape[2:]).flatten(3, 4) for part in (keys, values)]
    there = (blocks[..., None] * BLOCK + torch.arange(BLOCK, device=blocks.device)).flatten(3) < keys.shape[2]
    rows, columns, read = (part.flatten(0, 1) for part in (_blocks(queries), *fetched))
    mask = there.flatten(0, 1)[:, :, None]
    out = F.scaled_dot_product_attention(rows, columns, read, attn_mask=mask, scale=scale)
    return out.unflatten(0, queries.shape[:2]).flatten(2, 3)[:, :, : queries.shape[2]]


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def _require_flex(device: str) -> None:
    if device not in ("cpu", "cuda", "xpu"):
        reason = "PyTorch has no FlexAttention for it:"
    elif device == "cpu" and not any(map(shutil.which, COMPILERS)):
        reason = f"compiling it needs one of {', '.join(COMPILERS)}: install one, or"
    elif device != "cpu" and find_spec("triton") is None:
        reason = "compiling it needs the package triton: install it, or"
    else:
        return
    raise ValueError(f"memory_read 'flex' cannot run on {device}: {reason} choose dense or shared-subset")
