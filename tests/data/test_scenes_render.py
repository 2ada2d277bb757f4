"""The renderer: geometry, conventions, shadows, labels, reproducibility."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bench.data.scenes.baselines import project, unproject
from bench.data.scenes.render import render
from bench.data.scenes.scene import (
    AZIMUTH_SPREAD_DEGREES,
    RADIUS,
    Cameras,
    Floor,
    Light,
    Scene,
    SceneObject,
    look_at,
    sample_cameras,
    sample_scene,
)
from bench.data.scenes.shapes import CLASS_NAMES, OOD_SHAPES, SHAPES, primitive
from bench.data.scenes.spec import SPLITS, SceneSpec, scene_generator, seed_range
from bench.data.scenes.textures import OOD_TEXTURES, TEXTURES, Texture, bake
from bench.errors import UserError

WHITE = Texture("solid")
SPHERE_CENTRE, SPHERE_RADIUS = np.array([0.3, -0.2, 0.5]), 0.5


def toy_scene(light: Light | None = None) -> Scene:
    pose = np.diag([SPHERE_RADIUS] * 3 + [1.0])
    pose[:3, 3] = SPHERE_CENTRE
    red = Texture("solid", light=(1.0, 0.0, 0.0))
    light = light or Light((0.0, 0.0, 1.0), ambient=0.3, diffuse=0.5)
    return Scene((SceneObject("sphere", pose, (red,)),), Floor(WHITE, 1.0, (4.0, 8.0)), light, (0, 0, 1), (0, 0, 1))


def cameras_at(*positions: tuple[float, float, float], size: int = 64, target: object = (0, 0, 0.3)) -> Cameras:
    poses = np.stack([look_at(np.array(p, float), np.array(target, float)) for p in positions])
    return Cameras(poses, np.tile(np.float32([size, size, size / 2, size / 2]), (len(poses), 1)), size)


def random_views(split: str = "test", index: int = 0, views: int = 3, size: int = 32):
    rng = scene_generator(SceneSpec(), split, index)
    scene, cameras = sample_scene(rng, ood=split == "ood"), sample_cameras(rng, views, size)
    return scene, cameras, render(scene, cameras)


def test_pose_is_opencv():
    c2w = look_at(np.array([0.0, -3.0, 0.3]), np.array([0.0, 0.0, 0.3]))
    np.testing.assert_allclose(c2w[:3, :3].T @ c2w[:3, :3], np.eye(3), atol=1e-6)
    assert np.linalg.det(c2w[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(c2w[:3, 0], [1, 0, 0], atol=1e-6)  # x right
    np.testing.assert_allclose(c2w[:3, 1], [0, 0, -1], atol=1e-6)  # y down
    np.testing.assert_allclose(c2w[:3, 2], [0, 1, 0], atol=1e-6)  # z forward


def test_what_is_right_and_above_is_drawn_right_and_above():
    cameras = cameras_at((0.0, -3.0, 0.3))
    (rows, columns) = np.nonzero(render(toy_scene(), cameras).instance[0] == 2)
    assert columns.mean() > 32  # the sphere stands at x = +0.3
    assert rows.mean() < 32  # and its centre is above the point looked at


def test_known_point_is_drawn_where_it_projects_at_its_depth():
    cameras = cameras_at((0.4, -3.0, 1.0), (2.0, -2.0, 1.5), size=128)
    views = render(toy_scene(), cameras)
    for view in range(2):
        c2w, intrinsics = cameras.c2w[view], cameras.intrinsics[view]
        towards = c2w[:3, 3] - SPHERE_CENTRE
        nearest = SPHERE_CENTRE + SPHERE_RADIUS * towards / np.linalg.norm(towards)
        (x,), (y,), (z,) = project(nearest[None], c2w, intrinsics)
        assert views.depth[view, int(y), int(x)] == pytest.approx(z, abs=0.01)
        assert views.instance[view, int(y), int(x)] == 2
        assert CLASS_NAMES[views.classes[view, int(y), int(x)]] == "sphere"
        outward = towards / np.linalg.norm(towards)
        assert views.normals[view, int(y), int(x)] @ outward > 0.98


def test_pixel_centre_is_at_half():
    """The floor's depth is a closed form of the ray through (column + 0.5, row + 0.5)."""
    cameras = cameras_at((0.0, 0.0, 2.0001), target=(0.0, 1.0, 0.0), size=32)
    views = render(toy_scene(), cameras, supersampling=1)
    floor = views.instance[0] == 1
    points = unproject(views.depth[0], cameras.c2w[0], cameras.intrinsics[0])
    assert floor.sum() > 300
    assert np.abs(points[floor][:, 2]).max() < 5e-3  # float16 depth; half a pixel of shift would give 0.03 and more


def test_depth_reprojects_between_two_views():
    """A surface point seen by both cameras has, in the second, the depth that the first one says."""
    _, cameras, views = random_views(size=64, views=2)
    points = unproject(views.depth[0], cameras.c2w[0], cameras.intrinsics[0])[views.depth[0] > 0]
    x, y, z = project(points, cameras.c2w[1], cameras.intrinsics[1])
    inside = (z > 0) & (x >= 0) & (x < 64) & (y >= 0) & (y < 64)
    there = views.depth[1][y[inside].astype(int), x[inside].astype(int)].astype(float)
    close = np.abs(there - z[inside]) < 0.04 * z[inside]
    nearer = (there < z[inside]) & (there > 0)
    assert inside.sum() > 800
    assert close.mean() > 0.65
    assert (close | nearer).mean() > 0.97  # what does not agree is hidden by something nearer


def test_shadow_falls_where_the_light_says():
    """Light at 45 degrees: the shadow of the sphere's centre lies one height further along the floor."""
    light = Light((-np.sqrt(0.5), 0.0, np.sqrt(0.5)), ambient=0.4, diffuse=0.5)
    cameras = cameras_at((0.8, -3.0, 2.5))
    views = render(toy_scene(light), cameras)
    shadow, lit = (SPHERE_CENTRE + np.array([along, 0, -0.5]) for along in (0.5, -1.2))
    values = []
    for point in (shadow, lit):
        (x,), (y,), _ = project(point[None], cameras.c2w[0], cameras.intrinsics[0])
        assert views.instance[0, int(y), int(x)] == 1
        values.append(views.rgb[0, int(y), int(x)])
    np.testing.assert_array_equal(values[0], round(255 * 0.4))  # ambient alone, on white
    np.testing.assert_array_equal(values[1], round(255 * (0.4 + 0.5 * np.sqrt(0.5))))


def test_sky_and_its_labels():
    cameras = cameras_at((0.0, -3.0, 0.5), target=(0.0, -4.0, 2.5))
    views = render(toy_scene(), cameras)
    np.testing.assert_array_equal(views.rgb[0], np.broadcast_to(np.uint8([0, 0, 255]), (64, 64, 3)))
    assert not views.depth.any()
    assert not views.instance.any()
    assert not views.classes.any()
    assert not views.normals.any()


def test_supersampling_changes_colours_only():
    scene, cameras, fine = random_views()
    coarse = render(scene, cameras, supersampling=1)
    assert (coarse.rgb != fine.rgb).any()
    assert abs(coarse.rgb.astype(float) - fine.rgb).mean() < 10
    for field in ("depth", "instance", "classes", "normals"):
        np.testing.assert_array_equal(getattr(coarse, field), getattr(fine, field))


def test_labels_agree_with_the_scene():
    for index in range(6):
        scene, _, views = random_views("train", index)
        for number in np.unique(views.instance[views.instance >= 2]):
            classes = np.unique(views.classes[views.instance == number])
            assert [CLASS_NAMES[c] for c in classes] == [scene.objects[number - 2].shape]


def test_render_is_a_function_of_its_arguments():
    _, _, first = random_views()
    _, _, again = random_views()
    _, _, other = random_views(index=1)
    for field in ("rgb", "depth", "instance", "classes", "normals"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    assert (first.rgb != other.rgb).any()


def test_views_of_a_scene_share_its_colours_but_not_its_image():
    _, _, views = random_views()
    assert all((views.rgb[0] != views.rgb[i]).mean() > 0.2 for i in (1, 2))


def test_seed_ranges_are_disjoint():
    spec = SceneSpec(train_scenes=10_000_000)
    ranges = sorted(seed_range(spec, split) for split in SPLITS)
    assert all(low[1] <= high[0] for low, high in pairwise(ranges))
    draws = {(split, i): scene_generator(SceneSpec(), split, i).random() for split in SPLITS for i in range(20)}
    assert len(set(draws.values())) == len(draws)
    assert scene_generator(SceneSpec(seed=1), "test", 0).random() != draws["test", 0]
    with pytest.raises(IndexError):
        scene_generator(SceneSpec(), "test", 100)


def test_more_scenes_keep_the_first_ones():
    few, many = SceneSpec(train_scenes=10), SceneSpec(train_scenes=20)
    assert scene_generator(few, "train", 3).random() == scene_generator(many, "train", 3).random()


def scene_content(split: str, count: int) -> tuple[set[str], set[str], set[str]]:
    shapes, textures, primitives = set(), set(), set()
    for index in range(count):
        scene = sample_scene(scene_generator(SceneSpec(), split, index), ood=split == "ood")
        textures.add(scene.floor.texture.name)
        for thing in scene.objects:
            shapes.add(thing.shape)
            textures.update(texture.name for texture in thing.textures)
            primitives.update(part.primitive for part in thing.placements)
    return shapes, textures, primitives


def test_ood_shares_no_shape_and_no_texture():
    shapes, textures, primitives = scene_content("train", 150)
    ood_shapes, ood_textures, ood_primitives = scene_content("ood", 100)
    assert shapes == set(SHAPES)
    assert textures == set(TEXTURES)
    assert ood_shapes == set(OOD_SHAPES)
    assert ood_textures == set(OOD_TEXTURES)
    assert not shapes & ood_shapes
    assert not textures & ood_textures
    assert not primitives & ood_primitives


def test_cameras_stay_in_their_cone_and_spread_over_it():
    rng = np.random.default_rng(3)
    for _ in range(20):
        cameras = sample_cameras(rng, 16, 64)
        offset = cameras.c2w[:, :3, 3] - [0, 0, 0.35]
        assert np.linalg.norm(offset, axis=1).min() >= RADIUS[0] - 1e-5
        assert np.linalg.norm(offset, axis=1).max() <= RADIUS[1] + 1e-5
        azimuth = np.unwrap(np.arctan2(offset[:, 1], offset[:, 0]))
        assert np.rad2deg(np.ptp(azimuth)) <= 2 * AZIMUTH_SPREAD_DEGREES + 10.01
        assert 35 < np.rad2deg(abs(azimuth[0] - azimuth[1])) < 85


def test_objects_stand_on_the_floor_apart_from_each_other():
    for index in range(30):
        scene = sample_scene(scene_generator(SceneSpec(), "train", index))
        assert 1 <= len(scene.objects) <= 4
        places = [thing.pose[:2, 3] for thing in scene.objects]
        assert all(np.linalg.norm(a - b) > 0.7 for i, a in enumerate(places) for b in places[:i])
        assert all(thing.pose[2, 3] > 0 for thing in scene.objects)


@pytest.mark.parametrize("name", sorted({part.primitive for s in (SHAPES | OOD_SHAPES).values() for part in s}))
def test_primitives_are_closed_centred_and_face_outwards(name):
    soup = primitive(name)
    assert np.abs(soup.positions).max() <= 1 + 1e-9
    np.testing.assert_allclose(soup.positions.max((0, 1)), -soup.positions.min((0, 1)), atol=0.06)
    np.testing.assert_allclose(np.linalg.norm(soup.normals, axis=-1), 1, atol=1e-9)
    a, b, c = np.moveaxis(soup.positions, 1, 0)
    assert (a * np.cross(b, c)).sum() / 6 > 0.3  # the volume of a closed surface that faces outwards
    assert ((soup.normals * np.cross(b - a, c - a)[:, None]).sum(-1) > 0).all()
    assert np.isfinite(soup.uv).all()


@pytest.mark.parametrize("name", TEXTURES + OOD_TEXTURES)
def test_textures_are_colours_and_not_flat(name):
    image = bake(Texture(name, dark=(0.1, 0.2, 0.3), light=(0.9, 0.8, 0.7), variant=1), 32)
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert (image.std() < 0.2) if name == "solid" else (image.std(axis=(0, 1)).max() > 0.03)


def test_unknown_texture_is_named():
    with pytest.raises(UserError, match=r"texture must be one of .*'marble'"):
        bake(Texture("marble"), 32)
