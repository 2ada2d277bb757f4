"""Warps: within the published bounds, about the middle, image and mask alike."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data.warps import NUMBERS, make_warp
from tests.data.video_files import HEIGHT, WIDTH, mask, picture

NEUTRAL = np.full(NUMBERS, 0.5)
"""No rotation, scale 1, no shear, no spline."""


def numbers(**changes: float) -> np.ndarray:
    out = NEUTRAL.copy()
    for name, value in changes.items():
        out[{"rotation": 0, "scale": 1, "shear": 2, "spline": 3}[name]] = value
    return out


def test_the_neutral_warp_changes_nothing() -> None:
    for spline in (0.5, 0.0):
        warp = make_warp(numbers(spline=spline), (HEIGHT, WIDTH))
        assert np.array_equal(warp.image(picture(3)), picture(3))
        assert np.array_equal(warp.mask(mask(1, 2)), mask(1, 2))


@pytest.mark.parametrize(
    ("change", "jacobian"),
    [
        ({"scale": 1.0}, np.eye(2) / 1.1),
        ({"scale": 0.0}, np.eye(2) / 0.9),
        ({"rotation": 1.0}, [[0.9396926, -0.3420201], [0.3420201, 0.9396926]]),
        ({"shear": 1.0}, [[1, 0], [-0.1763270, 1]]),
    ],
)
def test_warps_reach_the_published_bounds_about_the_middle(change: dict[str, float], jacobian: np.ndarray) -> None:
    source = make_warp(numbers(**change), (HEIGHT, WIDTH)).source
    down, right = (source[:, 1, 0] - source[:, 0, 0]) / HEIGHT, (source[:, 0, 1] - source[:, 0, 0]) / WIDTH
    np.testing.assert_allclose(np.stack([down, right], -1), jacobian, atol=1e-6)
    np.testing.assert_allclose(source.mean((1, 2)), [HEIGHT / 2, WIDTH / 2], atol=1e-9)


def test_a_turned_mask_lies_where_geometry_says() -> None:
    """A point at the right of the middle: by 20 degrees it goes up or down by a third of its distance."""
    dot = np.zeros((101, 101), np.uint8)
    dot[48:53, 88:93] = 1
    turned = make_warp(numbers(rotation=1.0), (101, 101)).mask(dot)
    row, column = np.argwhere(turned).mean(0) - 50
    np.testing.assert_allclose([row, column], [40 * np.sin(np.radians(20)), 40 * np.cos(np.radians(20))], atol=0.3)


def test_a_spline_bends_by_so_much_at_its_points_and_in_a_third_of_the_frames() -> None:
    bent = numbers(spline=0.0)
    bent[4:6] = 1.0  # the upper left control point
    source = make_warp(bent, (HEIGHT, WIDTH)).source
    np.testing.assert_allclose(source[:, 0, 0], 0.04 * HEIGHT, atol=1e-6)
    np.testing.assert_allclose(source[:, -1, -1], [HEIGHT, WIDTH], atol=1e-6)
    bent[3] = 0.34
    assert np.array_equal(make_warp(bent, (HEIGHT, WIDTH)).source, make_warp(NEUTRAL, (HEIGHT, WIDTH)).source)
