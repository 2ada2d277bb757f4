"""Masked reconstruction: layout of patches, units of targets, loss over the predicted ones, PSNR over the masked ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.metrics import masked
from models.layers.patches import patchify


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@given(patch=st.integers(1, 5), side=st.integers(1, 5), samples=st.integers(1, 3))
def test_patches_are_cut_as_the_architectures_cut_them_and_put_back(patch: int, side: int, samples: int) -> None:
    images = random(samples, 3, patch * side, patch * side)
    patches = masked.patchify(images, patch)
    assert torch.equal(patches, patchify(images, patch))
    assert torch.equal(masked.unpatchify(patches, patch), images)


def test_images_are_normalised_by_imagenet_statistics_and_put_back() -> None:
    images = random(2, 3, 8, 8)
    normalised = masked.normalise(images)
    mean, std = torch.tensor(masked.MEAN)[:, None, None], torch.tensor(masked.STD)[:, None, None]
    torch.testing.assert_close(normalised, (images - mean) / std)
    torch.testing.assert_close(masked.denormalise(normalised), images)


def test_patch_statistics_are_unbiased_and_never_zero() -> None:
    patches = random(2, 4, 12)
    mean, deviation = masked.patch_statistics(patches)
    variance = (patches - mean).square().sum(-1, keepdim=True) / 11
    torch.testing.assert_close(deviation, (variance + 1e-6).sqrt())
    assert float(masked.patch_statistics(torch.ones(1, 1, 12))[1]) == pytest.approx(1e-3)


@given(seed=st.integers(0, 100), ones=st.integers(1, 9))
def test_places_are_those_of_the_ones_in_raster_order(seed: int, ones: int) -> None:
    mask = (random(3, 9, seed=seed).argsort(1) < ones).float()
    expected = torch.stack([row.nonzero()[:, 0] for row in mask])
    assert torch.equal(masked.places(mask, ones), expected)


def test_the_loss_is_maes_whether_all_patches_come_or_the_predicted_ones_alone() -> None:
    target, prediction = random(3, 9, 12), random(3, 9, 12, seed=1)
    mask = (random(3, 9, seed=2).argsort(1) < 4).float()
    expected = ((prediction - target) ** 2).mean(-1)[mask.bool()].mean()
    full = masked.loss(prediction.requires_grad_(), target, mask)
    torch.testing.assert_close(full, expected)
    (gradient,) = torch.autograd.grad(full, prediction)
    assert torch.equal(gradient.abs().sum(-1) > 0, mask.bool()), "visible patches have no loss"
    few = prediction.detach()[mask.bool()].view(3, 4, 12)
    torch.testing.assert_close(masked.loss(few, target, mask), expected.detach())
    assert masked.loss(few.bfloat16(), target, mask).dtype == torch.float32


def test_psnr_of_a_known_error_is_in_pixels_of_0_to_1_and_clamped() -> None:
    pixels = torch.full((2, 3, 8, 8), 0.5)
    target = masked.patchify(masked.normalise(pixels), 4)
    for error, expected in ((0.1, 20.0), (0.01, 40.0), (5.0, 6.0206)):
        prediction = masked.patchify(masked.normalise(pixels + error), 4)
        assert masked.psnr(prediction, target).tolist() == pytest.approx([expected] * 2, abs=1e-3)
    channel = pixels.clone()
    channel[:, 2] += 0.1
    expected = 20 + 10 * torch.log10(torch.tensor(3.0))
    assert masked.psnr(masked.patchify(masked.normalise(channel), 4), target)[0] == pytest.approx(
        float(expected), abs=1e-3
    )
