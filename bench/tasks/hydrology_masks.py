"""Which tokens of a sample are visible: functions of the sample's draw alone, for whole batches at once.

Axes: B samples, K image modalities, S series, T days (of the longest sample), N patches a frame. A token of an image modality
is a patch on a day, number t * N + n; of a series it is a day. The number of visible tokens depends on the length of the
window alone, whatever the kind of mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import below, stream

LENGTH_SALT, MISSING_SALT, IMAGE_SALT, IMAGE_ORDER_SALT, SERIES_SALT, SERIES_ORDER_SALT = range(201, 207)

Draws = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]

LAST = np.uint64(1 << 63)
"""Set in a sorting key of what comes last."""


class Tokens(NamedTuple):
    """Numbers of tokens, -1 behind the last one of a sample that has fewer than others."""

    visible: Counts
    """[B, modalities, V] int64, ascending."""
    predicted: Counts
    """[B, modalities, M] int64, in random order."""


def window_lengths(draws: Draws, shortest: int, longest: int) -> Counts:
    """[B] days, uniform in shortest..longest."""
    return shortest + below(stream(draws, LENGTH_SALT, 1)[:, 0], longest - shortest + 1)


def present_modalities(draws: Draws, modalities: int, missing: float) -> Flags:
    """[B, modalities]: each is missing with this probability, but for one of a sample that would lack all."""
    hashes = stream(draws, MISSING_SALT, modalities + 1)
    there = (hashes[:, 1:] >> np.uint64(11)).astype(np.float64) * 2.0**-53 >= missing
    rescued = np.arange(modalities) == below(hashes[:, 0], modalities)[:, None]
    return there | (rescued & ~there.any(axis=1, keepdims=True))


def visible_patches(
    draws: Draws, kinds: Sequence[str], lengths: Counts, patches: int, kept: int, *, longest: int, unified: bool
) -> Flags:
    """[B, K, T, N]: what each modality shows, T = the largest of `lengths` [B].

    Args:
        draws: [B].
        kinds: K of ``per-day``, ``tube`` and ``block``.
        lengths: [B] days of each sample; later days show nothing.
        patches: N.
        kept: so many a frame, and on the average of all days for ``block``.
        longest: no less than any of `lengths`; the masks of a draw are those of this number.
        unified: modalities of one kind share their pattern.
    """
    days, count = int(lengths.max()), 1 if unified else len(kinds)
    noise = stream(draws, IMAGE_SALT, count * longest * patches).reshape(-1, count, longest, patches)[:, :, :days]
    visible = np.zeros((len(draws), len(kinds), days, patches), bool)
    for place, kind in enumerate(kinds):
        own, shown = noise[:, 0 if unified else place], visible[:, place]
        if kind == "per-day":
            np.put_along_axis(shown, np.argpartition(own, kept - 1, axis=-1)[..., :kept], True, axis=-1)
        elif kind == "tube":
            ranks = own[:, 0].argsort(axis=-1).argsort(axis=-1)
            shown[:] = (ranks < kept)[:, None]
        else:
            shown[:] = _outside_block(own, lengths, patches, kept)
    return visible & (np.arange(days) < lengths[:, None])[:, None, :, None]


def _outside_block(noise: Draws, lengths: Counts, patches: int, kept: int) -> Flags:
    """[B, T, N]: all but a block of consecutive days, on whose last day as many patches show as make the count exact."""
    hidden = lengths * (patches - kept)
    block = -(-hidden // patches)
    start = below(noise[:, 0, 0], lengths - block + 1)
    day = np.arange(noise.shape[1])
    inside = (day >= start[:, None]) & (day < (start + block)[:, None])
    # The noise of the first day has chosen the start; of the second one, where there is one, it orders the patches.
    ranks = noise[:, min(1, noise.shape[1] - 1)].argsort(axis=-1).argsort(axis=-1)
    rest = ranks < (block * patches - hidden)[:, None]
    last = day == (start + block - 1)[:, None]
    return ~inside[:, :, None] | (last[:, :, None] & rest[:, None])


def visible_days(
    draws: Draws, kind: str, lengths: Counts, kept: Counts, series: int, *, longest: int, unified: bool
) -> Flags:
    """[B, S, T]: `kept` [B] of the `lengths` [B] days of each sample, any (``days``) or all but a block (``block``)."""
    days, count = int(lengths.max()), 1 if unified else series
    noise = stream(draws, SERIES_SALT, count * longest).reshape(-1, count, longest)[:, :, :days]
    there = np.arange(days) < lengths[:, None, None]
    if kind == "days":
        ranks = np.where(there, noise >> np.uint64(1), LAST).argsort(axis=-1, kind="stable").argsort(axis=-1)
        shown = ranks < kept[:, None, None]
    else:
        block = np.broadcast_to((lengths - kept)[:, None], noise.shape[:2])
        start = below(noise[..., 0], kept[:, None] + 1)
        day = np.arange(days)
        shown = there & ~((day >= start[..., None]) & (day < (start + block)[..., None]))
    return np.broadcast_to(shown, (len(draws), series, days))


def tokens(draws: Draws, salt: int, visible: Flags, there: Flags | None, longest: int) -> Tokens:
    """Numbers of the visible and of the predicted tokens.

    Args:
        draws: [B], which with `salt` order the predicted ones.
        salt: of the kind of modalities.
        visible: [B, modalities, T] or [B, modalities, T, N] bool.
        there: the same shape; what is not there is neither visible nor predicted. None: all are.
        longest: no less than T; the order of a draw is that of this number.
    """
    samples, modalities, days, *frame = visible.shape
    patches = frame[0] if frame else 1
    hashes = stream(draws, salt, modalities * longest * patches).reshape(samples, modalities, longest * patches)
    shown = visible.reshape(samples, modalities, -1)
    hidden = ~shown
    if there is not None:
        present = there.reshape(shown.shape)
        shown, hidden = shown & present, hidden & present
    keys = np.where(hidden, hashes[..., : days * patches] >> np.uint64(1), LAST)
    return Tokens(_first(~shown, shown.sum(axis=-1)), _first(keys, hidden.sum(axis=-1)))


def _first(keys: NDArray[np.generic], counts: Counts) -> Counts:
    """Places of the `counts` [B, modalities] smallest keys [B, modalities, L]; at least one place, -1 where there is none."""
    most = max(1, int(counts.max()))
    # Flags have ties, whose order counts; hashes have none but among those that are cut off, and sort faster so.
    order = keys.argsort(axis=-1, kind="stable" if keys.dtype == bool else "quicksort")[..., :most]
    if (counts == most).all():
        return order
    return np.where(np.arange(most) < counts[..., None], order, -1)
