"""Batches of the task ``openvocab``: crops of pictures with their class lists, made up for probes, moved to the device.

A host batch holds ``image`` [B, 3, H, W] uint8 (in the memory layout of files), ``names`` [B, T, P, L] int64 and ``labels``
[B, H, W] int32, position in the sample's list or `VOID`; of ``aligned`` data see `openvocab_aligned`. `to_device` makes of it what
architectures and the loss receive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.data.crops import flips
from bench.data.draws import Salt, stream
from bench.data.labelled import VOID
from bench.tasks.openvocab_lists import asked, draw_list, list_keys, present_in, relabel

if TYPE_CHECKING:
    from torch import Tensor

    from bench.contracts import Batch
    from bench.data.labelled import LabelledImages
    from bench.tasks.openvocab_config import OpenVocabularyConfig
    from bench.tasks.openvocab_lists import Prompts

TEXT_FIELDS = ("names", "text_features")
"""Inputs whose second axis is the class; a batch has one of them."""


def host_batch(
    config: OpenVocabularyConfig, data: LabelledImages, ids: NDArray[np.int64], indices: np.ndarray, draws: np.ndarray
) -> Batch:
    """Host batch of a crop of each of the pictures `indices` [B], with a list of classes, as its draw [B] uint64 says.

    `ids` [classes, P, L] are the prompts of the vocabulary of `data`.
    """
    pool = asked(data.vocabulary, "train")
    length = list_length(config, len(pool))
    images, lists, labels = [], [], []
    drawn = (stream(draws, Salt.TASK_CROP, 3), flips(draws), *list_keys(draws, len(pool), length))
    for index, place, mirrored, keys, order in zip(indices.tolist(), *drawn, strict=True):
        pixels, classes = crop(config, data.image(index), data.labels(index), place, mirrored)
        fixed = config.class_list == "fixed"
        chosen = pool if fixed else draw_list(pool, present_in(classes), keys, order)
        images.append(pixels)
        lists.append(chosen)
        labels.append(relabel(classes, chosen))
    return {
        "image": torch.from_numpy(np.stack(images)).movedim(-1, 1),
        "names": torch.from_numpy(ids[np.stack(lists)]),
        "labels": torch.from_numpy(np.stack(labels).astype(np.int32)),
    }


def list_length(config: OpenVocabularyConfig, classes: int) -> int:
    """Classes T of a training sample's list, where training has so many."""
    return classes if config.class_list == "fixed" else config.classes_per_list


def crop(
    config: OpenVocabularyConfig,
    image: NDArray[np.uint8],
    labels: NDArray[np.uint16],
    place: NDArray[np.uint64],
    mirrored: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """A square part of a picture [h, w, 3] and of its labels [h, w] at ``crop_size``, as three hashes say, mirrored or not.

    The shorter side comes to ``crop_size`` times a number from ``scale``; pixels are resized bilinearly, labels taken as they are.
    """
    size, (height, width) = config.crop_size, labels.shape
    scale, row, column = ((int(h) >> 11) * 2.0**-53 for h in place)
    side = min(height, width) / (config.scale[0] + (config.scale[1] - config.scale[0]) * scale)
    top, left = row * (height - side), column * (width - side)
    box = (left, top, left + side, top + side)
    part = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
    steps = (np.arange(size) + 0.5) * (side / size)
    labels = labels[(top + steps).astype(np.int64)[:, None], (left + steps).astype(np.int64)]
    if mirrored:  # by Pillow, which is faster than a copy of reversed pixels
        part, labels = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT), labels[:, ::-1]
    return np.asarray(part), labels


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a host batch: bytes of images become fp32 in 0..1, labels int64. On CUDA it crosses pinned, asynchronously."""
    moved = {}
    for name, value in batch.items():
        if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
            value = value.contiguous().pin_memory()
        moved[name] = value.to(device, non_blocking=True)
    if "image" in moved:
        moved["image"] = moved["image"].float().div_(255)
    if "labels" in moved:
        moved["labels"] = moved["labels"].long()
    return moved


def synthetic(config: OpenVocabularyConfig, prompts: Prompts, batch_size: int, seed: int, classes: int) -> Batch:
    """Host batch of random pixels, of lists of `classes` made-up names, and of labels in blocks, some of them void."""
    generator, size = np.random.default_rng(seed), config.crop_size
    images = generator.integers(0, 256, (batch_size, size, size, 3), np.uint8)
    ids = prompts.ids([f"thing {number}" for number in range(classes)])
    order = np.tile(np.arange(classes), (batch_size, 1))
    if config.class_list == "drawn":
        order = generator.permuted(order, axis=1)
    return {
        "image": torch.from_numpy(images).movedim(-1, 1),
        "names": torch.from_numpy(ids[order]),
        "labels": torch.from_numpy(blocks(generator, batch_size, size, classes)),
    }


def blocks(generator: np.random.Generator, batch_size: int, size: int, classes: int) -> NDArray[np.int32]:
    """Labels [B, size, size] in 4 x 4 blocks, about one in `classes` + 1 of them void."""
    coarse = generator.integers(0, classes + 1, (batch_size, 4, 4))
    place = np.arange(size) * 4 // size
    fine = coarse[:, place[:, None], place].astype(np.int32)
    return np.where(fine == classes, VOID, fine)


def edge_cases(batch: Batch) -> dict[str, Batch]:
    """Legal but degenerate host batches, by name, made of a legal one."""
    labels = batch["labels"]
    cases = {
        "all void": {**batch, "labels": torch.full_like(labels, VOID)},
        "one class everywhere": {**batch, "labels": torch.zeros_like(labels)},
    }
    if "image" in batch:
        for name, value in (("black images", 0), ("white images", 255)):
            cases[name] = {**batch, "image": torch.full_like(batch["image"], value)}
    else:
        cases["images without features"] = {**batch, "image_features": torch.zeros_like(batch["image_features"])}
    return cases


def permute_classes(batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with the classes of all lists in another order, the labels with them."""
    field = next(name for name in TEXT_FIELDS if name in batch)
    order = _order(batch[field].shape[1], generator).to(batch[field].device)
    table = torch.full((VOID + 1,), VOID, device=order.device)
    table[order] = torch.arange(len(order), device=order.device)
    return {**batch, field: batch[field][:, order], "labels": table[batch["labels"].long()].to(batch["labels"].dtype)}


def restore_classes(outputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Outputs of `permute_classes`, whose generator had the same state, in the old order of classes."""
    logits = outputs["logits"]
    order = _order(logits.shape[1], generator).to(logits.device)
    return {**outputs, "logits": logits[:, order.argsort()]}


def _order(classes: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(classes, generator=generator)
