import pytest
import torch

from models.layers.rays import plucker_rays
from tests.models.helpers import random_cameras


def cameras(scenes=2, views=3, size=(12, 20), seed=0):
    return random_cameras(torch.Generator().manual_seed(seed), scenes, views, size)


def test_the_optical_axis_of_a_known_camera():
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    rays = plucker_rays(c2w, torch.tensor([10.0, 10.0, 2.5, 1.5]), 4, 4)
    # The centre of pixel (row 1, column 2) lies on the principal point: it looks along z; (1,2,3) x (0,0,1) = (2,-1,0).
    torch.testing.assert_close(rays[:, 1, 2], torch.tensor([2.0, -1.0, 0.0, 0.0, 0.0, 1.0]))
    # x grows to the right, y downwards.
    assert rays[3, 1, 3] > 0
    assert rays[4, 2, 2] > 0


def test_points_on_a_ray_project_back_to_its_pixel():
    (c2w, intrinsics), (height, width) = cameras(), (12, 20)
    rays = plucker_rays(c2w, intrinsics, height, width)
    assert rays.shape == (2, 3, 6, height, width)
    moment, direction = rays.double().split(3, dim=2)
    torch.testing.assert_close(direction.norm(dim=2), torch.ones(2, 3, height, width).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        (moment * direction).sum(2), torch.zeros(2, 3, height, width).double(), atol=1e-6, rtol=0
    )

    origin = c2w[..., :3, 3].double()[..., None, None].expand_as(direction)
    torch.testing.assert_close(torch.linalg.cross(origin, direction, dim=2), moment, atol=1e-6, rtol=0)

    point = origin + 2.5 * direction
    world_to_camera = torch.linalg.inv(c2w.double())
    camera = torch.einsum("bvij,bvjhw->bvihw", world_to_camera[..., :3, :3], point)
    camera = camera + world_to_camera[..., :3, 3, None, None]
    fx, fy, cx, cy = intrinsics.double()[..., None, None].unbind(2)
    columns = camera[:, :, 0] / camera[:, :, 2] * fx + cx
    rows = camera[:, :, 1] / camera[:, :, 2] * fy + cy
    torch.testing.assert_close(columns, (torch.arange(width) + 0.5).double().expand_as(columns), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows, (torch.arange(height) + 0.5).double()[:, None].expand_as(rows), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_touch_rays(dtype):
    exact = plucker_rays(*cameras(), 12, 20)
    with torch.autocast("cpu", dtype):
        rays = plucker_rays(*cameras(), 12, 20)
    assert rays.dtype == torch.float32
    assert torch.equal(rays, exact)
