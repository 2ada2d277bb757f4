"""PSNR and SSIM: by hand where the value is known, against scikit-image where it is not."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from bench.metrics.image import PSNR_CAP, psnr, ssim


def pairs(count: int = 3, size: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(count, 3, size, size, generator=generator)
    noise = torch.randn(target.shape, generator=generator) * torch.tensor([0.02, 0.1, 0.4])[:, None, None, None]
    return (target + noise).clamp(0, 1), target


def test_psnr_of_a_known_error() -> None:
    target = torch.full((2, 3, 8, 8), 0.5)
    prediction = target + torch.tensor([0.1, 0.01])[:, None, None, None]
    assert psnr(prediction, target).tolist() == pytest.approx([20, 40], abs=1e-4)


def test_psnr_agrees_with_scikit_image() -> None:
    prediction, target = pairs()
    expected = [
        peak_signal_noise_ratio(t, p, data_range=1.0)
        for p, t in zip(prediction.double().numpy(), target.double().numpy(), strict=True)
    ]
    assert psnr(prediction, target).tolist() == pytest.approx(expected, abs=1e-9)


def test_psnr_is_a_mean_of_images_not_of_errors() -> None:
    prediction, target = pairs()
    of_the_mean = -10 * torch.log10((prediction - target).square().mean())
    assert psnr(prediction, target).mean() > of_the_mean + 1


def test_predictions_are_clamped_and_a_perfect_one_is_finite() -> None:
    target = torch.tensor([0.0, 1.0]).repeat(72).reshape(1, 3, 6, 8)
    assert psnr(target * 3 - 1, target).tolist() == [PSNR_CAP]
    big = torch.nn.functional.interpolate(target, size=16)
    assert ssim(big * 3 - 1, big) == pytest.approx([1.0])


def test_ssim_is_the_papers_call_of_scikit_image() -> None:
    prediction, target = pairs()
    expected = [
        structural_similarity(t, p, win_size=11, gaussian_weights=True, channel_axis=0, data_range=1.0)
        for p, t in zip(prediction.double().numpy(), target.double().numpy(), strict=True)
    ]
    values = ssim(prediction, target)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, expected, atol=1e-9)
    assert values[0] > values[1] > values[2]


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="must both be"):
        psnr(torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))
    with pytest.raises(ValueError, match="must both be"):
        ssim(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16))
