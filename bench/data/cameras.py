"""Camera poses of any data set: conventions, checks, the lens, and the frame that a scene's poses are given in.

A pose is c2w, a 4 x 4 camera-to-world matrix. OpenCV: x right, y down, z forward. OpenGL and Blender: x right, y up, z back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.errors import UserError

SCALE_MARGIN = 1.35
"""The outermost camera centre of the reference cameras lies at a coordinate of 1 / 1.35 (LVSM)."""

MIN_AXIS = 0.1
"""A mean axis shorter than this is what is left over after axes cancelled: noise of 1 degree in it would be 10 in the frame.

LVSM has no such limit, and on a ring that is not quite closed its frame hangs on a mean forward of 0.24; above the limit the
frames are the same.
"""

RELATIVE_STILL, ABSOLUTE_STILL = 1e-6, 1e-8
"""Camera centres that differ by less (of the largest coordinate; in world units) differ by rounding: fp32, nine decimals.

Anything more is motion, for nothing here tells two neighbouring frames of a video from a small scene. Reference cameras that all
but coincide put the rest of a scene thousands of units away: whoever draws views must draw them apart.
"""

MAX_LAST_ROW = 1e-6
"""How far the last row of a pose may be from 0 0 0 1: rounding, as an inverse leaves it."""


@dataclass(frozen=True, eq=False)
class SceneFrame:
    """The frame of a scene's reference cameras: their mean place, their mean orientation, their extent (LVSM).

    A value: built from some cameras, applied to any. Frames of the input views alone say nothing of the targets, and views
    that come later go through the frame of the first ones; frames of inputs and targets together are the published form.
    All numbers are fp64; the leading axes `..` are samples.
    """

    rotation: np.ndarray
    """[.., 3, 3], world to frame; its rows are the frame's right, down and forward."""
    centre: np.ndarray
    """[.., 3], world: the mean camera centre."""
    scale: np.ndarray
    """[..] > 0: world units in one unit of the frame."""

    @classmethod
    def of(cls, c2w: np.ndarray, valid: np.ndarray | None = None) -> SceneFrame:
        """The frame of reference cameras.

        Origin: the mean camera centre. Axes: z along the mean forward, x along mean down × z, y = z × x. One unit: 1.35
        times the largest coordinate of a camera centre in this frame.

        Two cases have no such frame. Where the mean forward, or the mean down across it, is shorter than `MIN_AXIS` (a
        closed ring, cameras all around a point, looking along down), the axes are those of the first valid camera: always
        there, moved only by that camera's own noise, but dependent on which comes first. Where the centres differ by no
        more than rounding (pure rotation, one camera, copies of one), one unit is one world unit. So one camera alone
        becomes the identity, and the others stand around it at the distances that the files give them: what a model
        learns is then tied to the unit of the data, and scenes of different units do not mix.

        Args:
            c2w: [.., V, 4, 4], OpenCV, finite where valid.
            valid: [.., V] bool, the cameras that count; at least one in each sample. All by default.

        Raises:
            ValueError: a sample without a valid camera.
        """
        c2w = np.asarray(c2w, np.float64)
        valid = np.ones(c2w.shape[:-2], bool) if valid is None else np.asarray(valid, bool)
        if not valid.any(axis=-1).all():
            raise ValueError("valid: a sample has no valid camera, and a frame needs at least one")
        # Whatever a masked view holds, be it NaN, is replaced before anything is computed from it.
        poses = np.where(valid[..., None, None], c2w[..., :3, :], 0.0)
        mean = poses.sum(axis=-3) / valid.sum(axis=-1)[..., None, None]
        forward, down = mean[..., 2], mean[..., 1]
        forward_length = np.linalg.norm(forward, axis=-1)
        across = np.cross(down, forward / np.maximum(forward_length, MIN_AXIS)[..., None])
        defined = (forward_length >= MIN_AXIS) & (np.linalg.norm(across, axis=-1) >= MIN_AXIS)
        first = np.take_along_axis(poses, valid.argmax(axis=-1)[..., None, None, None], axis=-3)[..., 0, :, :]
        forward, down = (
            np.where(defined[..., None], mean_axis, first[..., column])
            for mean_axis, column in ((forward, 2), (down, 1))
        )
        forward = _unit(forward)
        right = _unit(np.cross(down, forward))
        rotation = np.stack([right, np.cross(forward, right), forward], axis=-2)

        centre = mean[..., 3]
        offsets = np.where(valid[..., None], poses[..., 3] - centre[..., None, :], 0.0)
        extent = np.abs(_rotate(rotation, offsets)).max(axis=(-2, -1))
        still = np.maximum(RELATIVE_STILL * np.abs(poses[..., 3]).max(axis=(-2, -1)), ABSOLUTE_STILL)
        return cls(rotation, centre, np.where(extent > still, SCALE_MARGIN * extent, 1.0))

    def apply(self, c2w: np.ndarray) -> np.ndarray:
        """Cameras [.., V, 4, 4] of the world as the frame sees them, fp32."""
        moved = np.array(c2w, np.float64)
        moved[..., :3, :3] = self.rotation[..., None, :, :] @ moved[..., :3, :3]
        offsets = moved[..., :3, 3] - self.centre[..., None, :]
        moved[..., :3, 3] = _rotate(self.rotation, offsets) / self.scale[..., None, None]
        return moved.astype(np.float32)

    def invert(self, c2w: np.ndarray) -> np.ndarray:
        """Cameras [.., V, 4, 4] of the frame back in the world, fp32."""
        moved = np.array(c2w, np.float64)
        back = np.swapaxes(self.rotation, -1, -2)
        moved[..., :3, :3] = back[..., None, :, :] @ moved[..., :3, :3]
        moved[..., :3, 3] = _rotate(back, moved[..., :3, 3] * self.scale[..., None, None]) + self.centre[..., None, :]
        return moved.astype(np.float32)


def _rotate(rotation: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [.., V, 3] turned by [.., 3, 3]."""
    return points @ np.swapaxes(rotation, -1, -2)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


# ------------------------------------------------------------------------------------------------------- conventions


def opengl_to_opencv(c2w: np.ndarray) -> np.ndarray:
    """OpenGL or Blender c2w [.., 4, 4] to OpenCV: the camera's y and z axes turn round, its place stays.

    The same function turns OpenCV into OpenGL.
    """
    return np.asarray(c2w) * np.array([1, -1, -1, 1], np.asarray(c2w).dtype)


def check_poses(poses: np.ndarray, describe: Callable[[int], str], tolerance: float = 1e-3) -> None:
    """Refuse poses [V, 4, 4], camera to world or the inverse, that are not rigid motions.

    Args:
        poses: the matrices.
        describe: names file and field of pose i, the start of the message.
        tolerance: how far an entry of R^T R may be from the identity's; files hold four digits and more.

    Raises:
        UserError: a pose that is not finite, not orthonormal, left-handed, or whose last row is not 0 0 0 1.
    """
    poses = np.asarray(poses, np.float64)
    finite = np.isfinite(poses).all(axis=(-2, -1))
    rotation = np.where(finite[:, None, None], poses[:, :3, :3], np.eye(3))
    error = np.abs(np.swapaxes(rotation, -1, -2) @ rotation - np.eye(3)).max(axis=(-2, -1))
    problems = (
        (~finite, "is not finite: leave this frame out"),
        (
            error > tolerance,
            "has a rotation whose columns are not orthonormal (off by {:.2g}): take scale and shear out of it",
        ),
        (
            np.linalg.det(rotation) < 0,
            "is left-handed (determinant -1): one axis is mirrored, turn two axes instead of one",
        ),
        (
            finite & (np.abs(poses[:, 3] - (0, 0, 0, 1)).max(axis=-1) > MAX_LAST_ROW),
            "has a last row other than 0 0 0 1: is it transposed?",
        ),
    )
    for bad, message in problems:
        if bad.any():
            index = int(bad.argmax())
            raise UserError(f"{describe(index)} {message.format(error[index])}")


# --------------------------------------------------------------------------------------------------------- distortion


def distort(points: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Where a lens moves points of the ideal image plane (z = 1): the Brown-Conrady model as OpenCV writes it.

    Args:
        points: [.., 2], x right and y down, of the ideal pinhole camera.
        coefficients: [4] k1, k2 (radial), p1, p2 (tangential).

    Returns:
        [.., 2], on the same plane.
    """
    k1, k2, p1, p2 = coefficients
    x, y = points[..., 0], points[..., 1]
    square = x * x + y * y
    radial = 1 + square * (k1 + square * k2)
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
            y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def undistorted_square(
    intrinsics: np.ndarray, coefficients: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """The middle square of the image that an ideal pinhole camera would have taken, and where to look it up.

    The square keeps the focal lengths unless the lens did not see all of it (pincushion); then they grow just as far as
    needed, so that no pixel is made up.

    Args:
        intrinsics: [4] fx, fy, cx, cy in pixels of the distorted image.
        coefficients: [4] k1, k2, p1, p2.
        width: of the distorted image, in pixels.
        height: the same.

    Returns:
        The square's intrinsics [4], and for each of its pixels [S, S] row and column in the distorted image, as indices
        (0 is the centre of the first pixel), [2, S, S].

    Raises:
        ValueError: the coefficients fold the image, so that two of its places show the same point.
    """
    side = min(width, height)
    focal, centre = np.asarray(intrinsics[:2], np.float64), np.asarray(intrinsics[2:], np.float64)
    corner = np.array([(width - side) // 2, (height - side) // 2], np.float64)
    ticks = np.arange(side) + 0.5
    pixels = np.stack(np.meshgrid(ticks, ticks, indexing="xy"), axis=-1) + corner
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])

    def source(at: np.ndarray, zoom: float) -> np.ndarray:
        return distort((at - centre) / (focal * zoom), coefficients) * focal + centre

    def seen(zoom: float) -> bool:
        found = source(border, zoom)
        return bool((found >= 0.5).all() and (found <= np.array([width, height]) - 0.5).all())

    zoom = 1.0
    if not seen(zoom):
        too_near, zoom = 1.0, 2.0
        while not seen(zoom):
            if zoom > 64:
                raise ValueError("the principal point lies outside the image")
            too_near, zoom = zoom, 2 * zoom
        while zoom - too_near > 1e-4:
            middle = (too_near + zoom) / 2
            too_near, zoom = (too_near, middle) if seen(middle) else (middle, zoom)

    found = source(pixels, zoom)
    down, right = np.diff(found, axis=0)[:, :-1], np.diff(found, axis=1)[:-1]
    # A sound lens keeps the orientation of every little square of pixels.
    if side > 1 and (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]).min() <= 0:
        raise ValueError("the lens folds the image")
    ideal = np.concatenate([focal * zoom, centre - corner])
    return ideal, np.ascontiguousarray(np.moveaxis(found - 0.5, -1, 0)[::-1])
