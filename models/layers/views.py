"""What every novel-view-synthesis model does first: check the views, turn images and poses into pixels of rays.

Axes: B scenes, V views (Vi input, Vt target), H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.layers.patches import resized
from models.layers.rays import plucker_rays

IMAGE_CHANNELS = 9
"""RGB (3), moment (3), direction (3)."""
POSE_CHANNELS = 6
"""Moment (3), direction (3)."""


def input_pixels(
    images: Tensor,
    c2w: Tensor,
    intrinsics: Tensor,
    mask: Tensor | None = None,
    *,
    rgb: bool = True,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Input views as the tokeniser reads them.

    Args:
        images: RGB in 0..1, [B, V, 3, H, W].
        c2w: OpenCV camera-to-world, [B, V, 4, 4].
        intrinsics: (fx, fy, cx, cy) in pixels, [B, V, 4].
        mask: True where a view is there, [B, V] bool; None where all are.
        rgb: whether the pixels hold colour.
        size: another height and width to make them at: images are resized, bicubic, and intrinsics scaled alike.

    Returns:
        [B, V, 9, H, W] fp32, or at ``size``: RGB scaled to -1..1, moment, direction; without colour [B, V, 6, H, W].
        Zero for a view that is not there: what stands in its place need not be a camera.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if images.ndim != 5 or images.shape[2] != 3:
        raise ValueError(f"input_images must be [B, Vi, 3, H, W], got {list(images.shape)}")
    check_cameras("input", c2w, intrinsics, images.shape[0])
    if images.shape[1] != c2w.shape[1]:
        raise ValueError(f"input_images has {images.shape[1]} views, input_c2w {c2w.shape[1]}: give one pose an image")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != images.shape[:2]):
        raise ValueError(f"input_mask must be bool {list(images.shape[:2])}, got {mask.dtype} {list(mask.shape)}")
    height, width = images.shape[-2:]
    if size is not None:
        x, y = intrinsics.float().unflatten(-1, (2, 2)).unbind(-1)  # (fx, cx), (fy, cy)
        intrinsics = torch.stack([x * (size[1] / width), y * (size[0] / height)], dim=-1).flatten(-2)
        height, width = size
        if rgb:
            images = resized(images.flatten(0, 1), size, "bicubic").unflatten(0, images.shape[:2])
    pixels = plucker_rays(c2w, intrinsics, height, width)
    if rgb:
        pixels = torch.cat([images.float() * 2 - 1, pixels], dim=2)
    return pixels if mask is None else pixels.masked_fill(~mask[:, :, None, None, None], 0)


def check_cameras(name: str, c2w: Tensor, intrinsics: Tensor, scenes: int) -> None:
    """Raise ValueError unless c2w is [scenes, V, 4, 4] and intrinsics [scenes, V, 4]; ``name``: input or target."""
    if c2w.ndim != 4 or c2w.shape[0] != scenes or c2w.shape[2:] != (4, 4):
        raise ValueError(f"{name}_c2w must be [{scenes}, V, 4, 4], got {list(c2w.shape)}")
    if intrinsics.shape != (*c2w.shape[:2], 4):
        raise ValueError(f"{name}_intrinsics must be {[*c2w.shape[:2], 4]}, got {list(intrinsics.shape)}")


def target_pixels(c2w: Tensor, intrinsics: Tensor, scenes: int, image_size: tuple[int, int]) -> Tensor:
    """Rays of the target views.

    Args:
        c2w: [B, V, 4, 4].
        intrinsics: [B, V, 4].
        scenes: number B of scenes that were encoded.
        image_size: (H, W) of their input images.

    Returns:
        [B, V, 6, H, W] fp32: moment, direction.

    Raises:
        ValueError: the shapes do not fit together.
    """
    check_cameras("target", c2w, intrinsics, scenes)
    return plucker_rays(c2w, intrinsics, *image_size)
