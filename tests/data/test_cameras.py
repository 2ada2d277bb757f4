"""The scene frame and its degenerate cases, conventions, checks, the lens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bench.data.cameras import MIN_AXIS, SceneFrame, check_poses, distort, opengl_to_opencv, undistorted_square
from bench.errors import UserError


def poses(rotations: np.ndarray, centres: np.ndarray) -> np.ndarray:
    c2w = np.tile(np.eye(4), (*np.shape(centres)[:-1], 1, 1))
    c2w[..., :3, :3], c2w[..., :3, 3] = rotations, centres
    return c2w.astype(np.float32)


def looking_at(centres: np.ndarray, target: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """OpenCV cameras [V, 4, 4] that look at a point, the world's z being up."""
    forward = np.asarray(target, float) - centres
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    return poses(np.stack([right, np.cross(forward, right), forward], axis=-1), centres)


def ring(count: int, elevation: float, arc: float = 360.0) -> np.ndarray:
    azimuth = np.radians(np.arange(count) * arc / count)
    high = np.radians(elevation)
    circle = np.stack(
        [np.cos(azimuth) * np.cos(high), np.sin(azimuth) * np.cos(high), np.full(count, np.sin(high))], -1
    )
    return looking_at(1.5 * circle)


def spread(generator: np.random.Generator, count: int, tilt: float = 0.4) -> np.ndarray:
    """Cameras that look roughly one way from scattered places."""
    turned = Rotation.from_rotvec(generator.normal(0, tilt, (count, 3)))
    whole = Rotation.from_quat(generator.normal(size=4))
    return poses((whole * turned).as_matrix(), generator.normal(0, 3, (count, 3)) + generator.normal(0, 20, 3))


def assert_proper(frame: SceneFrame) -> None:
    eye = np.eye(3)
    assert np.abs(frame.rotation @ np.swapaxes(frame.rotation, -1, -2) - eye).max() < 1e-9
    assert np.linalg.det(frame.rotation) == pytest.approx(1, abs=1e-9)
    assert np.all(frame.scale > 0)
    assert np.isfinite(frame.scale).all()
    assert np.isfinite(frame.centre).all()


# -------------------------------------------------------------------------------------------------- the usual frame


def test_the_frame_is_that_of_the_reference() -> None:
    """Against the definition, step by step and one sample at a time."""
    c2w = spread(np.random.default_rng(0), 5).astype(np.float64)
    forward = c2w[:, :3, 2].mean(0) / np.linalg.norm(c2w[:, :3, 2].mean(0))
    right = np.cross(c2w[:, :3, 1].mean(0), forward)
    right /= np.linalg.norm(right)
    average = np.eye(4)
    average[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    average[:3, 3] = c2w[:, :3, 3].mean(0)
    expected = np.linalg.inv(average) @ c2w
    expected[:, :3, 3] /= 1.35 * np.abs(expected[:, :3, 3]).max()

    found = SceneFrame.of(c2w).apply(c2w)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found[:, :3, 3]).max() == pytest.approx(1 / 1.35, abs=1e-6)
    np.testing.assert_allclose(found[:, :3, 3].mean(0), 0, atol=1e-6)


def test_samples_do_not_touch_one_another() -> None:
    generator = np.random.default_rng(1)
    batch = np.stack([spread(generator, 4) for _ in range(6)]).reshape(2, 3, 4, 4, 4)
    batch[0, 1] = batch[0, 1, :1]
    batch[1, 0] = ring(4, 20)
    together = SceneFrame.of(batch).apply(batch)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(together[i, j], SceneFrame.of(batch[i, j]).apply(batch[i, j]))


def test_a_frame_of_the_inputs_knows_nothing_of_later_views() -> None:
    c2w = spread(np.random.default_rng(2), 6)
    frame = SceneFrame.of(c2w[:2])
    late = frame.apply(c2w)
    moved = c2w.copy()
    moved[2:, :3, 3] += 100
    np.testing.assert_array_equal(frame.apply(moved)[:2], late[:2])
    assert not np.allclose(SceneFrame.of(moved).apply(moved)[:2], SceneFrame.of(c2w).apply(c2w)[:2])


@given(seed=st.integers(0, 10_000), count=st.integers(2, 8), size=st.floats(0.01, 100))
def test_it_undoes_any_motion_and_scale_of_the_world(seed: int, count: int, size: float) -> None:
    generator = np.random.default_rng(seed)
    c2w = spread(generator, count).astype(np.float64)
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = Rotation.random(rng=generator).as_matrix(), generator.normal(0, 10, 3)
    moved = world @ c2w
    moved[:, :3, 3] *= size
    np.testing.assert_allclose(SceneFrame.of(moved).apply(moved), SceneFrame.of(c2w).apply(c2w), atol=1e-4)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 6), kind=st.sampled_from(["any", "still", "same", "aligned"]))
def test_always_finite_and_a_rotation_and_undone(seed: int, count: int, kind: str) -> None:
    generator = np.random.default_rng(seed)
    rotations = Rotation.random(count, rng=generator).as_matrix()
    centres = generator.normal(0, 10.0 ** generator.integers(-6, 5), (count, 3))
    if kind in ("still", "same"):
        centres = np.repeat(centres[:1], count, axis=0)
    if kind in ("aligned", "same"):
        rotations = np.repeat(rotations[:1], count, axis=0)
    c2w = poses(rotations, centres)
    frame = SceneFrame.of(c2w)
    assert_proper(frame)
    seen = frame.apply(c2w)
    assert np.isfinite(seen).all()
    assert np.abs(seen[:, :3, 3]).max() < 0.75
    turned = seen[:, :3, :3].astype(np.float64)
    assert np.abs(np.swapaxes(turned, -1, -2) @ turned - np.eye(3)).max() < 1e-5
    # No camera turns against another.
    between = np.swapaxes(c2w[:1, :3, :3], -1, -2) @ c2w[:, :3, :3]
    np.testing.assert_allclose(np.swapaxes(seen[:1, :3, :3], -1, -2) @ seen[:, :3, :3], between, atol=1e-5)
    np.testing.assert_allclose(frame.invert(seen), c2w, atol=1e-6 * max(1.0, float(np.abs(c2w).max())))


# ------------------------------------------------------------------------------------------------- degenerate cases


@pytest.mark.parametrize("place", [0.0, 1e-9, 1.0, 5000.0])
def test_pure_rotation_keeps_the_worlds_unit(place: float) -> None:
    turned = Rotation.from_rotvec(np.arange(4)[:, None] * [[0, 0.1, 0]]).as_matrix()
    c2w = poses(turned, np.full((4, 3), place))
    c2w[1, 0, 3] = np.nextafter(c2w[1, 0, 3], np.float32(np.inf))  # what rounding leaves is no translation
    frame = SceneFrame.of(c2w)
    assert frame.scale == 1
    assert np.abs(frame.apply(c2w)[:, :3, 3]).max() < 1e-3
    later = c2w[:1].copy()
    later[0, 0, 3] += 2
    assert np.linalg.norm(frame.apply(later)[0, :3, 3]) == pytest.approx(2, rel=1e-3)


def test_one_camera_and_copies_of_it_are_the_origin() -> None:
    camera = spread(np.random.default_rng(3), 1)
    for copies in (1, 5):
        seen = SceneFrame.of(np.repeat(camera, copies, axis=0)).apply(camera)
        np.testing.assert_allclose(seen[0], np.eye(4), atol=1e-5)


@pytest.mark.parametrize("elevation", [0.0, 3.0, 20.0, 60.0])
@pytest.mark.parametrize("count", [2, 4, 32])
def test_a_closed_ring_stands_on_its_first_camera(count: int, elevation: float) -> None:
    """Forwards cancel, or add up to straight down with the downs: either way no heading is left."""
    c2w = ring(count, elevation)
    frame = SceneFrame.of(c2w)
    assert_proper(frame)
    np.testing.assert_allclose(frame.apply(c2w)[0, :3, :3], np.eye(3), atol=1e-6)
    noisy = c2w.copy()
    noisy[1:, :3, 3] += np.random.default_rng(4).normal(0, 1e-3, (count - 1, 3))
    noisy[1:, :3, :3] = Rotation.from_rotvec([0, 0, 1e-2]).as_matrix() @ noisy[1:, :3, :3]
    np.testing.assert_allclose(SceneFrame.of(noisy).rotation, frame.rotation, atol=1e-6)


def test_an_open_ring_keeps_the_published_frame() -> None:
    """The residual of 0.24 that the original's frame hangs on is above our limit."""
    c2w = ring(16, 10, arc=285)
    forward = c2w[:, :3, 2].astype(np.float64).mean(0)
    assert MIN_AXIS < np.linalg.norm(forward) < 0.3
    np.testing.assert_allclose(SceneFrame.of(c2w).rotation[2], forward / np.linalg.norm(forward), atol=1e-6)


def test_a_ring_that_hardly_opens_stands_on_its_first_camera() -> None:
    """A level ring of 340 degrees leaves 0.06 of forward, and its downs agree: only the length tells."""
    c2w = ring(34, 0, arc=340)
    assert 0.05 < np.linalg.norm(c2w[:, :3, 2].mean(0)) < MIN_AXIS
    np.testing.assert_allclose(SceneFrame.of(c2w).apply(c2w)[0, :3, :3], np.eye(3), atol=1e-6)


def test_the_first_camera_is_the_first_that_counts() -> None:
    c2w = ring(4, 20)
    valid = np.array([False, True, False, True])
    np.testing.assert_allclose(SceneFrame.of(c2w, valid).apply(c2w)[1, :3, :3], np.eye(3), atol=1e-6)


def test_down_along_forward_falls_back_to_the_first_camera() -> None:
    """Two cameras, rolled and turned so that mean forward and mean down are one direction."""
    one = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1.0]])  # columns right, down, forward
    other = np.array([[-1, 0, 0], [0, 0, 1], [0, 1, 0.0]])
    frame = SceneFrame.of(poses(np.stack([one, other]), np.eye(2, 3)))
    assert_proper(frame)
    np.testing.assert_allclose(frame.rotation, np.eye(3), atol=1e-12)


@given(seed=st.integers(0, 10_000), rubbish=st.sampled_from([0.0, np.nan, 1e30]))
def test_a_masked_view_does_not_count(seed: int, rubbish: float) -> None:
    generator = np.random.default_rng(seed)
    c2w = spread(generator, 5)
    valid = generator.random(5) < 0.5
    valid[generator.integers(5)] = True
    hidden = c2w.copy()
    hidden[~valid] = rubbish
    masked, alone = SceneFrame.of(hidden, valid), SceneFrame.of(c2w[valid])
    np.testing.assert_allclose(masked.rotation, alone.rotation, atol=1e-12)
    np.testing.assert_allclose(masked.centre, alone.centre, atol=1e-12)
    np.testing.assert_allclose(masked.scale, alone.scale, rtol=1e-12)


def test_a_sample_without_any_view_is_refused() -> None:
    with pytest.raises(ValueError, match="no valid camera"):
        SceneFrame.of(np.tile(np.eye(4), (2, 3, 1, 1)), np.array([[True, False, False], [False] * 3]))


# ---------------------------------------------------------------------------------------------- conventions, checks


def test_opengl_and_opencv_see_the_same_point() -> None:
    c2w = spread(np.random.default_rng(5), 3).astype(np.float64)
    point = np.array([1.0, 2, 3, 1])
    gl, cv = np.linalg.inv(c2w) @ point, np.linalg.inv(opengl_to_opencv(c2w)) @ point
    np.testing.assert_allclose(cv, gl * [1, -1, -1, 1], atol=1e-9)
    np.testing.assert_array_equal(opengl_to_opencv(opengl_to_opencv(c2w)), c2w)
    assert opengl_to_opencv(c2w.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda pose: pose.__setitem__((0, 3), np.nan), "frame 2 is not finite"),
        (
            lambda pose: pose.__setitem__((slice(3), slice(3)), 2 * pose[:3, :3]),
            r"frame 2 has a rotation .* \(off by 3\)",
        ),
        (lambda pose: pose.__setitem__((slice(3), 0), -pose[:3, 0]), "frame 2 is left-handed"),
        (lambda pose: pose.__setitem__(slice(None), pose.T.copy()), "frame 2 has a last row"),
        (lambda pose: pose.__setitem__((3, 1), 1e-4), "frame 2 has a last row"),
    ],
)
def test_what_is_no_rigid_motion_is_refused(spoil, message: str) -> None:
    c2w = spread(np.random.default_rng(6), 4)
    check_poses(c2w, lambda i: f"frame {i}")
    spoil(c2w[2])
    with pytest.raises(UserError, match=message) as caught:
        check_poses(c2w, lambda i: f"frame {i}")
    assert "\n" not in str(caught.value)


def test_a_last_row_may_be_rounded() -> None:
    c2w = spread(np.random.default_rng(7), 2).astype(np.float64)
    c2w[1, 3] += 1e-7, -1e-12, 0, 1e-7
    check_poses(c2w, str)


# ------------------------------------------------------------------------------------------------------------- lens


def test_distortion_by_hand() -> None:
    k1, k2, p1, p2 = 0.1, -0.05, 0.01, 0.02
    x, y, square = 0.3, -0.4, 0.25
    radial = 1 + 0.1 * 0.25 - 0.05 * 0.0625
    expected = [
        x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
        y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
    ]
    np.testing.assert_allclose(distort(np.array([x, y]), np.array([k1, k2, p1, p2])), expected)
    # Positive k1 moves points outwards, positive p1 moves the whole image down, positive p2 to the right.
    assert np.linalg.norm(distort(np.array([0.3, 0.4]), np.array([0.1, 0, 0, 0]))) > 0.5
    assert distort(np.array([0.3, 0.0]), np.array([0, 0, 0.1, 0]))[1] > 0
    assert distort(np.array([0.0, 0.3]), np.array([0, 0, 0, 0.1]))[0] > 0


@pytest.mark.parametrize("k1", [-0.2, 0.2])
def test_the_square_lies_inside_what_the_lens_saw(k1: float) -> None:
    intrinsics, coefficients = np.array([60.0, 55, 41, 29]), np.array([k1, 0.02, 0.005, -0.004])
    ideal, places = undistorted_square(intrinsics, coefficients, 80, 60)
    assert places.shape == (2, 60, 60)
    assert places.min() >= 0
    assert (places.max(axis=(1, 2)) <= [59, 79]).all()
    zoom = ideal[0] / 60
    assert (zoom == 1) if k1 < 0 else (1 < zoom < 1.5)
    np.testing.assert_allclose(ideal, [60 * zoom, 55 * zoom, 31, 29])
    # Every pixel's ray, bent by the lens, meets the place that it is read from.
    row, column = 7, 50
    ray = (np.array([column + 0.5, row + 0.5]) - ideal[2:]) / ideal[:2]
    np.testing.assert_allclose(places[::-1, row, column], distort(ray, coefficients) * [60, 55] + [41, 29] - 0.5)


def test_no_distortion_is_the_middle_square_itself() -> None:
    ideal, places = undistorted_square(np.array([50.0, 50, 40, 30]), np.zeros(4), 80, 60)
    np.testing.assert_allclose(ideal, [50, 50, 30, 30])
    np.testing.assert_allclose(places[0], np.arange(60)[:, None].repeat(60, 1), atol=1e-9)
    np.testing.assert_allclose(places[1], np.arange(10, 70)[None].repeat(60, 0), atol=1e-9)


@pytest.mark.parametrize(
    ("intrinsics", "k1", "message"), [((30, 30, 40, 30), -0.9, "folds"), ((50, 50, 200, 30), 0.2, "principal point")]
)
def test_impossible_lenses_are_refused(intrinsics: tuple[float, ...], k1: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        undistorted_square(np.array(intrinsics, float), np.array([k1, 0, 0, 0]), 80, 60)
