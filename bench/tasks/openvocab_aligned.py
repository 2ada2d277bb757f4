"""Made-up features of images and names that agree already: what the head of an open-vocabulary network makes of them, alone.

A class is a random direction, a picture a plane cut into regions of different classes. An image token is the mean of the classes
that it covers plus noise, some of it common to a region, so that averaging over tokens does not remove it. The guidance shows at
one, two and four times the grid which pixels belong together, and nothing of what they are. Unseen classes are directions that no
training sample has. Host batches, with h = w = ``grid``, H = W = 4 h and the numbers of channels G_i of ``guidance_widths``:

==============  ================  ====================================================================
image_features  [B, C, h, w]      fp32
text_features   [B, T, P, C]      fp32; with one prompt the direction of the class itself
guidance_0      [B, G0, h, w]     fp32; guidance_1 [B, G1, 2h, 2w], guidance_2 [B, G2, 4h, 4w]
labels          [B, H, W]         int32: position in the sample's list, or `VOID`
==============  ================  ====================================================================
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.draws import mix, of_name
from bench.data.labelled import Vocabulary
from bench.tasks.openvocab_batches import blocks, list_length
from bench.tasks.openvocab_config import LABEL_SCALE
from bench.tasks.openvocab_lists import draw_list, list_keys, present_in, relabel

if TYPE_CHECKING:
    from bench.contracts import Batch
    from bench.tasks.openvocab_config import OpenVocabularyConfig

REGIONS = (6, 10)
"""Fewest regions of a picture, and one more than most."""
STRETCH = 1.6
"""Most that distances along an axis count more or less than along the other, region by region."""
REGION_NOISE = 0.6
"""Length of the part of the noise that a region's tokens have in common, over the length of a class."""
PROMPT_NOISE = 0.3
"""Length of what tells a prompt of a class from its others."""
GUIDANCE_NOISE = 0.1
"""Deviation of the noise on guidance, whose regions are random vectors of deviation 1."""
NOTICE = (
    "Features are made up and agree with names from the start: numbers compare what heads make of given features, and say nothing of "
    "images or of language."
)
VERSION = "2"
"""Bumped whenever a change here moves a number."""
OPTIONS = (
    "data_seed",
    "feature_width",
    "grid",
    "guidance_widths",
    "prompts",
    "seen_classes",
    "unseen_classes",
    "feature_noise",
)
"""What else determines the features."""

Floats = NDArray[np.float32]


class Sample(NamedTuple):
    """One made-up picture."""

    features: Floats
    """[C, h, w]."""
    guidance: tuple[Floats, Floats, Floats]
    """[G0, h, w], [G1, 2h, 2w], [G2, 4h, 4w]."""
    labels: NDArray[np.uint16]
    """[4h, 4w]: number of the class."""


class AlignedFeatures:
    """Pictures of ``data: aligned``, each a function of its draw and the options alone."""

    def __init__(self, config: OpenVocabularyConfig) -> None:
        """Nothing is drawn before it is asked for."""
        self._config = config
        groups = ["seen"] * config.seen_classes + ["unseen"] * config.unseen_classes
        names = tuple(f"class {number}" for number in range(len(groups)))
        self._vocabularies = {
            "train": Vocabulary(names[: config.seen_classes], tuple(groups[: config.seen_classes])),
            "test": Vocabulary(names, tuple(groups)),
        }

    @property
    def fingerprint(self) -> str:
        """Digest of all that determines the features."""
        told = {name: getattr(self._config, name) for name in OPTIONS} | {"version": VERSION}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def vocabulary(self, split: str) -> Vocabulary:
        """The seen classes in training and validation, all of them in the test."""
        return self._vocabularies["test" if split == "test" else "train"]

    @cached_property
    def text(self) -> Floats:
        """Features [classes, P, C] of all prompts."""
        config, generator = self._config, self._generator("prompts")
        noise = _directions(generator, (len(self._directions), config.prompts, config.feature_width))
        return self._directions[:, None] + (PROMPT_NOISE * (config.prompts > 1)) * noise

    @cached_property
    def _directions(self) -> Floats:
        """[classes, C], of length 1."""
        config, generator = self._config, self._generator("classes")
        return _directions(generator, (config.seen_classes + config.unseen_classes, config.feature_width))

    def _draw(self, what: str) -> np.uint64:
        return of_name(f"openvocab/aligned/{VERSION}/{self._config.data_seed}/{what}")

    def _generator(self, what: str) -> np.random.Generator:
        return np.random.default_rng(int(self._draw(what)))

    def host_batch(self, indices: np.ndarray, draws: np.ndarray) -> Batch:
        """Training samples: `indices` [B] count them, `draws` [B] uint64 say what they are."""
        pool = np.arange(self._config.seen_classes)
        length, fixed = list_length(self._config, len(pool)), self._config.class_list == "fixed"
        samples, lists, labels = [], [], []
        draws = mix(draws ^ mix(np.asarray(indices, np.uint64)))
        for draw, keys, order in zip(draws, *list_keys(draws, len(pool), length), strict=True):
            sample = self.sample(draw, pool)
            chosen = pool if fixed else draw_list(pool, present_in(sample.labels), keys, order)
            samples.append(sample)
            lists.append(chosen)
            labels.append(relabel(sample.labels, chosen))
        return {
            "text_features": torch.from_numpy(self.text[np.stack(lists)]),
            **inputs(samples),
            "labels": torch.from_numpy(np.stack(labels).astype(np.int32)),
        }

    def evaluated(self, split: str, index: int) -> Sample:
        """A picture of ``validation`` or ``test``: the same for good."""
        return self.sample(self._draw(f"{split}/{index}"), np.arange(len(self.vocabulary(split).names)))

    def sample(self, draw: np.uint64, pool: NDArray[np.int64]) -> Sample:
        """A picture of regions of different classes of `pool`."""
        config, generator = self._config, np.random.default_rng(int(draw))
        count = min(int(generator.integers(*REGIONS)), len(pool))
        classes = generator.choice(pool, count, replace=False)
        regions = _regions(generator, LABEL_SCALE * config.grid, count)
        # [K, size, size]: the share of each region in every cell, of the grid first and of label pixels last.
        shares = [(regions == np.arange(count)[:, None, None]).astype(np.float32)]
        while (last := shares[0]).shape[1] > config.grid:
            shares.insert(0, (last[:, ::2, ::2] + last[:, 1::2, ::2] + last[:, ::2, 1::2] + last[:, 1::2, 1::2]) / 4)

        def noisy(vectors: Floats, step: int, deviation: float) -> Floats:
            """Vectors [K, X] of regions as a map [X, size, size] at a step of the pyramid, and noise."""
            noise = generator.standard_normal((vectors.shape[1], *shares[step].shape[1:]), np.float32)
            return np.tensordot(vectors, shares[step], (0, 0)) + np.float32(deviation) * noise

        region = self._directions[classes] + REGION_NOISE * _directions(generator, (count, config.feature_width))
        features = noisy(region, 0, config.feature_noise / config.feature_width**0.5)
        coarse, middle, fine = (
            noisy(generator.standard_normal((count, width), np.float32), step, GUIDANCE_NOISE)
            for step, width in enumerate(config.guidance_widths)
        )
        return Sample(features, (coarse, middle, fine), classes[regions].astype(np.uint16))

    def synthetic(self, batch_size: int, seed: int, classes: int) -> Batch:
        """Host batch of random features and lists of `classes` random directions, or of those of training in their order."""
        config, generator = self._config, np.random.default_rng(seed)
        shape = (batch_size, classes, config.prompts, config.feature_width)
        text = _directions(generator, shape)
        if config.class_list == "fixed":
            text = np.tile(self.text[:classes], (batch_size, 1, 1, 1))
        maps = {"image_features": (config.feature_width, config.grid)}
        maps |= {f"guidance_{step}": (width, config.grid << step) for step, width in enumerate(config.guidance_widths)}
        random = {
            name: torch.from_numpy(generator.standard_normal((batch_size, width, side, side), np.float32))
            for name, (width, side) in maps.items()
        }
        labels = torch.from_numpy(blocks(generator, batch_size, config.label_size, classes))
        return {"text_features": torch.from_numpy(text), **random, "labels": labels}


def inputs(samples: list[Sample]) -> Batch:
    """Features and guidance of pictures, stacked."""
    maps = {f"guidance_{step}": [sample.guidance[step] for sample in samples] for step in range(3)}
    stacked = {"image_features": [sample.features for sample in samples], **maps}
    return {name: torch.from_numpy(np.stack(parts)) for name, parts in stacked.items()}


def _directions(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Random vectors of length 1 along the last axis."""
    vectors = generator.standard_normal(shape, np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _regions(generator: np.random.Generator, size: int, count: int) -> NDArray[np.int64]:
    """[size, size]: which of `count` random points is nearest, each by a measure of its own."""
    points = generator.random((count, 2, 1), np.float32)
    stretch = np.exp(generator.uniform(-1, 1, (count, 1)) * np.log(STRETCH)).astype(np.float32)
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    rows, columns = (line - points[:, 0]) ** 2 * stretch, (line - points[:, 1]) ** 2 / stretch
    return (rows[:, :, None] + columns[:, None]).argmin(0)
