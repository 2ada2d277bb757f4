"""Predictors that learn nothing, for the task ``openvocab``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.labelled import VOID
from bench.tasks.openvocab_evaluation import best, resized

if TYPE_CHECKING:
    from bench.contracts import Batch
    from bench.data.labelled import LabelledImages
    from bench.tasks.openvocab_evaluation import Ask, Scenes

COUNTED_PICTURES = 200
"""Training pictures whose pixels are counted, the first ones."""


def most_frequent(data: LabelledImages) -> Callable[..., Ask]:
    """Answers everywhere with the class, of those asked for, that most pixels of `data`, the training pictures, have."""
    pixels, names = np.zeros(VOID + 1, np.int64), data.vocabulary.names
    for index in range(min(COUNTED_PICTURES, len(data))):
        pixels += np.bincount(data.labels(index).ravel(), minlength=VOID + 1)
    ranked = [names[place] for place in pixels[: len(names)].argsort(kind="stable")[::-1]]

    def ask(scenes: Scenes, *, shuffled: bool = False) -> Ask:
        place = next((scenes.names.index(name) for name in ranked if name in scenes.names), 0)

        def answer(inputs: Batch, size: tuple[int, int]) -> Tensor:
            return torch.full((len(next(iter(inputs.values()))), *size), place)

        return answer

    return ask


def raw_cosine(scenes: Scenes, *, shuffled: bool = False) -> Ask:
    """Answers with the class whose features are nearest to those of the image token, resized bilinearly."""
    text = F.normalize(scenes.text, dim=2).mean(1)
    text = F.normalize(text.roll(len(text) // 2, 0) if shuffled else text, dim=1)

    def answer(inputs: Batch, size: tuple[int, int]) -> Tensor:
        features = F.normalize(inputs["image_features"], dim=1)
        return best(resized(torch.einsum("bchw,tc->bthw", features, text), size))

    return answer
