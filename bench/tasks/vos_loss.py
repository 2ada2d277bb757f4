"""The training loss of the task ``vos``: bootstrapped cross-entropy and soft dice, frame by frame."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.video.clips import VOID


def hardest_share(progress: float | None, start: float, end: float, fraction: float) -> float:
    """Share of the pixels that the cross-entropy is of: 1 up to `start`, then falling in a line to `fraction` at `end`.

    Args:
        progress: share of the budget that is spent; None: all pixels count.
        start: see above; a share of the budget.
        end: the same.
        fraction: of the pixels.
    """
    if progress is None or progress < start:
        return 1.0
    if progress >= end:
        return fraction
    return 1.0 + (fraction - 1.0) * (progress - start) / (end - start)


def loss(logits: Tensor, masks: Tensor, start: Tensor, share: float) -> Tensor:
    """Cross-entropy of the hardest pixels plus soft dice, in each supervised frame; the sum over frames, the mean over samples.

    Frame t of a sample is supervised if one of its objects was given before t. The dice is the mean over a frame's objects that
    were given before; void pixels count for nothing. A batch without anything to learn from has loss 0.

    Args:
        logits: [B, F, 1 + O, H, W], the background first.
        masks: [B, F, H, W] int64: 0 background, o + 1 object slot o, 255 void.
        start: [B, O]: frame in which a slot's mask is given; -1: empty slot.
        share: of a frame's pixels that count in the cross-entropy.
    """
    logits, masks = logits[:, 1:].float(), masks[:, 1:]
    samples, frames, channels = logits.shape[:3]
    times = torch.arange(1, frames + 1, device=start.device)[None, :, None]
    slots = torch.arange(1, channels, device=start.device)[:, None]
    given = ((start >= 0)[:, None] & (start[:, None] < times)).float()  # [B, F - 1, O]
    supervised = given.amax(dim=2)
    valid = (masks != VOID).flatten(2)  # [B, F - 1, HW]
    labels = masks.masked_fill(masks == VOID, 0)
    log_chances = logits.log_softmax(dim=2)
    errors = F.nll_loss(log_chances.flatten(0, 1), labels.flatten(0, 1), reduction="none").view_as(valid)
    entropy = _hardest(errors, valid, share) * supervised

    chances = log_chances[:, :, 1:].exp().flatten(3) * valid[:, :, None]  # [B, F - 1, O, HW]
    truth = (labels.flatten(2)[:, :, None] == slots) & valid[:, :, None]
    dice = 1 - (2 * (chances * truth).sum(3) + 1) / (chances.sum(3) + truth.sum(3) + 1)
    dice = (dice * given).sum(2) / given.sum(2).clamp_min(1)
    return (entropy + dice).sum() / samples


def _hardest(errors: Tensor, valid: Tensor, share: float) -> Tensor:
    """Mean over the `share` of the valid pixels of [.., N] whose error is largest, at least one; 0 where none is valid."""
    errors = errors * valid
    count = valid.sum(-1, keepdim=True)
    if share < 1:
        # Errors are not negative: what is not valid comes last.
        errors = errors.topk(math.ceil(share * errors.shape[-1]), dim=-1).values
        count = (share * count).ceil()
        place = torch.arange(errors.shape[-1], device=errors.device)
        errors = errors * (place < count)
    return errors.sum(-1) / count.squeeze(-1).clamp_min(1)
