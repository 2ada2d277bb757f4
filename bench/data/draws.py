"""Random choices as functions of a sample's 64-bit draw: the same in every batch, on every machine."""

from __future__ import annotations

import hashlib
from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray


@unique
class Salt(IntEnum):
    """What a sample's draw decides, for `stream`: choices that share a number are not independent of each other.

    Data that choose views in a way of their own may use the low numbers again, as a sample is of one data set; but not those
    of the task, which decides of every sample.
    """

    VIEWS = 1
    """Order of a scene's views."""
    OBJECT_TARGETS = 2
    OBJECT_EVALUATION = 3
    CLIP_BETWEEN = 4
    """Views between the two ends of a clip."""
    CLIP_ENDS = 5
    TASK_TARGETS = 101
    """Which views of a sample are its targets, where inputs may be."""
    TASK_MASK = 102
    """How many inputs of a sample are there."""
    TASK_CROP = 103
    """Which part of an image is seen."""
    TASK_FLIP = 104
    """Whether it is mirrored."""
    TASK_NOISE = 105
    """Which patches of an image are masked."""
    HYDROLOGY_LENGTH = 201
    """Days of a window."""
    HYDROLOGY_MISSING = 202
    """Modalities that a sample lacks."""
    HYDROLOGY_IMAGES = 203
    """Which patches are masked on which days."""
    HYDROLOGY_IMAGE_ORDER = 204
    """Order in which masked patches are predicted."""
    HYDROLOGY_SERIES = 205
    """Which days of the series are masked."""
    HYDROLOGY_SERIES_ORDER = 206
    """Order in which they are predicted."""
    VIDEO_ATTEMPTS = 301
    """A generated clip's tries until one keeps the rules."""
    VIDEO_LAYOUT = 302
    """What is in a clip: its factors, the order in depth, when an object enters."""
    VIDEO_LAYERS = 303
    """One draw for each thing in a clip."""
    VIDEO_SHAPE = 304
    """A thing's size, outline and motion."""
    VIDEO_TEXTURE = 305
    """Its pattern."""
    VIDEO_COLOUR = 306
    """Its colours."""
    VIDEO_NOISE = 307
    """The sensor's noise."""
    VIDEO_WINDOW = 311
    """Which frames of a clip a training sample has."""
    VIDEO_FLIP = 312
    """Whether it is mirrored."""
    VIDEO_OBJECTS = 313
    """Which objects it has, and in which order."""
    VIDEO_CROP = 314
    """Which part of the frames is seen."""
    VIDEO_REVERSE = 315
    """Whether time runs backwards."""
    TRACKING_FRAMES = 321
    """Which frames of a clip its template, its online template and its search crop are cut out of."""
    TRACKING_JITTER = 322
    """By how much the search crop misses its target."""
    TRACKING_FLIP = 323
    """Whether the crops are mirrored."""
    VIDEO_WARP = 331
    """How a still image is warped into frames."""
    OPENVOCAB_LIST = 401
    """Which classes a sample is asked about."""
    OPENVOCAB_ORDER = 402
    """In which order."""


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Splitmix64 (Steele et al. 2014): neighbouring integers to unrelated ones, modulo 2**64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def stream(draws: NDArray[np.uint64], salt: int, length: int) -> NDArray[np.uint64]:
    """[B, length]: hashes of draws [B], independent of those of another `salt`; a longer one begins like a shorter one."""
    places = mix(np.arange(length, dtype=np.uint64) + np.uint64(salt << 32))
    return mix(np.asarray(draws, np.uint64)[:, None] ^ places[None])


def below(hashes: NDArray[np.uint64], bound: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Whole numbers in 0 .. bound - 1, uniform to within bound / 2**53; `hashes` and `bound` have one shape."""
    # A 53-bit fraction times a bound below 2**53 never rounds up to the bound.
    return ((hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53 * bound).astype(np.int64)


def of_name(name: str) -> np.uint64:
    """A draw that belongs to a name for good."""
    return np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
