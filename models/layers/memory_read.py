"""How a query frame reads itself and the frames in memory: dense attention, and ways to read fewer keys.

All read-outs have one contract:

    read(queries, keys, values, frames, usage) -> ReadOut

``queries`` [N, h, hw, d], ``keys`` and ``values`` [N, h, (1 + T) hw, d], the query frame's own hw keys first, then those
of the T = ``frames`` memory frames. Logits are scaled by 1/sqrt(d); another scale, one a head, is had by multiplying the
queries. The query frame's keys are always kept; a key that is not kept has a weight of exactly zero.

The *usage* of a memory frame is the attention mass that it receives: the softmax's columns of its keys, mean over heads,
summed over keys and queries. Usage of all memory frames and the mass on the query frame's own keys sum to hw. No
read-out makes the matrix for its sake; it carries no gradient.

Axes: N streams (samples times objects), h heads, d channels of a head, hw tokens of a frame, T memory frames, K kept keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.block_sparse import BLOCK, attend_blocks, block_counts, choose_blocks

MEMORY_READS = ("dense", "topk", "shared-subset", "flex")
TOPK_SCOPES = ("all", "each")
TOPK_IMPLEMENTATIONS = ("scatter", "mask", "gather", "bag")
FLEX_COLUMNS = 16
"""What the columns for the usage are rounded up to a multiple of in ``flex``: it is compiled anew for every width."""


class ReadOut(NamedTuple):
    """What a query frame read."""

    out: Tensor
    """[N, h, hw, d]."""
    usage: Tensor | None
    """[N, T] fp32, attention mass of each memory frame, 0 to hw; None unless asked for."""


@dataclass(frozen=True)
class MemoryRead:
    """A read-out and its options; call it with the arguments of this module's contract.

    ``dense``: softmax over all keys, one fused attention call.

    ``topk``: for every query and head the memory keys of the largest logits, K of ``all`` memory frames together or K of
    ``each``; where there are fewer, all. Four implementations of the same: ``scatter`` makes the whole matrix of weights
    and is the reference; ``mask`` gives a fused call a mask of the kept keys; ``gather`` fetches the kept values (its
    backward pass adds them up one by one: not for training); ``bag`` sums them as an embedding bag. Near-ties at rank K
    may fall otherwise in each.

    ``shared-subset``: of every memory frame the ``subset_ratio`` of its tokens, rounded up, whose keys have the largest
    mean logit, mean over queries and heads. All queries and heads share it, so that what follows is dense, over fewer keys.

    ``flex``: blocks of 128 queries read blocks of 128 keys, the ``subset_ratio`` of them, rounded up, beside those that hold
    keys of the query frame; which, and where it runs, is told in `models.layers.block_sparse`.
    """

    kind: str = "dense"
    topk: int | None = None
    scope: str | None = None
    implementation: str = "scatter"
    subset_ratio: float = 0.25

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, frames: int, usage: bool = False) -> ReadOut:
        """Read, as the module's contract has it."""
        columns = self.columns(frames) if usage else 0
        if self.kind == "dense":
            return attend_frames(queries, keys, values, frames, columns)
        if self.kind == "shared-subset":
            kept = shared_subset(queries, keys, frames, self.share(queries.shape[-2]))
            return attend_frames(queries, take_keys(keys, kept), take_keys(values, kept), frames, columns)
        if self.kind == "flex":
            _, others = block_counts(queries.shape[-2], keys.shape[-2])
            blocks = choose_blocks(queries, keys, self.share(others))
            return attend_frames(queries, keys, values, frames, columns, partial(attend_blocks, blocks=blocks))
        assert self.topk is not None
        assert self.scope is not None
        return _TOPK[self.implementation](queries, keys, values, frames, usage, self.topk, self.scope)

    def share(self, count: int) -> int:
        """The ``subset_ratio`` of ``count``, rounded up, in exact decimal arithmetic."""
        return ceil(Fraction(str(self.subset_ratio)) * int(count))

    def columns(self, frames: int) -> int:
        """Columns that `attend_frames` appends in every head for the usage of T = ``frames`` memory frames."""
        if self.kind == "topk" and self.implementation != "mask":
            return 0  # the weights are there anyway
        return ceil(frames / FLEX_COLUMNS) * FLEX_COLUMNS if self.kind == "flex" else frames

    def flops(self, tokens: int, frames: int, width: int, usage_heads: int = 0) -> int:
        """FLOPs of one stream: 2 per multiply-add, matrix products and attention.

        Args:
            tokens: hw.
            frames: T.
            width: h * d.
            usage_heads: h, where the usage is wanted too; otherwise 0.
        """
        memory = frames * tokens
        wide = width + usage_heads * self.columns(frames)
        if self.kind == "dense":
            return 4 * tokens * (tokens + memory) * wide
        if self.kind == "shared-subset":
            return 2 * memory * width + 4 * tokens * (tokens + frames * self.share(tokens)) * wide
        if self.kind == "flex":  # blocks are computed whole
            own, others = block_counts(tokens, tokens + memory)
            return 2 * own * others * width + 4 * own * (own + self.share(others)) * BLOCK**2 * wide
        assert self.topk is not None
        logits = 2 * tokens * (tokens + memory) * width
        kept = min(self.topk, memory) if self.scope == "all" else frames * min(self.topk, tokens)
        return {
            "scatter": 2 * logits,
            "mask": 2 * tokens * memory * width + 4 * tokens * (tokens + memory) * wide,
            "gather": logits + 2 * tokens * (tokens + kept) * width,
            "bag": logits + 2 * tokens * tokens * width,  # a bag is no product of matrices
        }[self.implementation]


def attend_frames(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    frames: int,
    columns: int,
    attention: Callable[..., Tensor] = F.scaled_dot_product_attention,
) -> ReadOut:
    """Attend to the query frame's keys, which come first, and to those of memory frames, as many of each memory frame.

    For the usage, one column a memory frame is appended to the values: 1 on the frame's keys, 0 elsewhere. What is read of
    that column is the mass on the frame. Fused kernels want queries and keys as wide, hence the zeros.

    Args:
        queries: [N, h, hw, d].
        keys: [N, h, M, d].
        values: [N, h, M, d].
        frames: number T of memory frames.
        columns: number of columns to append, zeros beyond the T-th; 0: the usage is not wanted.
        attention: ``attention(queries, keys, values, scale=...)``, some keys masked perhaps.
    """
    width, tokens = queries.shape[-1], queries.shape[-2]
    if not columns:
        return ReadOut(attention(queries, keys, values, scale=width**-0.5), None)
    indicator = torch.eye(frames, columns, dtype=values.dtype, device=values.device)
    indicator = F.pad(indicator.repeat_interleave((keys.shape[-2] - tokens) // frames, dim=0), (0, 0, tokens, 0))
    widened = torch.cat([values, indicator.expand(*values.shape[:2], -1, -1)], dim=-1)
    out = attention(F.pad(queries, (0, columns)), F.pad(keys, (0, columns)), widened, scale=width**-0.5)
    return ReadOut(out[..., :width], out[..., width : width + frames].detach().float().mean(1).sum(1))


# --- one subset for all queries and heads --------------------------------------------------------------------------


@torch.no_grad()
def shared_subset(queries: Tensor, keys: Tensor, frames: int, kept: int) -> Tensor:
    """Choose ``kept`` tokens of every memory frame by the mean logit of their keys.

    Returns:
        [N, hw + T * kept] int64: positions of the kept keys, ascending, the query frame's all among them.
    """
    tokens = queries.shape[-2]
    logits = queries.mean(2, keepdim=True) @ keys[:, :, tokens:].transpose(-2, -1)  # [N, h, 1, T * hw]
    best = logits.mean(1).unflatten(-1, (frames, tokens)).topk(kept, dim=-1).indices.sort(-1).values
    first = torch.arange(1, 1 + frames, device=keys.device)[:, None] * tokens
    own = torch.arange(tokens, device=keys.device).expand(keys.shape[0], -1)
    return torch.cat([own, (best.squeeze(1) + first).flatten(1)], dim=1)


def take_keys(keys: Tensor, positions: Tensor) -> Tensor:
    """Keys or values [N, h, M, d] at positions [N, K] -> [N, h, K, d]."""
    return keys.gather(2, positions[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3]))


# --- top K of every query and head ---------------------------------------------------------------------------------


def _logits(queries: Tensor, keys: Tensor) -> Tensor:
    return (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)


def _select(logits: Tensor, frames: int, topk: int, scope: str) -> tuple[Tensor, Tensor]:
    """Logits of the memory [N, h, hw, T * hw] -> those of the kept keys, and their positions in the memory."""
    if scope == "all":
        best = logits.topk(min(topk, logits.shape[-1]), dim=-1, sorted=False)
        return best.values, best.indices
    tokens = logits.shape[-1] // frames
    best = logits.unflatten(-1, (frames, tokens)).topk(min(topk, tokens), dim=-1, sorted=False)
    first = torch.arange(frames, device=logits.device)[:, None] * tokens
    return best.values.flatten(-2), (best.indices + first).flatten(-2)


def _weights(queries: Tensor, keys: Tensor, frames: int, topk: int, scope: str) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax over the kept keys: weights of the query frame's keys, weights and positions of the kept memory keys."""
    tokens = queries.shape[-2]
    own, memory = _logits(queries, keys).tensor_split([tokens], dim=-1)
    logits, positions = _select(memory, frames, topk, scope)
    own, kept = torch.cat([own, logits], dim=-1).softmax(-1).tensor_split([tokens], dim=-1)
    return own, kept, positions


def _usage(kept: Tensor, positions: Tensor, frames: int) -> Tensor:
    """Weights [N, h, hw, K] of memory keys -> their sums [N, T] by frame."""
    sums = torch.zeros(*kept.shape[:-1], frames, device=kept.device)
    return sums.scatter_add(-1, positions // kept.shape[-2], kept.detach().float()).mean(1).sum(1)


def _scatter(queries: Tensor, keys: Tensor, values: Tensor, frames: int, usage: bool, topk: int, scope: str) -> ReadOut:
    own, kept, positions = _weights(queries, keys, frames, topk, scope)
    memory = kept.new_zeros(*kept.shape[:-1], keys.shape[-2] - queries.shape[-2]).scatter(-1, positions, kept)
    out = torch.cat([own, memory], dim=-1).to(values.dtype) @ values
    return ReadOut(out, _usage(kept, positions, frames) if usage else None)


def _mask(queries: Tensor, keys: Tensor, values: Tensor, frames: int, usage: bool, topk: int, scope: str) -> ReadOut:
    tokens = queries.shape[-2]
    with torch.no_grad():
        logits = _logits(queries, keys[:, :, tokens:])
        mask = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, _select(logits, frames, topk, scope)[1], 1)
    attention = partial(F.scaled_dot_product_attention, attn_mask=F.pad(mask, (tokens, 0), value=True))
    return attend_frames(queries, keys, values, frames, frames if usage else 0, attention)


def _gather(queries: Tensor, keys: Tensor, values: Tensor, frames: int, usage: bool, topk: int, scope: str) -> ReadOut:
    own, kept, positions = _weights(queries, keys, frames, topk, scope)
    mine, memory = values.tensor_split([queries.shape[-2]], dim=2)
    index = positions.flatten(2)[..., None].expand(-1, -1, -1, values.shape[-1])
    fetched = memory.gather(2, index).unflatten(2, positions.shape[2:])  # [N, h, hw, K, d]
    out = own.to(values.dtype) @ mine + (kept.to(values.dtype)[..., None, :] @ fetched).squeeze(-2)
    return ReadOut(out, _usage(kept, positions, frames) if usage else None)


def _bag(queries: Tensor, keys: Tensor, values: Tensor, frames: int, usage: bool, topk: int, scope: str) -> ReadOut:
    own, kept, positions = _weights(queries, keys, frames, topk, scope)
    mine, memory = values.tensor_split([queries.shape[-2]], dim=2)
    streams, heads, tokens, width = memory.shape
    first = torch.arange(streams * heads, device=values.device).view(streams, heads, 1, 1) * tokens
    summed = F.embedding_bag(
        (positions + first).flatten(0, 2),
        memory.flatten(0, 2),
        per_sample_weights=kept.to(values.dtype).flatten(0, 2),
        mode="sum",
    )
    out = own.to(values.dtype) @ mine + summed.view(*kept.shape[:3], width)
    return ReadOut(out, _usage(kept, positions, frames) if usage else None)


_TOPK = {"scatter": _scatter, "mask": _mask, "gather": _gather, "bag": _bag}
