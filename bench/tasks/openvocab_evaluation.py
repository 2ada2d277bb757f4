"""Pictures under evaluation: what a split is scored on, asking a model for all of its classes at once, and the records of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.data.labelled import VOID, Vocabulary
from bench.metrics import segmentation
from bench.tasks import openvocab_aligned as aligned
from bench.tasks.openvocab_batches import to_device
from bench.tasks.openvocab_config import LABEL_SCALE
from bench.tasks.openvocab_lists import asked, relabel
from bench.tasks.openvocab_metrics import COUNTS

if TYPE_CHECKING:
    from bench.contracts import Batch, SampleRecord
    from bench.data.labelled import LabelledImages
    from bench.tasks.openvocab_config import OpenVocabularyConfig
    from bench.tasks.openvocab_lists import Prompts

BROKEN = -1
"""Answer where scores are not finite."""

Ask = Callable[["Batch", tuple[int, int]], Tensor]
"""``ask(inputs, size)``: answers [B, *size] to host inputs, on any device: a place in the list of classes, or `BROKEN`."""


class Scene(NamedTuple):
    """One picture to be scored."""

    name: str
    inputs: Batch
    """Host batch of this one, without the text."""
    labels: NDArray[np.uint16]
    """[H, W]: position in `Scenes.parts`, or `VOID`."""


class Scenes(Protocol):
    """What a split is scored on: pictures, and one list of classes for all of them."""

    text_field: str
    """Input that the list goes to."""
    text: Tensor
    """Of all T classes that are asked for, [T, P, L] ids or [T, P, C] features."""
    names: tuple[str, ...]
    """Of these classes."""
    parts: tuple[str, ...]
    """``<group>/<name>`` of each class that labels stand for."""
    answers: Tensor | None
    """[T] position in `parts` that an answer counts as; None: its own."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Scene:
        """Picture `index`."""
        ...


class PictureScenes:
    """`Scenes` of pictures and names."""

    text_field = "names"

    def __init__(self, data: LabelledImages, split: str, count: int, prompts: Prompts) -> None:
        """The first `count` pictures of `data`; of its vocabulary, the classes that `split` is asked about."""
        scored: Vocabulary = getattr(data, "scored", data.vocabulary)
        mapped = getattr(data, "evaluation_map", None)
        self._data, self._split, self._count = data, split, count
        classes = asked(data.vocabulary, split)
        self.names = tuple(data.vocabulary.names[place] for place in classes)
        self.text = torch.from_numpy(prompts.ids(self.names))
        self._kept = classes if mapped is None else np.arange(len(scored.names))
        self.answers = None if mapped is None else torch.tensor(mapped)[classes]
        self.parts = tuple(f"{scored.groups[place]}/{scored.names[place]}" for place in self._kept)

    def __len__(self) -> int:
        """Number of pictures."""
        return self._count

    def read(self, index: int) -> Scene:
        """Picture `index`, whole and in its own size."""
        image = torch.from_numpy(np.array(self._data.image(index))[None]).movedim(-1, 1)
        labels = relabel(self._data.labels(index), self._kept)
        return Scene(f"{self._split}/{self._data.name(index)}", {"image": image}, labels)


class AlignedScenes:
    """`Scenes` of made-up features."""

    text_field = "text_features"
    answers: Tensor | None = None

    def __init__(self, config: OpenVocabularyConfig, data: aligned.AlignedFeatures, split: str) -> None:
        """As many as the options say."""
        vocabulary = data.vocabulary(split)
        self.names, self.text = vocabulary.names, torch.from_numpy(data.text)
        self.parts = tuple(f"{group}/{name}" for group, name in zip(vocabulary.groups, vocabulary.names, strict=True))
        self._data, self._split, self._count = data, split, config.image_limit(split) or 0

    def __len__(self) -> int:
        """Number of pictures."""
        return self._count

    def read(self, index: int) -> Scene:
        """Picture `index`."""
        sample = self._data.evaluated(self._split, index)
        return Scene(f"{self._split}/picture-{index:05d}", aligned.inputs([sample]), sample.labels)


def ask(
    config: OpenVocabularyConfig, model: Any, scenes: Scenes, device: torch.device, *, shuffled: bool = False
) -> Ask:
    """How `model` is asked for the classes of `scenes`.

    One with ``encode_text`` and ``segment`` reads the text once and is asked for probabilities by ``segment(image, text, size)``, or
    for the best class by ``segment_labels`` with the same arguments, where it has that; any other one by forward, with pictures
    squashed to ``crop_size`` and its logits resized bilinearly.

    Args:
        config: the options.
        model: in eval mode, on `device`.
        scenes: what it is asked for.
        device: where it is.
        shuffled: every class gets the text of another one, half of the list further on: a control.
    """
    text = (scenes.text.roll(len(scenes.text) // 2, 0) if shuffled else scenes.text).to(device)
    reads = scenes.text_field == "names" and hasattr(model, "segment")
    encoded = model.encode_text(text) if reads else None

    def answer(inputs: Batch, size: tuple[int, int]) -> Tensor:
        moved = to_device(inputs, device)
        if encoded is not None:
            return _segmented(model, moved["image"], encoded, size)
        samples = len(next(iter(moved.values())))
        return _by_forward(config, model, {**moved, scenes.text_field: text.expand(samples, *text.shape)}, size)

    return answer


def repeatable(config: OpenVocabularyConfig, model: Any, inputs: Batch) -> Callable[[], Tensor]:
    """A call that answers for pictures and classes as architectures receive them, on the device, as `ask` does it."""
    if "image" not in inputs:
        side = LABEL_SCALE * config.grid
        return partial(_by_forward, config, model, inputs, (side, side))
    image, names = inputs["image"], inputs["names"]
    size = (image.shape[2], image.shape[3])
    if hasattr(model, "segment"):
        return partial(_segmented, model, image, model.encode_text(names[0]), size)
    return partial(_by_forward, config, model, inputs, size)


def _segmented(model: Any, image: Tensor, text: Tensor, size: tuple[int, int]) -> Tensor:
    if hasattr(model, "segment_labels"):
        labels: Tensor = model.segment_labels(image, text, size)
        return labels
    return best(model.segment(image, text, size))


def _by_forward(config: OpenVocabularyConfig, model: Any, inputs: Batch, size: tuple[int, int]) -> Tensor:
    if "image" in inputs:
        inputs = {**inputs, "image": squashed(inputs["image"], config.crop_size)}
    return best(resized(model(**inputs)["logits"].float(), size))


def best(scores: Tensor) -> Tensor:
    """[B, H, W]: the class of highest score of [B, T, H, W]; `BROKEN` where one is not finite."""
    return scores.argmax(1).masked_fill(~scores.isfinite().all(1), BROKEN)


def squashed(image: Tensor, size: int) -> Tensor:
    """Pictures [B, 3, H, W] as squares of `size` pixels."""
    return (
        image
        if image.shape[2:] == (size, size)
        else F.interpolate(image, (size, size), mode="bilinear", antialias=True)
    )


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, T, h, w] at another size, bilinearly."""
    return maps if maps.shape[2:] == size else F.interpolate(maps, size, mode="bilinear", align_corners=False)


def answers(question: Ask, scenes: Scenes, batch: list[Scene]) -> Tensor:
    """[B, H, W] position in ``scenes.parts`` of the best class of every pixel, on the CPU.

    Raises:
        FloatingPointError: a picture's scores are not finite; names it.
        ValueError: answers have the wrong shape, or are no classes.
    """
    size = batch[0].labels.shape
    inputs = {name: torch.cat([scene.inputs[name] for scene in batch]) for name in batch[0].inputs}
    found = question(inputs, (size[0], size[1])).cpu()
    if found.shape != (shape := (len(batch), *size)) or int(found.max()) >= len(scenes.text):
        raise ValueError(
            f"answers must be {list(shape)} with classes below {len(scenes.text)}, got {list(found.shape)} up to {int(found.max())}"
        )
    for scene, broken in zip(batch, (found == BROKEN).flatten(1).any(1).tolist(), strict=True):
        if broken:
            raise FloatingPointError(f"{scene.name}: the scores are not finite")
    return found if scenes.answers is None else scenes.answers[found]


def score(
    config: OpenVocabularyConfig, question: Ask, scenes: Scenes, count: int, *, quick: bool = False
) -> Iterator[SampleRecord]:
    """Records of the first `count` pictures: `COUNTS` of their classes and, unless `quick`, what is told of each picture alone."""
    for batch in batches(scenes, count, config.eval_batch):
        for scene, found in zip(batch, answers(question, scenes, batch), strict=True):
            labels, classes = scene.labels.astype(np.int64), len(scenes.parts)
            table = segmentation.counts(found, labels, classes, VOID)
            record: SampleRecord = {"sample": scene.name, COUNTS: segmentation.named_counts(table, scenes.parts)}
            hits, true, _ = table.sum(0).tolist()
            if not quick and true:
                record["picture_accuracy"] = 100 * hits / true
                record["boundary_iou"] = segmentation.boundary_iou(found, labels, classes, VOID)
            yield record


def batches(scenes: Scenes, count: int, size: int) -> Iterator[list[Scene]]:
    """The first `count` pictures in lists of at most `size` of equal height and width, in order."""
    batch: list[Scene] = []
    for index in range(count):
        scene = scenes.read(index)
        if batch and (len(batch) == size or scene.labels.shape != batch[0].labels.shape):
            yield batch
            batch = []
        batch.append(scene)
    if batch:
        yield batch
