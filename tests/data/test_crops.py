"""Crops and mirroring: functions of the draw alone, distributed as torchvision's, resized as Pillow does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data.crops import RATIO, SCALE, crop_centre, crop_randomly, flips, random_box

SIDES = st.integers(1, 700)


@given(draw=st.integers(0, 2**64 - 1), height=SIDES, width=SIDES)
def test_a_crop_lies_inside_any_image_and_follows_from_its_draw(draw: int, height: int, width: int) -> None:
    left, top, right, bottom = box = random_box(np.uint64(draw), height, width)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert random_box(np.uint64(draw), height, width) == box


def test_crops_are_distributed_as_torchvisions() -> None:
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = Image.new("RGB", (400, 300))
    theirs = np.array([RandomResizedCrop.get_params(image, SCALE, RATIO) for _ in range(4000)])  # top, left, h, w
    boxes = np.array([random_box(np.uint64(draw), 300, 400) for draw in range(4000)])
    ours = np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], axis=1)
    for quantity in (lambda b: b[:, 2] * b[:, 3] / 120_000, lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0] / 300):
        quantiles = [np.quantile(quantity(found), np.linspace(0.05, 0.95, 10)) for found in (ours, theirs)]
        np.testing.assert_allclose(*quantiles, atol=0.025)
    left, top = ours[:, 1] / np.maximum(400 - ours[:, 3], 1), ours[:, 0] / np.maximum(300 - ours[:, 2], 1)
    assert abs(np.corrcoef(left, top)[0, 1]) < 0.05, "independent of each other"


def test_an_image_too_long_for_any_crop_is_cut_about_its_middle() -> None:
    assert random_box(np.uint64(7), 10, 1000) == (493, 0, 506, 10)
    assert random_box(np.uint64(7), 1000, 9) == (0, 494, 9, 506)


def test_one_in_two_is_mirrored_whatever_the_crop() -> None:
    draws = np.arange(4000, dtype=np.uint64)
    mirrored = flips(draws)
    assert mirrored.mean() == pytest.approx(0.5, abs=0.03)
    left = np.array([random_box(draw, 300, 400)[0] for draw in draws])
    assert abs(np.corrcoef(mirrored, left)[0, 1]) < 0.05
    assert flips(draws[5:6])[0] == mirrored[5]


def test_the_crop_is_cut_before_it_is_resized_so_nothing_from_outside_bleeds_in() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    draw = np.uint64(3)
    left, top, right, bottom = random_box(draw, 60, 90)
    expected = Image.fromarray(image[top:bottom, left:right]).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(crop_randomly(image, draw, 32), np.asarray(expected))


def test_the_centre_crop_is_that_of_imagenet() -> None:
    """Shorter side to 256, middle 224: the same to rounding as resizing first and cutting then."""
    gradient = np.add.outer(np.arange(512), np.arange(768))[..., None] * np.array([0.1, 0.15, 0.19])
    image = gradient.astype(np.uint8)
    whole = Image.fromarray(image).resize((384, 256), Image.Resampling.BICUBIC)
    expected = np.asarray(whole.crop((80, 16, 304, 240))).astype(int)
    assert np.abs(crop_centre(image, 224).astype(int) - expected).max() <= 1
