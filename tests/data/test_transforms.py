"""transforms.json in its three layouts: cameras, lens, splits, and one clear line for every mistake."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import root as solve
from scipy.spatial.transform import Rotation

from bench.data.cameras import SceneFrame, distort
from bench.data.transforms import open_transforms
from bench.errors import UserError

WIDTH, HEIGHT = 40, 32


def opengl_pose(number: int) -> list[list[float]]:
    """A camera on a circle, looking at the middle, in OpenGL's axes."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0, 0.1 * number, 0]).as_matrix()
    pose[:3, 3] = pose[:3, :3] @ [0, 0, 2]
    return pose.tolist()


def write_image(path: Path, shade: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 255 - shade, 7)).save(path)


def write_scene(
    folder: Path, count: int = 16, keys: dict[str, Any] | None = None, name: str = "transforms.json"
) -> None:
    """One scene in instant-ngp's layout, the frames written in reverse; image i has the red value i."""
    frames = []
    for number in reversed(range(count)):
        write_image(folder / f"images/{number:04d}.png", number)
        frames.append({"file_path": f"./images/{number:04d}.png", "transform_matrix": opengl_pose(number)})
    camera = {"fl_x": 50.0, "fl_y": 52.0, "cx": 21.0, "cy": 15.0, "w": WIDTH, "h": HEIGHT}
    document = {"aabb_scale": 4, "ply_file_path": "x.ply", **camera, **(keys or {}), "frames": frames}
    (folder / name).write_text(json.dumps(document))


def change(folder: Path, edit) -> None:
    path = folder / "transforms.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def everything(split, item: int = 0):
    """All views of an item's scene."""
    count = len(split.scenes[split.items[item][0]].files)
    return split.load(np.array([item]), np.arange(count)[None])


# ------------------------------------------------------------------------------------------------------------ cameras


def test_poses_and_intrinsics_of_one_scene(tmp_path: Path) -> None:
    write_scene(tmp_path)
    views = everything(open_transforms(tmp_path, "train", image_size=16))
    assert views.rgb.shape == (1, 16, 16, 16, 3)
    assert (views.rgb.dtype, views.c2w.dtype, views.intrinsics.dtype) == (np.uint8, np.float32, np.float32)
    for number in range(16):  # sorted by path although the file has them the other way round
        assert views.rgb[0, number, 8, 8].tolist() == [number, 255 - number, 7]
        np.testing.assert_allclose(
            views.c2w[0, number], np.array(opengl_pose(number)) @ np.diag([1, -1, -1, 1]), atol=1e-6
        )
        assert views.c2w[0, number, :3, 2] @ views.c2w[0, number, :3, 3] < 0, "it looks at the origin"
    # the middle 32 x 32 of 40 x 32, at half its size
    np.testing.assert_allclose(views.intrinsics[0, 3], [25, 26, (21 - 4) / 2, 7.5])


def test_keys_of_a_frame_come_before_those_of_the_file(tmp_path: Path) -> None:
    write_scene(tmp_path)

    def edit(document: dict[str, Any]) -> None:
        document["frames"][0]["fl_x"] = 100.0
        document["frames"][0]["transform_matrix"].pop()  # 3 x 4 is enough

    change(tmp_path, edit)
    scene = open_transforms(tmp_path, "train", image_size=16).scenes[0]
    assert scene.c2w[15, 3].tolist() == [0, 0, 0, 1]
    assert scene.cameras[15, 0] == 100, "the file's first frame has the last path"
    assert (scene.cameras[:15, 0] == 50).all()
    assert (scene.cameras[:, 1] == 52).all()


def test_blender_layout(tmp_path: Path) -> None:
    """Lists by file, no extensions, one angle for all there is to the camera, transparent ground."""
    angle = 0.6911112
    for word, count in (("train", 5), ("val", 2), ("test", 3)):
        frames = []
        for number in range(count):
            path = tmp_path / word / f"r_{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGBA", (24, 24), (0, 0, 0, 0)).save(path)
            frames.append(
                {"file_path": f"./{word}/r_{number}", "rotation": 0.01, "transform_matrix": opengl_pose(number)}
            )
        (tmp_path / f"transforms_{word}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    sizes = {name: len(open_transforms(tmp_path, name, image_size=12)) for name in ("train", "validation", "test")}
    assert sizes == {"train": 5, "validation": 2, "test": 3}

    test = open_transforms(tmp_path, "test", image_size=12)
    inputs, targets = test.choose_evaluation(np.arange(3), 2, 4)
    assert targets.shape == (3, 1)
    assert [test.sample_name(i, targets[i, 0]) for i in range(3)] == [f"test/r_{i}" for i in range(3)]
    assert all("train/" in test.sample_name(i, view) for i in range(3) for view in inputs[i])
    rgb, _, intrinsics = test.load(np.arange(3), targets)
    assert (rgb == 255).all()
    focal = 12 / 2 / math.tan(angle / 2)
    np.testing.assert_allclose(intrinsics[:, 0], np.tile([focal, focal, 6, 6], (3, 1)), rtol=1e-6)

    black = open_transforms(tmp_path, "test", image_size=12, background=(0, 0, 0))
    assert (black.load(np.arange(3), targets).rgb == 0).all()


def test_the_image_may_be_smaller_than_the_camera_says(tmp_path: Path) -> None:
    write_scene(tmp_path, keys={"w": 4 * WIDTH, "h": 4 * HEIGHT, "fl_x": 200, "fl_y": 200, "cx": 80, "cy": 64})
    intrinsics = everything(open_transforms(tmp_path, "train", image_size=32)).intrinsics
    np.testing.assert_allclose(intrinsics[0, 0], [50, 50, 16, 16])


def shift(path: Path, by: np.ndarray, scale: float = 1.0) -> None:
    """Move the cameras of a file, scaled, to another place."""
    document = json.loads(path.read_text())
    for frame in document["frames"]:
        for row, offset in zip(frame["transform_matrix"], by, strict=False):
            row[3] = scale * row[3] + offset
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("scale", [100.0, 1.0])
def test_a_georeferenced_scene_keeps_its_parallax(tmp_path: Path, scale: float) -> None:
    """UTM coordinates: in fp32 neighbouring northings are half a metre apart. All splits move by one and the same offset."""
    far = np.array([452300, 5411800, 0])
    for name in ("near", "far"):
        write_scene(tmp_path / name)
        document = json.loads((tmp_path / name / "transforms.json").read_text())
        (tmp_path / name / "transforms.json").unlink()
        for word, part in (("train", slice(0, 9)), ("val", slice(9, 12)), ("test", slice(12, 16))):
            path = tmp_path / name / f"transforms_{word}.json"
            path.write_text(json.dumps({**document, "frames": document["frames"][part]}))
            shift(path, far if name == "far" else np.zeros(3), scale)
    offsets = []
    for name in ("train", "validation", "test"):
        near, moved = (
            everything(open_transforms(tmp_path / folder, name, image_size=16)).c2w.astype(np.float64)
            for folder in ("near", "far")
        )
        np.testing.assert_array_equal(near[..., :3, :3], moved[..., :3, :3])
        between = near[..., :3, 3] - moved[..., :3, 3]
        np.testing.assert_allclose(between, between[:, :1].repeat(between.shape[1], 1), atol=1e-6 * scale)
        offsets.append(between[0, 0])
    assert np.abs(moved[..., :3, 3]).max() < 3 * scale
    np.testing.assert_allclose(offsets, [offsets[0]] * 3, atol=1e-6 * scale)


def test_a_pure_rotation_stays_where_it_is(tmp_path: Path) -> None:
    """What the last decimals leave between its cameras must not become the scene's extent."""
    write_scene(tmp_path)

    def edit(document: dict[str, Any]) -> None:
        for number, entry in enumerate(document["frames"]):
            for row in entry["transform_matrix"][:3]:
                row[3] = 7 + 1e-7 * number

    change(tmp_path, edit)
    c2w = everything(open_transforms(tmp_path, "train", image_size=16)).c2w[0]
    np.testing.assert_allclose(c2w[:, :3, 3], 7, atol=1e-5)
    assert SceneFrame.of(c2w).scale == 1


# --------------------------------------------------------------------------------------------------------------- lens


def colour(points: np.ndarray) -> np.ndarray:
    """A smooth picture on the ideal image plane: [.., 2] -> [.., 3] in 0..255."""
    x, y = points[..., 0], points[..., 1]
    return 127.5 + 100 * np.stack([np.sin(4 * x + 1), np.cos(5 * y - x), np.sin(3 * x * y + 2 * y)], axis=-1)


def photograph(camera: dict[str, float], width: int, height: int) -> np.ndarray:
    """What a real lens takes of the picture: each pixel's ideal point is found by solving the lens model for it."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    bent = np.stack([(columns - camera["cx"]) / camera["fl_x"], (rows - camera["cy"]) / camera["fl_y"]], axis=-1)
    coefficients = np.array([camera[key] for key in ("k1", "k2", "p1", "p2")])
    found = solve(
        lambda flat: (distort(flat.reshape(bent.shape), coefficients) - bent).ravel(), bent.ravel(), method="krylov"
    )
    assert found.success
    return np.rint(colour(found.x.reshape(bent.shape))).astype(np.uint8)


@pytest.mark.parametrize("k1", [-0.12, 0.12])
@pytest.mark.parametrize("image_size", [48, 25, 16])
def test_a_distorted_photograph_becomes_what_a_pinhole_sees(tmp_path: Path, k1: float, image_size: int) -> None:
    """Also where the photograph is averaged down first, and where the focal length must grow."""
    camera = {
        "fl_x": 70.0,
        "fl_y": 66.0,
        "cx": 41.0,
        "cy": 30.0,
        "w": 80,
        "h": 64,
        "k1": k1,
        "k2": 0.01,
        "p1": 0.006,
        "p2": -0.008,
    }
    write_scene(tmp_path, keys={"camera_model": "OPENCV", **camera, "k3": 0, "k4": 0.0})
    for path in (tmp_path / "images").iterdir():
        Image.fromarray(photograph(camera, 80, 64)).save(path)
    split = open_transforms(tmp_path, "train", image_size=image_size)
    rgb, _, intrinsics = split.load(np.array([0]), np.array([[0]]))
    fx, fy, cx, cy = intrinsics[0, 0]
    columns, rows = np.meshgrid(np.arange(image_size) + 0.5, np.arange(image_size) + 0.5)
    expected = colour(np.stack([(columns - cx) / fx, (rows - cy) / fy], axis=-1))
    error = np.abs(rgb[0, 0].astype(float) - expected)
    assert error[1:-1, 1:-1].max() < 4, "Lanczos sees less at the border"
    assert error.mean() < 0.8

    change(tmp_path, lambda document: document.update(k1=0, k2=0, p1=0, p2=0))
    rgb, _, intrinsics = open_transforms(tmp_path, "train", image_size=image_size).load(np.array([0]), np.array([[0]]))
    fx, fy, cx, cy = intrinsics[0, 0]
    expected = colour(np.stack([(columns - cx) / fx, (rows - cy) / fy], axis=-1))
    assert np.abs(rgb[0, 0].astype(float) - expected).max() > 8, "the lens is worth taking out"


# ------------------------------------------------------------------------------------------------------------- splits


def test_one_scene_without_lists_holds_every_eighth_frame_out(tmp_path: Path) -> None:
    write_scene(tmp_path, count=20)
    splits = {name: open_transforms(tmp_path, name, image_size=16) for name in ("train", "validation", "test")}
    assert [frame for _, frame in splits["test"].items] == [0, 8, 16]
    assert [frame for _, frame in splits["validation"].items] == [4, 12]
    train = [frame for _, frame in splits["train"].items]
    assert sorted({*train, 0, 8, 16, 4, 12}) == list(range(20))
    for name in ("validation", "test"):
        items = np.arange(len(splits[name]))
        inputs, targets = splits[name].choose_evaluation(items, 4, 3)
        assert targets[:, 0].tolist() == [frame for _, frame in splits[name].items]
        assert set(inputs.ravel()) <= set(train)
    inputs, targets = splits["train"].choose(
        np.repeat(np.arange(len(train)), 40), np.arange(len(train) * 40).astype(np.uint64), 3, 4
    )
    assert set(inputs.ravel()) == set(targets.ravel()) == set(train)
    assert targets[:, 0].tolist() == np.repeat(train, 40).tolist()
    assert all(len({*a, *b}) == 7 for a, b in zip(inputs, targets, strict=True))


def test_nerfstudio_lists_come_first(tmp_path: Path) -> None:
    named = {"train": [1, 2, 3, 9], "val": [4], "test": [5, 6]}
    lists = {f"{word}_filenames": [f"images/{i:04d}.png" for i in numbers] for word, numbers in named.items()}
    write_scene(tmp_path, keys={**lists, "applied_transform": np.eye(4)[:3].tolist(), "applied_scale": 0.5})
    assert [frame for _, frame in open_transforms(tmp_path, "test", image_size=16).items] == [5, 6]
    assert [frame for _, frame in open_transforms(tmp_path, "validation", image_size=16).items] == [4]
    train = open_transforms(tmp_path, "train", image_size=16)
    assert [frame for _, frame in train.items] == [1, 2, 3, 9]
    inputs, targets = train.choose(np.arange(4), np.arange(4, dtype=np.uint64), 2, 2)
    assert {*inputs.ravel(), *targets.ravel()} <= {1, 2, 3, 9}


def test_several_scenes_are_split_as_wholes(tmp_path: Path) -> None:
    for number in range(12):
        write_scene(tmp_path / f"scene-{number}", count=6)
    (tmp_path / "notes").mkdir()
    names = {
        name: [scene.name for scene in open_transforms(tmp_path, name, image_size=16).scenes]
        for name in ("train", "validation", "test")
    }
    assert [len(names[name]) for name in ("train", "validation", "test")] == [10, 1, 1]
    assert sorted(name for found in names.values() for name in found) == sorted(f"scene-{n}" for n in range(12))
    test = open_transforms(tmp_path, "test", image_size=16)
    assert len(test) == 1
    inputs, targets = test.choose_evaluation(np.array([0]), 2, 3)
    assert targets.shape == (1, 3)
    np.testing.assert_array_equal(test.choose_evaluation(np.array([0]), 2, 3)[1], targets)
    np.testing.assert_array_equal(test.choose_evaluation(np.array([0]), 3, 3)[1], targets)
    train = open_transforms(tmp_path, "train", image_size=16)
    items, draws = np.zeros(300, np.int64), np.arange(300, dtype=np.uint64)
    inputs, targets = train.choose(items, draws, 2, 3)
    for chosen in (inputs, targets):
        assert np.abs(np.bincount(chosen.ravel(), minlength=6) / chosen.size - 1 / 6).max() < 0.05
    one = train.choose(items[:1], draws[17:18], 2, 3)
    np.testing.assert_array_equal(np.concatenate(one, axis=1)[0], np.concatenate([inputs[17], targets[17]]))


def test_scenes_of_different_lengths_and_cameras_share_a_batch(tmp_path: Path) -> None:
    for number, count in enumerate((5, 9, 7)):
        write_scene(tmp_path / f"scene-{number}", count=count, keys={"fl_x": 50 + number})
        write_image(tmp_path / f"scene-{number}/images/0000.png", 100 + number)
    for number in range(3):
        folder = tmp_path / f"scene-{number}"
        document = json.loads((folder / "transforms.json").read_text())
        half = len(document["frames"]) // 2
        for word, frames in (("train", document["frames"][half:]), ("test", document["frames"][:half])):
            (folder / f"transforms_{word}.json").write_text(json.dumps({**document, "frames": frames}))
    train = open_transforms(tmp_path, "train", image_size=16)
    assert [train.sample_name(item, 0) for item in (0, 3, 8)] == [f"scene-{n}/images/0000" for n in range(3)]
    views = train.load(np.array([0, 3, 8]), np.zeros((3, 2), np.int64))
    assert views.rgb[:, 1, 3, 3, 0].tolist() == [100, 101, 102]
    np.testing.assert_allclose(views.intrinsics[:, 0, 0], np.array([50, 51, 52]) / 2)


def test_neighbours_keeps_to_the_nearest_cameras(tmp_path: Path) -> None:
    write_scene(tmp_path, count=32)
    test = open_transforms(tmp_path, "test", image_size=16, neighbours=4)
    inputs, targets = test.choose_evaluation(np.arange(len(test)), 4, 1)
    for row, target in zip(inputs, targets[:, 0], strict=True):
        train = [n for n in range(32) if n % 8 not in (0, 4)]
        assert sorted(row) == sorted(sorted(train, key=lambda n: abs(n - target))[:4])
    with pytest.raises(UserError, match=r"5 inputs and 1 targets do not fit the 5 views .* raise neighbours"):
        test.choose_evaluation(np.array([0]), 5, 1)


def test_the_name_of_the_folder_changes_nothing(tmp_path: Path) -> None:
    write_scene(tmp_path / "one")
    before = open_transforms(tmp_path / "one", "test", image_size=16)
    (tmp_path / "one").rename(tmp_path / "other")
    after = open_transforms(tmp_path / "other", "test", image_size=16)
    items = np.arange(len(before))
    for one, other in zip(before.choose_evaluation(items, 5, 1), after.choose_evaluation(items, 5, 1), strict=True):
        np.testing.assert_array_equal(one, other)
    assert before.sample_name(0, 3) == after.sample_name(0, 3) == "images/0003"
    assert before.fingerprint == after.fingerprint


def test_the_fingerprint_is_that_of_what_is_held(tmp_path: Path) -> None:
    write_scene(tmp_path)
    prints = {name: open_transforms(tmp_path, name, image_size=16).fingerprint for name in ("train", "test")}
    assert prints["train"] != prints["test"]
    assert open_transforms(tmp_path, "test", image_size=8).fingerprint == prints["test"], "not of how it is read"
    image = tmp_path / "images/0003.png"
    image.write_bytes(image.read_bytes() + b" ")
    other_image = open_transforms(tmp_path, "test", image_size=16).fingerprint
    change(tmp_path, lambda document: document.update(fl_x=51.0))
    assert len({prints["test"], other_image, open_transforms(tmp_path, "test", image_size=16).fingerprint}) == 3


def test_reading_tells_how_far_it_is(tmp_path: Path) -> None:
    for number in range(12):
        write_scene(tmp_path / f"scene-{number}", count=4)
    told: list[tuple[str, int, int]] = []
    open_transforms(tmp_path, "train", image_size=16, report=lambda *progress: told.append(progress))
    assert told[0] == ("reading transforms.json", 0, 12)
    assert told[1:] == [("reading transforms.json", done, 10) for done in range(1, 11)]


# ----------------------------------------------------------------------------------------------------------- mistakes


def frame(edit):
    """An edit of the third frame."""
    return lambda document: edit(document["frames"][2])


MISTAKES = {
    "frames": (lambda d: d.pop("frames"), r"transforms.json: frames must be a list"),
    "no frame": (lambda d: d["frames"].clear(), r"transforms.json: frames must be a list with at least one"),
    "no path": (frame(lambda f: f.pop("file_path")), r"frames\[2\] must have file_path"),
    "no matrix": (
        frame(lambda f: f.pop("transform_matrix")),
        r"frames\[2\].transform_matrix .*0013.png.* must be a 4 x 4",
    ),
    "ragged": (frame(lambda f: f["transform_matrix"][0].pop()), r"frames\[2\].transform_matrix .* must be a 4 x 4"),
    "nan": (frame(lambda f: f["transform_matrix"][0].__setitem__(3, math.nan)), r"frames\[2\].* is not finite"),
    "scaled": (frame(lambda f: f["transform_matrix"][0].__setitem__(0, 3.0)), r"frames\[2\].* not orthonormal"),
    "no image": (
        frame(lambda f: f.update(file_path="images/x")),
        r"frames\[2\].file_path: no image .*images/x, with or",
    ),
    "no focal": (
        lambda d: [d.pop(key) for key in ("fl_x", "fl_y")],
        r"frames\[0\] has neither fl_x nor camera_angle_x",
    ),
    "text": (lambda d: d.update(fl_x="50"), r"frames\[0\]: fl_x must be a finite number, got '50'"),
    "zero": (lambda d: d.update(fl_x=0), r"frames\[0\]: fl_x, fl_y, w and h must be > 0, got 0"),
    "angle": (lambda d: [d.pop("fl_x"), d.update(camera_angle_x=40)], r"camera_angle_x must lie between 0 and pi"),
    "fisheye": (lambda d: d.update(camera_model="OPENCV_FISHEYE"), r"camera_model OPENCV_FISHEYE is not supported"),
    "ngp fisheye": (lambda d: d.update(is_fisheye=True), r"is_fisheye is set"),
    "k3": (lambda d: d.update(k3=0.1), r"k3 is 0.1, but only k1, k2, p1, p2"),
    "twice": (frame(lambda f: f.update(file_path="images/0000.png")), r"images/0000 is listed twice"),
    "twice by another path": (
        frame(lambda f: f.update(file_path="images/../images/0005.png")),
        r"images/0005 is listed twice \(once as images/../images/0005\)",
    ),
    "unknown name": (lambda d: d.update(train_filenames=["x.png"]), r"train_filenames names x.png, which is no frame"),
    "two lists": (
        lambda d: d.update(train_filenames=["images/0001.png"], test_filenames=["./images/0001.png"]),
        r"./images/0001.png is in train_filenames and test_filenames",
    ),
    "no test": (
        lambda d: d.update(train_filenames=["images/0001.png"]),
        r"has no frame for test: add transforms_test.json",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_file_frame_and_field(tmp_path: Path, mistake: str) -> None:
    edit, message = MISTAKES[mistake]
    write_scene(tmp_path)
    open_transforms(tmp_path, "test", image_size=16)
    change(tmp_path, edit)
    with pytest.raises(UserError, match=message) as caught:
        open_transforms(tmp_path, "test", image_size=16)
    assert "\n" not in str(caught.value)
    assert str(tmp_path.name) in str(caught.value)


def test_no_scene_and_bad_options(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no transforms\.json"):
        open_transforms(tmp_path, "train", image_size=16)
    with pytest.raises(UserError, match="is no folder"):
        open_transforms(tmp_path / "x", "train", image_size=16)
    write_scene(tmp_path)
    with pytest.raises(UserError, match="split must be one of train, validation, test, got val"):
        open_transforms(tmp_path, "val", image_size=16)
    with pytest.raises(UserError, match="neighbours must be >= 1, got 0"):
        open_transforms(tmp_path, "train", image_size=16, neighbours=0)
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(UserError, match=r"transforms\.json cannot be read as JSON"):
        open_transforms(tmp_path, "train", image_size=16)


def test_two_scenes_or_mixed_ones_need_lists(tmp_path: Path) -> None:
    for name in "ab":
        write_scene(tmp_path / name)
    with pytest.raises(UserError, match="holds 2 scenes without lists of frames: splitting scenes takes 3 or more"):
        open_transforms(tmp_path, "train", image_size=16)
    write_scene(tmp_path / "c")
    change(tmp_path / "a", lambda d: d.update(train_filenames=["images/0001.png"], test_filenames=["images/0002.png"]))
    with pytest.raises(UserError, match="a and b must both list their train and test frames, or neither"):
        open_transforms(tmp_path, "test", image_size=16)


def test_an_image_of_another_shape_and_a_folding_lens(tmp_path: Path) -> None:
    write_scene(tmp_path)
    split = open_transforms(tmp_path, "train", image_size=16)
    write_image(tmp_path / "images/0003.png", 3, (HEIGHT, WIDTH))
    with pytest.raises(UserError, match=r"0003.png is 32 x 40, but w and h of its frame say 40 x 32"):
        split.load(np.array([0]), np.array([[3]]))
    change(tmp_path, lambda document: document.update(k1=-2.5))
    with pytest.raises(UserError, match=r"0004.png: k1, k2, p1, p2 = -2.5, 0, 0, 0: the lens folds the image"):
        open_transforms(tmp_path, "train", image_size=16).load(np.array([0]), np.array([[4]]))


def test_too_few_views_name_the_scene(tmp_path: Path) -> None:
    for number in range(3):
        write_scene(tmp_path / f"scene-{number}", count=4)
    split = open_transforms(tmp_path, "train", image_size=16)
    with pytest.raises(UserError, match=r"scene-\d: 3 inputs and 2 targets do not fit the 4 views"):
        split.choose(np.array([0]), np.array([0], np.uint64), 3, 2)
