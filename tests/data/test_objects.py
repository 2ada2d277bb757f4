"""Object renders: the pose convention proved with a painted scene, what is complete, which views are seen."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.objects import open_objects
from bench.errors import UserError

SIDE = 96
VIEWS = 8
POINTS = {(255, 0, 0): (0.35, 0.1, 0.05), (0, 255, 0): (-0.2, 0.3, 0.2), (0, 0, 255): (0.05, -0.35, -0.25)}
"""Colour and place of the dots that make up the object."""


def blender_look_at(position: np.ndarray) -> np.ndarray:
    """4 x 4 camera to world in Blender's axes: x right, y up, and the camera looks along its own -z."""
    back = position / np.linalg.norm(position)
    right = np.cross((0, 0, 1), back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return pose


def camera_position(view: int) -> np.ndarray:
    azimuth, elevation = math.radians(45 + 90 * view + 7 * (view // 4)), math.radians(20 + 3 * view)
    return 1.5 * np.array(
        [math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), math.sin(elevation)]
    )


def paint(world_to_blender: np.ndarray) -> np.ndarray:
    """RGBA [SIDE, SIDE, 4] of the dots, projected as Blender's camera does: y up, z back, 49.1 degrees."""
    image = np.zeros((SIDE, SIDE, 4), np.uint8)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    for colour, point in POINTS.items():
        x, y, z = world_to_blender[:3, :3] @ point + world_to_blender[:3, 3]
        half = math.tan(math.radians(49.1 / 2)) * -z  # half the height of the view at the dot's depth
        column, row = SIDE / 2 * (1 + x / half), SIDE / 2 * (1 - y / half)
        image[(rows - row) ** 2 + (columns - column) ** 2 < 3**2] = (*colour, 255)
    return image


def write_object(folder: Path, views: int = VIEWS) -> None:
    folder.mkdir(parents=True)
    for view in range(views):
        world_to_blender = np.linalg.inv(blender_look_at(camera_position(view)))
        Image.fromarray(paint(world_to_blender)).save(folder / f"{view:03d}.png")
        np.save(folder / f"{view:03d}.npy", world_to_blender[:3])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("objects")
    for uid in ("cube", "chair"):
        write_object(root / uid)
    write_object(root / "half", views=5)
    (root / "test.json").write_text(json.dumps({"cube": "cube", "half": "half", "gone": "gone", "chair": "chair"}))
    return root


def open_test(root: Path, **options):
    return open_objects(root, "test", **{"image_size": 48, "views": VIEWS, **options})


def misses(c2w: np.ndarray, intrinsics: np.ndarray, rgb: np.ndarray) -> list[float]:
    """Distance in pixels from where an OpenCV camera expects each dot to the middle of the dot's pixels."""
    fx, fy, cx, cy = intrinsics
    distances = []
    for colour, point in POINTS.items():
        painted = (np.abs(rgb.astype(int) - colour).sum(-1) < 120).nonzero()
        x, y, z = np.linalg.inv(c2w)[:3] @ [*point, 1]
        expected = (fx * x / z + cx, fy * y / z + cy) if z > 0 else (1e6, 1e6)
        distances.append(math.dist(expected, (painted[1].mean() + 0.5, painted[0].mean() + 0.5)))
    return distances


def test_known_points_land_on_their_pixels(root: Path) -> None:
    split = open_test(root)
    every = np.arange(VIEWS)[None]
    rgb, c2w, intrinsics = split.load(np.array([0]), every)
    assert rgb.shape == (1, VIEWS, 48, 48, 3)
    assert (rgb.dtype, c2w.dtype, intrinsics.dtype) == (np.uint8, np.float32, np.float32)
    for view in range(VIEWS):
        assert max(misses(c2w[0, view], intrinsics[0, view], rgb[0, view])) < 0.5
        np.testing.assert_allclose(c2w[0, view, :3, 3], camera_position(view), atol=1e-6)


def test_the_published_reading_would_miss(root: Path) -> None:
    """The stored matrix taken as camera to world and turned to OpenCV: all cameras stand at (0, 0, -1.5)."""
    rgb, _, intrinsics = open_test(root).load(np.array([0]), np.arange(VIEWS)[None])
    for view in range(VIEWS):
        stored = np.concatenate([np.load(root / "cube" / f"{view:03d}.npy"), [[0, 0, 0, 1]]])
        published = stored @ np.diag([1, -1, -1, 1])
        np.testing.assert_allclose(published[:3, 3], (0, 0, -1.5), atol=1e-9)
        assert max(misses(published, intrinsics[0, view], rgb[0, view])) > 5


def test_intrinsics_follow_the_image_size(root: Path, tmp_path: Path) -> None:
    """560.44 at 512 pixels, as the renders were made; 280.22 when they are read at 256."""
    folder = tmp_path / "big"
    folder.mkdir()
    Image.new("RGBA", (512, 512)).save(folder / "000.png")
    np.save(folder / "000.npy", np.eye(4)[:3])
    (tmp_path / "test.json").write_text('["big"]')
    for size, focal in ((512, 560.44), (256, 280.22)):
        split = open_objects(tmp_path, "test", image_size=size, views=1)
        found = split.load(np.array([0]), np.array([[0]])).intrinsics[0, 0]
        np.testing.assert_allclose(found, [focal, focal, size / 2, size / 2], atol=0.01)


def test_alpha_is_composited(tmp_path: Path) -> None:
    """What lies under alpha 0 never shows; half of a colour is mixed with the background."""
    folder = tmp_path / "glass"
    folder.mkdir()
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:] = (200, 0, 0, 0)
    pixels[:, 4:] = (0, 100, 0, 128)
    Image.fromarray(pixels).save(folder / "000.png")
    np.save(folder / "000.npy", np.eye(4)[:3])
    (tmp_path / "test.json").write_text('["glass"]')
    for background, left, right in (
        ((255, 255, 255), (255, 255, 255), (127, 177, 127)),
        ((0, 0, 0), (0, 0, 0), (0, 50, 0)),
    ):
        split = open_objects(tmp_path, "test", image_size=8, views=1, background=background)
        rgb = split.load(np.array([0]), np.array([[0]])).rgb[0, 0]
        np.testing.assert_allclose(rgb[0, 0], left, atol=1)
        np.testing.assert_allclose(rgb[0, 7], right, atol=1)


# ------------------------------------------------------------------------------------------------ which objects, views


def test_incomplete_objects_are_left_out_and_counted(root: Path) -> None:
    split = open_test(root)
    assert split.uids == ("cube", "chair")
    assert len(split) == 2
    assert split.sample_name(1, 5) == "chair/005"
    (notice,) = split.notices
    assert "2 of 4 objects" in notice
    assert "half" in notice


def test_the_first_objects_only(root: Path) -> None:
    assert open_test(root, limit=1).uids == ("cube",)
    assert open_test(root, limit=1).notices == ()
    assert open_test(root, limit=9).uids == ("cube", "chair")


def test_an_index_may_lie_and_point_elsewhere(root: Path, tmp_path: Path) -> None:
    index = tmp_path / "mine.json"
    index.write_text(json.dumps({"x": str(root / "chair"), "y": "cube"}))
    split = open_test(root, index=index)
    assert split.uids == ("x", "y")
    np.testing.assert_array_equal(
        split.load(np.array([0, 1]), np.array([[0], [0]])).rgb,
        open_test(root).load(np.array([1, 0]), np.array([[0], [0]])).rgb,
    )


@pytest.fixture
def full(root: Path):
    """A split of two objects with 32 views each, of which only the numbers are looked at."""
    split = open_test(root)
    return type(split)(**{**vars(split), "views": 32})


def test_training_inputs_come_one_from_each_group(full) -> None:
    draws = np.arange(400, dtype=np.uint64)
    scenes = np.zeros(400, np.int64)
    inputs, targets = full.choose(scenes, draws, 4, 8)
    assert (inputs.shape, targets.shape) == ((400, 4), (400, 8))
    np.testing.assert_array_equal(inputs // 8, np.tile(np.arange(4), (400, 1)))
    for row_in, row_out in zip(inputs, targets, strict=True):
        assert len({*row_in, *row_out}) == 12
    # Every view of a group is an input one time in eight, every view a target one time in four.
    counts = np.bincount(inputs.ravel(), minlength=32) / 400
    assert np.abs(counts - 1 / 8).max() < 0.08
    assert np.abs(np.bincount(targets.ravel(), minlength=32) / 400 - 8 / 32).max() < 0.1


@pytest.mark.parametrize("input_views", [1, 2, 3, 5, 24])
def test_other_numbers_of_inputs_take_even_runs(full, input_views: int) -> None:
    inputs, targets = full.choose(np.zeros(50, np.int64), np.arange(50, dtype=np.uint64), input_views, 8)
    assert (np.diff(inputs, axis=1) > 0).all()
    group = np.searchsorted([32 * g // input_views for g in range(input_views)], inputs, side="right") - 1
    np.testing.assert_array_equal(group, np.tile(np.arange(input_views), (50, 1)))
    assert not (inputs[:, :, None] == targets[:, None]).any()


def test_a_draw_alone_decides(full) -> None:
    draws = np.array([5, 6, 7], np.uint64)
    together = full.choose(np.array([0, 1, 0]), draws, 4, 6)
    for i, draw in enumerate(draws):
        alone = full.choose(np.array([i % 2]), np.array([draw]), 4, 6)
        np.testing.assert_array_equal(alone[0][0], together[0][i])
        np.testing.assert_array_equal(alone[1][0], together[1][i])


def test_evaluation_views_belong_to_the_object(full, root: Path) -> None:
    inputs, targets = full.choose_evaluation(np.array([0, 1]), 4, 10)
    np.testing.assert_array_equal(inputs, [[0, 1, 2, 3]] * 2)
    assert targets.min() >= 4
    assert all(len(set(row)) == 10 for row in targets)
    assert set(targets[0]) != set(targets[1])
    # Not to its place in the list, nor to the number of inputs where the targets leave a choice.
    other = type(full)(**{**vars(full), "uids": full.uids[::-1]})
    np.testing.assert_array_equal(other.choose_evaluation(np.array([1]), 4, 10)[1][0], targets[0])
    more = full.choose_evaluation(np.array([0]), 6, 10)[1][0]
    assert set(targets[0]) - {4, 5} <= set(more)


def test_too_many_views_are_refused(full) -> None:
    for choose in (
        lambda: full.choose(np.array([0]), np.array([0], np.uint64), 16, 17),
        lambda: full.choose_evaluation(np.array([0]), 16, 17),
    ):
        with pytest.raises(UserError, match="16 inputs and 17 targets do not fit the 32 views"):
            choose()


def test_an_object_in_two_splits_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cube").symlink_to(root / "cube")
    (tmp_path / "link").symlink_to(root / "cube")
    (tmp_path / "test.json").write_text('["cube"]')
    train = tmp_path / "train.json"
    for text, shared in (
        ('["chair", "cube"]', "share cube:"),
        ('{"cube": "elsewhere"}', "share cube:"),
        ('{"x": "chair", "y": "link"}', r"share cube \(there y, folder .*cube\)"),
        (json.dumps({"z": str(root / "chair" / ".." / "cube")}), r"share cube \(there z"),
    ):
        train.write_text(text)
        with pytest.raises(UserError, match=rf"test\.json and train\.json {shared}") as caught:
            open_test(tmp_path)
        assert "\n" not in str(caught.value)
    train.write_text('{"chair": "chair"}')
    assert open_test(tmp_path).uids == ("cube",)
    with pytest.raises(UserError, match="split must be one of train, validation, test, got val"):
        open_objects(tmp_path, "val", image_size=8)


def test_the_fingerprint_is_that_of_what_is_held(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    first = open_test(root).fingerprint
    assert open_test(moved).fingerprint == first
    assert open_test(moved, image_size=24).fingerprint == first, "not of how it is read"
    assert open_test(moved, limit=1).fingerprint != first
    assert open_test(moved, views=4).fingerprint != first
    Image.new("RGBA", (SIDE, SIDE)).save(moved / "chair" / "000.png")
    assert open_test(moved).fingerprint != first


@pytest.mark.parametrize("limit", [None, 1])
def test_the_listing_tells_how_far_it_is(root: Path, limit: int | None) -> None:
    told: list[tuple[str, int, int]] = []
    open_test(root, limit=limit, report=lambda *progress: told.append(progress))
    assert told == [("looking for the objects of test.json", done, 4) for done in (0, 4)]


# ----------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, r"test.json does not exist: write"),
        ("{", r"test.json cannot be read as JSON"),
        ("[]", r"test.json must hold"),
        ('{"a": 3}', r"test.json must hold"),
        ('["a", 1]', r"test.json must hold"),
        ('["a"]', r"none of its 1 objects is complete.*in .*a: check"),
        ('["a", "b", "a"]', r"test.json: a is listed twice"),
        ('{"a": "x", "b": "y", "a": "z"}', r"test.json: a is listed twice"),
        ('{"a": "x", "b": "y", "c": "y/../x"}', r"test.json: a and c have the same folder, .*x: list it once"),
    ],
)
def test_a_bad_index_is_one_line(tmp_path: Path, index: str | None, message: str) -> None:
    if index is not None:
        (tmp_path / "test.json").write_text(index)
    with pytest.raises(UserError, match=message) as caught:
        open_objects(tmp_path, "test", image_size=8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.zeros((4, 3)), r"001.npy must hold floats of shape \[3, 4\] or \[4, 4\], got float64 \[4, 3\]"),
        (np.eye(4)[[0, 1, 2, 2]], "001.npy: the matrix has a last row other than 0 0 0 1"),
        (np.full((3, 4), np.inf), "001.npy: the matrix is not finite"),
        (2 * np.eye(4)[:3], "001.npy: the matrix has a rotation"),
        (b"no array", "001.npy cannot be read"),
    ],
)
def test_a_bad_matrix_names_its_file(tmp_path: Path, stored, message: str) -> None:
    write_object(tmp_path / "a", views=2)
    (tmp_path / "test.json").write_text('["a"]')
    if isinstance(stored, bytes):
        (tmp_path / "a" / "001.npy").write_bytes(stored)
    else:
        np.save(tmp_path / "a" / "001.npy", stored)
    split = open_objects(tmp_path, "test", image_size=8, views=2)
    split.load(np.array([0]), np.array([[0]]))
    with pytest.raises(UserError, match=message):
        split.load(np.array([0]), np.array([[0, 1]]))


def test_a_matrix_may_have_its_last_row(tmp_path: Path) -> None:
    """With what an inverse in fp32 leaves there; the pose has none of it."""
    write_object(tmp_path / "a", views=2)
    (tmp_path / "test.json").write_text('["a"]')
    split = open_objects(tmp_path, "test", image_size=8, views=2)
    before = split.load(np.array([0]), np.array([[0, 1]])).c2w
    stored = np.load(tmp_path / "a" / "001.npy")
    np.save(tmp_path / "a" / "001.npy", np.concatenate([stored, [[0, 1e-8, 0, 1 - 1e-7]]]))
    np.testing.assert_array_equal(split.load(np.array([0]), np.array([[0, 1]])).c2w, before)


def test_poses_stored_camera_to_world_are_refused(tmp_path: Path) -> None:
    write_object(tmp_path / "a")
    for view in range(VIEWS):
        np.save(tmp_path / "a" / f"{view:03d}.npy", blender_look_at(camera_position(view))[:3])
    (tmp_path / "test.json").write_text('["a"]')
    split = open_test(tmp_path)
    for view in range(VIEWS):
        with pytest.raises(UserError, match=rf"the matrix of .*00{view}.npy looks away .* camera to world.*invert it"):
            split.load(np.array([0]), np.array([[view]]))
