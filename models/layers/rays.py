"""Camera poses as images: six Plücker coordinates for every pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from models.layers.precision import full_precision


def plucker_rays(c2w: Tensor, intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Plücker coordinates [moment, direction] of the ray through every pixel centre.

    Always computed in fp32, also under autocast, and element by element: no matrix product that TF32 could coarsen, or
    that a FLOP counter would count.

    Args:
        c2w: camera-to-world matrices in the OpenCV convention (x right, y down, z forward), [..., 4, 4].
        intrinsics: (fx, fy, cx, cy) in pixels of the image, pixel centres at integer + 0.5, [..., 4].
        height: rows of the image.
        width: columns of the image.

    Returns:
        [..., 6, height, width] fp32: moment ``origin x direction`` (3), then the unit direction in world space (3).
    """
    with full_precision(c2w.device):
        c2w, intrinsics = c2w.float(), intrinsics.float()
        fx, fy, cx, cy = intrinsics[..., None, None].unbind(-3)  # each [..., 1, 1]
        x = (torch.arange(width, device=c2w.device) + 0.5 - cx) / fx  # [..., 1, W]
        y = (torch.arange(height, device=c2w.device)[:, None] + 0.5 - cy) / fy  # [..., H, 1]
        # By component: on a CPU a reduction over a strided axis of length three costs twenty times as much.
        right, down, forward, origin = c2w[..., :3, :, None, None].unbind(-3)  # each [..., 3, 1, 1]
        direction = [right[..., i, :, :] * x + down[..., i, :, :] * y + forward[..., i, :, :] for i in range(3)]
        length = (direction[0].square() + direction[1].square() + direction[2].square()).sqrt()
        dx, dy, dz = (component / length for component in direction)  # each [..., H, W]
        ox, oy, oz = origin.unbind(-3)  # each [..., 1, 1]
        return torch.stack([oy * dz - oz * dy, oz * dx - ox * dz, ox * dy - oy * dx, dx, dy, dz], dim=-3)
