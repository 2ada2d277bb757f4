"""Masked reconstruction: patches of an image, targets in their own units, errors over the masked ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.contracts import Metric
from bench.metrics import image

if TYPE_CHECKING:
    from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's RGB in 0..1: images are normalised by them on the way in, predictions are put back by them on the way out."""

VARIANCE_FLOOR = 1e-6
"""Added to the variance of a patch before its root is divided by, as in MAE: some patches have next to none."""

PSNR = Metric(
    "psnr",
    "masked PSNR (dB)",
    higher_is_better=True,
    digits=2,
    note="over the masked patches of an image, RGB back in 0..1 and clamped, then the mean over images; at most 100 dB",
)
MSE = Metric(
    "masked_mse",
    "masked MSE",
    higher_is_better=False,
    digits=4,
    note="over the masked patches of an image, in units of the standard deviation of ImageNet's pixels",
)
NORMALISED_MSE = MSE._replace(
    label="masked MSE (normalised patches)",
    note="over the masked patches of an image, each patch normalised by its own mean and deviation (norm_pix_loss)",
)
ORACLE_PSNR = PSNR._replace(
    name="psnr_oracle",
    label="masked PSNR, true patch statistics (dB)",
    note=f"{PSNR.note}; the mean and deviation of each patch are the true ones, which no model predicts under norm_pix_loss: "
    "not to be compared with a PSNR of predicted pixels",
)


def normalise(pixels: Tensor) -> Tensor:
    """RGB in 0..1 [B, 3, ..] by `MEAN` and `STD`."""
    # By plain numbers: a tensor of them would make a GPU wait for its copy.
    return torch.stack([(pixels[:, i] - MEAN[i]) / STD[i] for i in range(3)], dim=1)


def denormalise(images: Tensor) -> Tensor:
    """The inverse of `normalise`; not clamped."""
    return torch.stack([images[:, i] * STD[i] + MEAN[i] for i in range(3)], dim=1)


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """[B, 3, H, W] -> [B, L, p * p * 3]: patches row by row; inside a patch (row, column, channel), the channel fastest."""
    patches = images.unflatten(-1, (-1, patch_size)).unflatten(-3, (-1, patch_size))  # [B, 3, h, p, w, p]
    return patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """The inverse of `patchify`, of square images."""
    side = round(patches.shape[1] ** 0.5)
    grid = patches.unflatten(1, (side, side)).unflatten(-1, (patch_size, patch_size, 3))  # [B, h, w, p, p, 3]
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch [.., P], both [.., 1]: the variance is unbiased and has `VARIANCE_FLOOR` added."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + VARIANCE_FLOOR).sqrt()


def places(mask: Tensor, count: int) -> Tensor:
    """Where the ones of a mask [B, L] are, in raster order, [B, count]; every row must hold so many.

    Without `nonzero`, which would wait for the device.
    """
    return mask.argsort(dim=1, descending=True, stable=True)[:, :count]


def take(patches: Tensor, index: Tensor) -> Tensor:
    """Patches [B, L, P] at the places [B, M] -> [B, M, P]."""
    return patches.gather(1, index[..., None].expand(-1, -1, patches.shape[-1]))


def loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Squared error averaged over the pixels of a patch, then over the predicted patches of the batch; fp32.

    Args:
        prediction: [B, L, P] of all patches, or [B, M, P] of the predicted ones in raster order.
        target: [B, L, P].
        mask: [B, L], 1 on the predicted patches; without L = M, M on each row.
    """
    prediction, mask = prediction.float(), mask.float()
    if prediction.shape[1] == target.shape[1]:
        errors = (prediction - target).square().mean(-1)
        return (errors * mask).sum() / mask.sum()
    return (prediction - take(target, places(mask, prediction.shape[1]))).square().mean()


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over the patches [B, M, p * p * 3] of each image, both as `normalise` makes them.

    Returns:
        [B] float64, at most `image.PSNR_CAP`.
    """
    rgb = (patches.unflatten(-1, (-1, 3)).movedim(-1, 1) for patches in (prediction, target))  # [B, 3, M, p * p]
    return image.psnr(*map(denormalise, rgb))
