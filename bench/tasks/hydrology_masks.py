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

from bench.data.draws import Salt, below, stream

Draws = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]

PLACE_BITS, LARGEST_PLACE = 33, 2**33 - 1
"""Low bits of a sorting key, which say the place of a token; the 31 bits above are random."""

LAST = np.iinfo(np.int64).max
"""Sorting key of what comes last."""


class Tokens(NamedTuple):
    """Numbers of tokens, -1 behind the last one of a sample that has fewer than others."""

    visible: Counts
    """[B, modalities, V] int64, ascending."""
    predicted: Counts
    """[B, modalities, M] int64, in random order."""


def window_lengths(draws: Draws, shortest: int, longest: int) -> Counts:
    """[B] days, uniform in shortest..longest."""
    if shortest == longest:
        return np.full(len(draws), longest)
    return shortest + below(stream(draws, Salt.HYDROLOGY_LENGTH, 1)[:, 0], longest - shortest + 1)


def present_modalities(draws: Draws, modalities: int, missing: float) -> Flags:
    """[B, modalities]: each is missing with this probability, but for one of a sample that would lack all."""
    hashes = stream(draws, Salt.HYDROLOGY_MISSING, modalities + 1)
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
    days = int(lengths.max())
    # Unified, modalities of one kind read the same noise.
    frames = {"per-day": longest, "tube": 1, "block": 2}
    needed = [frames[kind] for kind in kinds]
    first = [0] * len(kinds) if unified else [sum(needed[:place]) for place in range(len(kinds))]
    rows = max(needed) if unified else sum(needed)
    noise = stream(draws, Salt.HYDROLOGY_IMAGES, rows * patches).reshape(-1, rows, patches)
    # The smallest `kept` of a day; 64-bit hashes do not tie.
    smallest = noise <= np.partition(noise, kept - 1, axis=-1)[..., kept - 1 : kept]
    visible = np.empty((len(draws), len(kinds), days, patches), bool)
    for place, (kind, start) in enumerate(zip(kinds, first, strict=True)):
        if kind == "block":
            visible[:, place] = _outside_block(noise[:, start : start + 2], lengths, days, kept)
        else:
            visible[:, place] = smallest[:, start : start + (days if kind == "per-day" else 1)]
    if (lengths < days).any():
        visible &= (np.arange(days) < lengths[:, None])[:, None, :, None]
    return visible


def _outside_block(noise: Draws, lengths: Counts, days: int, kept: int) -> Flags:
    """[B, T, N]: all but a block of consecutive days, on whose last day as many patches show as make the count exact.

    Of `noise` [B, 2, N] the first row chooses where the block starts, the second one which patches show on its last day.
    """
    patches = noise.shape[-1]
    hidden = lengths * (patches - kept)
    block = -(-hidden // patches)
    start = below(noise[:, 0, 0], lengths - block + 1)
    day = np.arange(days)
    inside = (day >= start[:, None]) & (day < (start + block)[:, None])
    ranks = noise[:, 1].argsort(axis=-1).argsort(axis=-1)
    rest = ranks < (block * patches - hidden)[:, None]
    last = day == (start + block - 1)[:, None]
    return ~inside[:, :, None] | (last[:, :, None] & rest[:, None])


def visible_days(
    draws: Draws, kind: str, lengths: Counts, kept: Counts, series: int, *, longest: int, unified: bool
) -> Flags:
    """[B, S, T]: `kept` [B] of the `lengths` [B] days of each sample, any (``days``) or all but a block (``block``)."""
    days, count = int(lengths.max()), 1 if unified else series
    day = np.arange(days)
    there = day < lengths[:, None, None]
    if kind == "days":
        noise = stream(draws, Salt.HYDROLOGY_SERIES, count * longest).reshape(-1, count, longest)[:, :, :days]
        ranks = np.where(there, noise >> np.uint64(1), np.uint64(LAST)).argsort(axis=-1, kind="stable").argsort(axis=-1)
        shown = ranks < kept[:, None, None]
    else:
        start = below(stream(draws, Salt.HYDROLOGY_SERIES, count), kept[:, None] + 1)[..., None]
        shown = there & ((day < start) | (day >= start + (lengths - kept)[:, None, None]))
    return np.broadcast_to(shown, (len(draws), series, days))


def tokens(draws: Draws, salt: int, visible: Flags, there: Flags | None, longest: int) -> Tokens:
    """Numbers of the visible and of the predicted tokens.

    Args:
        draws: [B], which with `salt` order the predicted ones.
        salt: of the kind of modalities.
        visible: [B, modalities, T] or [B, modalities, T, N] bool.
        there: the same shape; what is not there is neither visible nor predicted. None: all are, and samples show equally many.
        longest: no less than T; the order of a draw is that of this number.
    """
    samples, modalities, days, *frame = visible.shape
    patches = frame[0] if frame else 1
    shown = visible.reshape(samples, modalities, -1)
    place = np.arange(days * patches)
    # One order of all tokens for all modalities, each of which predicts others of them. Numbers that say both the order and the
    # place sort ten times as fast as places do by order.
    order = (stream(draws, salt, longest * patches)[:, None, : days * patches] >> PLACE_BITS).astype(np.int64)
    keys = (order << PLACE_BITS) | place
    if there is None:
        first = np.flatnonzero(shown).reshape(samples, modalities, -1) % len(place)
        masked = len(place) - first.shape[-1]
        return Tokens(first, np.sort(np.where(shown, LAST, keys), axis=-1)[..., :masked] & LARGEST_PLACE)
    present = there.reshape(shown.shape)
    return Tokens(_first(place, shown & present), _first(keys, present & ~shown))


def _first(keys: Counts, wanted: Flags) -> Counts:
    """Places, the low bits of the keys [.., L], of the `wanted` [B, modalities, L] by rising keys; -1 behind, and one at least."""
    counts = wanted.sum(axis=-1)
    most = max(1, int(counts.max()))
    order = np.sort(np.where(wanted, keys, LAST), axis=-1)[..., :most] & LARGEST_PLACE
    return np.where(np.arange(most) < counts[..., None], order, -1)
