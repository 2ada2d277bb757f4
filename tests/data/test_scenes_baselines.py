"""The three predictions that learn nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data.scenes.baselines import BASELINES, Inputs, depth_warp, mean_colour, nearest_view, score, warp
from bench.data.scenes.cache import SceneSplit
from bench.data.scenes.render import render
from bench.data.scenes.scene import sample_cameras, sample_scene
from bench.data.scenes.spec import SceneSpec, scene_generator


def rendered(index: int, views: int = 6, size: int = 48):
    rng = scene_generator(SceneSpec(), "test", index)
    scene = sample_scene(rng)
    cameras = sample_cameras(rng, views, size)
    return cameras, render(scene, cameras)


def inputs_of(cameras, views, chosen):
    return Inputs(views.rgb[chosen], views.depth[chosen], cameras.c2w[chosen], cameras.intrinsics[chosen])


def test_warp_into_the_same_camera_is_identity():
    cameras, views = rendered(0)
    image, covered = warp(
        views.rgb[0], views.depth[0], cameras.c2w[0], cameras.intrinsics[0], cameras.c2w[0], cameras.intrinsics[0]
    )
    assert covered.all()
    np.testing.assert_array_equal(image, views.rgb[0])


def test_warp_moves_a_plane_by_its_disparity():
    """A fronto-parallel plane at depth 2 seen by a camera 0.5 to the right shifts by f * 0.5 / 2 pixels to the left."""
    rgb = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    intrinsics, moved = np.float32([8, 8, 8, 8]), np.eye(4, dtype=np.float32)
    moved[0, 3] = 0.5
    image, covered = warp(rgb, np.full((16, 16), 2.0), np.eye(4, dtype=np.float32), intrinsics, moved, intrinsics)
    np.testing.assert_array_equal(image[:, :14], rgb[:, 2:])
    assert covered[:, :14].all()
    assert not covered[:, 14:].any()


def test_warp_lets_the_nearer_surface_win():
    depth = np.full((1, 8), 4.0)
    depth[0, 4] = 1.0
    rgb = np.zeros((1, 8, 3), np.uint8)
    rgb[0, 4] = 255
    intrinsics, moved = np.float32([4, 4, 4, 0.5]), np.eye(4, dtype=np.float32)
    moved[0, 3] = 0.5  # near pixel moves 2 to the left, far ones half a pixel
    image, _ = warp(rgb, depth, np.eye(4, dtype=np.float32), intrinsics, moved, intrinsics)
    np.testing.assert_array_equal(image[0, 2], [255, 255, 255])


def test_nearest_view_is_the_nearest():
    cameras, views = rendered(1)
    inputs = inputs_of(cameras, views, [0, 1, 2])
    np.testing.assert_array_equal(nearest_view(inputs, cameras.c2w[:3], cameras.intrinsics[:3]), views.rgb[:3])


def test_mean_colour_is_the_mean_of_the_inputs():
    cameras, views = rendered(1)
    image = mean_colour(inputs_of(cameras, views, [0, 1]), cameras.c2w[2:4], cameras.intrinsics[2:4])
    assert image.shape == (2, 48, 48, 3)
    np.testing.assert_allclose(image[0, 0, 0], views.rgb[:2].mean((0, 1, 2)), atol=0.5)


def test_depth_warp_reproduces_an_input_camera():
    cameras, views = rendered(2)
    image = depth_warp(inputs_of(cameras, views, [0, 1]), cameras.c2w[:2], cameras.intrinsics[:2])
    np.testing.assert_array_equal(image, views.rgb[:2])


@pytest.fixture(scope="module")
def split() -> SceneSplit:
    """Eight scenes in memory: arrays index like the cache's."""
    scenes = [rendered(index) for index in range(8)]
    stack = {
        field: np.stack([getattr(v, field) for _, v in scenes]) for field in ("rgb", "depth", "instance", "classes")
    }
    poses = {field: np.stack([getattr(c, field) for c, _ in scenes]) for field in ("c2w", "intrinsics")}
    return SceneSplit(**stack, **poses)


def test_the_data_ranks_the_baselines(split):
    """The bar for the data: knowing the geometry beats copying a view, which beats a flat colour."""
    result = score(split)
    assert set(result) == set(BASELINES)
    assert all(values.shape == (8, 4) for values in result.values())
    flat, nearest, warped = (result[name].mean() for name in BASELINES)
    assert warped > nearest + 2
    assert warped > flat + 2
    assert nearest > flat - 1
    assert warped < 30
