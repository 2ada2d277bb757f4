"""Which input views are there, and which of them a target may read.

Axes: B scenes, Vi input and Vt target views, T tokens a view.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def token_mask(views: Tensor, tokens: int) -> Tensor:
    """[..., V] -> [..., V * tokens]: what holds for a view holds for each of its tokens."""
    return views[..., None].expand(*views.shape, tokens).flatten(-2)


def drop_views(mask: Tensor | None, images: Tensor, targets: int | None = None) -> Tensor:
    """Hide a random number of views, uniform from 0 to all but one, and which ones at random.

    Draws from the global generator of the images' device.

    Args:
        mask: [B, Vi] bool, True where a view is there, at least one in each scene; None where all are.
        images: [B, Vi, 3, H, W].
        targets: draw anew for each of so many target views.

    Returns:
        [B, Vi] bool, or [B, Vt, Vi]: never True where ``mask`` is not, and True at least once in the last axis.
    """
    views = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device) if mask is None else mask
    if targets is not None:
        views = views[:, None].expand(-1, targets, -1)
    count = views.sum(-1, keepdim=True)
    kept = count - (torch.rand(count.shape, device=views.device) * count).long()  # 1..count
    lottery = torch.rand(views.shape, device=views.device).masked_fill(~views, 2.0)
    return lottery.argsort(-1).argsort(-1) < kept


def reading(visible: Tensor | None, views: int, tokens: int) -> tuple[Tensor | None, Tensor | float]:
    """``mask`` and ``log_views`` of `CrossAttention`, from all target tokens of a scene to all of its input tokens.

    Args:
        visible: the input views that a target may read, [B, Vi] bool, or for each target view [B, Vt, Vi]; None for all.
        views: number Vi of input views.
        tokens: number T of tokens of a view, input or target.

    Returns:
        The mask, None, [B, 1, 1, Vi T] or [B, 1, Vt T, Vi T], and the logarithm of the number of views that are read, at
        least two: a number, [B, 1, 1, 1] or [B, Vt T, 1, 1].
    """
    if visible is None:
        return None, math.log(max(views, 2))
    mask = token_mask(visible, tokens)
    counts = visible.sum(-1).clamp(min=2).log()  # [B] or [B, Vt]
    if visible.ndim == 2:
        return mask[:, None, None], counts[:, None, None, None]
    # Written out with the input tokens innermost, as the fast masked kernels want them.
    mask = mask[:, None, :, None].expand(-1, -1, -1, tokens, -1).flatten(2, 3)
    return mask, token_mask(counts, tokens)[:, :, None, None]
