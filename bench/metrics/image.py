"""Image quality by the definitions that the view-synthesis papers share: PSNR and SSIM, one value an image.

Everything here takes RGB in 0..1, [N, 3, H, W], clamps the prediction to that range first and does not round to 8 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.contracts import Metric

if TYPE_CHECKING:
    from torch import Tensor

PSNR_CAP = 100.0
"""dB given to a prediction that equals its target (the ratio would be infinite)."""

SSIM_WINDOW = 11
"""Pixels on a side; images must be at least this large."""

PSNR = Metric(
    "psnr",
    "PSNR (dB)",
    higher_is_better=True,
    digits=2,
    note="per image on RGB clamped to [0, 1], then the mean over images (not the PSNR of the mean error); at most 100 dB",
)
SSIM = Metric(
    "ssim",
    "SSIM",
    higher_is_better=True,
    digits=3,
    note="scikit-image: Gaussian window 11, sigma 1.5, data range 1, mean over RGB, sample covariance, as in pixelSplat",
)


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, peak 1.

    Args:
        prediction: [N, 3, H, W]; clamped to 0..1.
        target: the same shape, in 0..1.

    Returns:
        [N] float64, at most `PSNR_CAP`.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape(prediction, target)
    error = (prediction.double().clamp(0, 1) - target.double()).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp_min(10 ** (-PSNR_CAP / 10)).log10()


def ssim(prediction: Tensor, target: Tensor) -> np.ndarray:
    """Structural similarity of each image (Wang et al. 2004) by scikit-image, as pixelSplat and LVSM call it.

    Args:
        prediction: [N, 3, H, W]; clamped to 0..1.
        target: the same shape, in 0..1; H and W at least `SSIM_WINDOW`.

    Returns:
        [N] float64.

    Raises:
        ValueError: the shapes differ, or the images are smaller than the window.
    """
    from skimage.metrics import structural_similarity

    _same_shape(prediction, target)
    first, second = prediction.detach().cpu().double().clamp(0, 1).numpy(), target.detach().cpu().double().numpy()
    values = [
        structural_similarity(
            b, a, win_size=SSIM_WINDOW, gaussian_weights=True, sigma=1.5, data_range=1.0, channel_axis=0
        )
        for a, b in zip(first, second, strict=True)
    ]
    return np.asarray(values, dtype=np.float64)


def _same_shape(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape or prediction.ndim != 4:
        raise ValueError(
            f"prediction and target must both be [N, 3, H, W], got {list(prediction.shape)} and {list(target.shape)}"
        )
