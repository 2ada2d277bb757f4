"""Counts against detectron2's confusion matrix written out, scores against torchmetrics, boundaries against iterated erosion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from bench.aggregates import aggregate
from bench.class_counts import DEFINITIONS
from bench.metrics.segmentation import boundary_iou, counts, named_counts

CLASSES = 7
GLOBAL = ("miou-gt", "miou-union", "fwiou", "mean-accuracy", "pixel-accuracy")

pixels = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(-1, CLASSES - 3)), min_size=1, max_size=60)
"""Prediction and label of each pixel; -1 is void. Some classes are only ever predicted."""
voids = st.sampled_from([-100, CLASSES, 255, 459, 65535])


def maps(drawn: list[tuple[int, int]], void: int) -> tuple[np.ndarray, np.ndarray]:
    predictions, labels = np.array(drawn).T
    return predictions, np.where(labels < 0, void, labels)


def scores(predictions: np.ndarray, labels: np.ndarray, void: int) -> dict[str, float]:
    found = named_counts(counts(predictions, labels, CLASSES, void), [f"c{index}" for index in range(CLASSES)])
    return {name: DEFINITIONS[name](found) for name in GLOBAL}


def by_confusion_matrix(predictions: np.ndarray, labels: np.ndarray, void: int) -> dict[str, float]:
    """As detectron2's evaluator has it: void is one more class, whose row and column are cut off."""
    labels = np.where(labels == void, CLASSES, labels)
    matrix = np.zeros((CLASSES + 1, CLASSES + 1))
    np.add.at(matrix, (predictions, labels), 1)
    matrix = matrix[:-1, :-1]
    hits, true, predicted = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
    if not true.sum():
        return dict.fromkeys(GLOBAL, math.nan)
    there, union = true > 0, true + predicted - hits
    iou = hits[there] / union[there]
    return {
        "miou-gt": 100 * iou.mean(),
        "miou-union": 100 * iou.sum() / (union > 0).sum(),
        "fwiou": 100 * (iou * true[there]).sum() / true.sum(),
        "mean-accuracy": 100 * (hits[there] / true[there]).mean(),
        "pixel-accuracy": 100 * hits.sum() / true.sum(),
    }


@settings(max_examples=60, deadline=None)
@given(pixels, voids)
def test_scores_are_those_of_the_confusion_matrix(drawn: list[tuple[int, int]], void: int) -> None:
    predictions, labels = maps(drawn, void)
    expected = by_confusion_matrix(predictions, labels, void)
    assert scores(predictions, labels, void) == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_scores_are_those_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES - 2, (4, 20, 30), generator=generator)
    predictions = torch.where(torch.rand(labels.shape, generator=generator) < 0.5, labels, (labels * 3 + 1) % CLASSES)
    labels[:, :3] = 255
    found = scores(predictions, labels, 255)

    def iou(average: str) -> torch.Tensor:
        return 100 * MulticlassJaccardIndex(CLASSES, average=average, ignore_index=255)(predictions, labels)

    there = torch.bincount(labels[labels != 255], minlength=CLASSES) > 0
    assert not there.all(), "otherwise both means are one"
    accuracy = MulticlassAccuracy(CLASSES, average="micro", ignore_index=255)(predictions, labels)
    theirs = {
        "miou-union": iou("macro"),
        "miou-gt": iou("none")[there].mean(),
        "fwiou": iou("weighted"),
        "pixel-accuracy": 100 * accuracy,
    }
    assert {name: found[name] for name in theirs} == pytest.approx(
        {name: float(value) for name, value in theirs.items()}, abs=1e-4
    )


@settings(max_examples=40, deadline=None)
@given(pixels, st.integers(0, 60), voids)
def test_counts_of_parts_add_up_to_those_of_the_whole(drawn: list[tuple[int, int]], cut: int, void: int) -> None:
    predictions, labels = maps(drawn, void)
    names = [f"c{index}" for index in range(CLASSES)]
    parts = [counts(predictions[part], labels[part], CLASSES, void) for part in (slice(cut), slice(cut, None))]
    assert torch.equal(parts[0] + parts[1], counts(predictions, labels, CLASSES, void))
    records = [named_counts(part, names) for part in parts]
    for name, score in scores(predictions, labels, void).items():
        assert aggregate(records, name) == pytest.approx(score, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(pixels, st.permutations(range(CLASSES)), voids)
def test_the_order_of_classes_does_not_matter(drawn: list[tuple[int, int]], order: list[int], void: int) -> None:
    predictions, labels = maps(drawn, void)
    table = np.array(order)
    moved = np.where(labels == void, void, table[np.where(labels == void, 0, labels)])
    assert torch.equal(
        counts(table[predictions], moved, CLASSES, void)[order], counts(predictions, labels, CLASSES, void)
    )
    assert scores(table[predictions], moved, void) == pytest.approx(scores(predictions, labels, void), nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(pixels, st.integers(-300, 70000), voids)
def test_what_is_predicted_on_void_pixels_does_not_matter(drawn: list[tuple[int, int]], other: int, void: int) -> None:
    predictions, labels = maps(drawn, void)
    changed = np.where(labels == void, other, predictions)
    assert torch.equal(counts(changed, labels, CLASSES, void), counts(predictions, labels, CLASSES, void))


def test_labels_of_16_bits_and_a_void_index_in_the_middle() -> None:
    labels = np.array([[0, 846, 65535], [300, 300, 255]], np.uint16)
    predictions = np.array([[0, 846, 12], [300, 255, 255]], np.uint16)
    expected = {"a0": [1, 1, 1], "a255": [1, 1, 2], "a300": [1, 2, 1], "a846": [1, 1, 1]}
    names = [f"a{index}" for index in range(847)]
    assert named_counts(counts(predictions, labels, 847, 65535), names) == expected
    as_tensors = counts(torch.from_numpy(predictions), labels, 847, 65535)
    assert named_counts(as_tensors, names) == expected
    without = named_counts(counts(predictions, np.where(labels == 65535, 255, labels), 847, 255), names)
    assert without == {"a0": [1, 1, 1], "a255": [0, 0, 1], "a300": [1, 2, 1], "a846": [1, 1, 1]}


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0, 1], [0, 7], "a label is 7, but classes are 0 to 6 and 255 is void"),
        ([0, 1], [0, -1], "a label is -1"),
        ([0, 7], [0, 0], "a prediction is 7"),
        ([0, 1], [0, 0, 0], r"predictions are \[2\], but labels are \[3\]"),
    ],
)
def test_what_is_out_of_range_is_an_error(predictions: list[int], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        counts(np.array(predictions), np.array(labels), CLASSES, 255)


def test_every_class_needs_a_name_of_its_own() -> None:
    with pytest.raises(ValueError, match="3 classes need as many different names, got 2"):
        named_counts(torch.zeros(3, 3, dtype=torch.int64), ["seen/a", "seen/b", "seen/a"])


def test_groups_of_classes_and_their_harmonic_mean() -> None:
    record = {"seen/a": [6, 8, 8], "seen/b": [1, 1, 1], "unseen/a": [1, 2, 3], "word/c": [0, 0, 5]}
    seen, unseen = 100 * (0.6 + 1) / 2, 100 * 0.25
    assert aggregate([record], "miou-gt:seen") == pytest.approx(seen)
    assert aggregate([record], "miou-gt:unseen") == pytest.approx(unseen)
    assert aggregate([record], "harmonic") == pytest.approx(2 * seen * unseen / (seen + unseen))
    alone = {name: counts for name, counts in record.items() if name.startswith("seen/")}
    assert aggregate([alone], "harmonic") == pytest.approx(seen), "of one group where nothing of the other is shown"
    assert aggregate([record], "miou-union") == pytest.approx(100 * (0.6 + 1 + 0.25 + 0) / 4)


# --- boundaries ----------------------------------------------------------------------------------------------------


def blocks(seed: int, void: bool = True) -> np.ndarray:
    """A label map [18, 24] of smooth regions, with some void."""
    generator = np.random.default_rng(seed)
    labels = np.kron(generator.integers(0, 4, (3, 4)), np.ones((6, 6), np.int64))
    rows, columns = generator.integers(0, 15, 2)
    labels[rows : rows + 3, columns : columns + 5] = 255 if void else 3
    return labels


def eroded_boundary_iou(predictions: np.ndarray, labels: np.ndarray, distance: int) -> float:
    """Class by class, as published: a mask less its erosion, repeated; beyond the image there is nothing."""
    values = []
    for index in range(CLASSES):
        masks = [(values == index) & (labels != 255) for values in (predictions, labels)]
        bands = [mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=0) for mask in masks]
        if bands[1].any():
            values.append(100 * (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum())
    return float(np.mean(values))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_boundary_iou_is_that_of_bands_made_by_erosion(seed: int, distance: int) -> None:
    predictions, labels = np.roll(blocks(seed, void=False), seed % 5, axis=1), blocks(seed)
    expected = eroded_boundary_iou(predictions, labels, distance)
    assert boundary_iou(predictions, labels, CLASSES, 255, distance) == pytest.approx(expected)
    assert boundary_iou(labels, labels, CLASSES, 255, distance) == 100


def test_a_shifted_edge_costs_more_at_the_boundary_than_inside() -> None:
    labels = np.zeros((60, 80), np.uint8)  # diagonal 100: the band is 2 pixels wide
    labels[20:40, 20:60] = 1
    shifted = torch.from_numpy(np.roll(labels, 1, axis=0))
    near = boundary_iou(shifted, labels, 2, 255)
    assert near == boundary_iou(shifted, labels, 2, 255, distance=2)
    assert near < 80 < scores(shifted.numpy(), labels, 255)["miou-gt"]
    assert math.isnan(boundary_iou(shifted, np.full_like(labels, 255), 2, 255))
    with pytest.raises(ValueError, match=r"of one image \[H, W\], got \[1, 60, 80\]"):
        boundary_iou(shifted[None], labels[None], 2, 255)
