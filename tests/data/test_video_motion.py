"""The arithmetic of the clips: right, and the same wherever it runs."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.draws import mix
from bench.data.video.motion import Uniforms, bounce, cosine, sine
from bench.data.video.textures import TILE, Texture, lookup, mosaic, noise, palette, stripes

DRAWS = st.integers(0, 2**64 - 1).map(np.uint64)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20))
def test_waves_are_those_of_the_library(turns):
    t = np.array(turns)
    np.testing.assert_allclose(sine(t), np.sin(2 * np.pi * t), atol=1e-8)
    np.testing.assert_allclose(cosine(t), np.cos(2 * np.pi * t), atol=1e-8)
    np.testing.assert_allclose(sine(t) ** 2 + cosine(t) ** 2, 1, atol=1e-8)


@given(st.floats(-5, 5), st.floats(-0.3, 0.3), st.floats(0, 0.4), st.floats(0.5, 1))
def test_a_bounced_path_stays_inside_and_is_as_fast(start, speed, low, high):
    free = start + speed * np.arange(50)
    path = bounce(free, low, high)
    assert (path >= low - 1e-9).all()
    assert (path <= high + 1e-9).all()
    assert (np.abs(np.diff(path)) <= abs(speed) + 1e-9).all()
    inside = (free >= low) & (free <= high)
    np.testing.assert_allclose(path[inside], free[inside], atol=1e-9)


@given(DRAWS)
def test_uniforms_do_not_depend_on_how_they_are_asked_for(draw):
    one, many = Uniforms(draw, 7, 6), Uniforms(draw, 7, 10)
    values = many.array(2, 3)
    assert [one() for _ in range(6)] == values.ravel().tolist()
    assert ((values >= 0) & (values < 1)).all()
    with pytest.raises(IndexError, match="only 6 numbers"):
        one()
    assert Uniforms(draw, 7, 1)(2.0, 4.0) == 2 + 2 * values[0, 0]
    assert Uniforms(draw, 8, 1)() != values[0, 0]


@pytest.mark.parametrize("kind", [noise, stripes, mosaic])
def test_patterns_use_the_whole_range_and_repeat(kind):
    tiles = np.stack([kind(mixed, 5) for mixed in mix(np.arange(24, dtype=np.uint64))]).astype(np.int64)
    assert tiles.shape[1:] == (TILE, TILE)
    assert (tiles.min(axis=(1, 2)) == 0).all()
    assert (tiles.max(axis=(1, 2)) == 255).all()
    for axis in (1, 2):
        steps = np.abs(np.diff(tiles, axis=axis)).mean()
        seam = np.abs(np.take(tiles, 0, axis) - np.take(tiles, -1, axis)).mean()
        assert 0 < seam < 1.5 * steps


def test_shifted_textures_are_of_other_kinds():
    draws = [np.uint64(n << 60) for n in range(16)]
    for draw in draws:
        np.testing.assert_array_equal(Texture(draw, 4, False).tile, noise(draw, 4))
    shifted = [Texture(draw, 4, True).tile for draw in draws]
    kinds = {len(np.unique(tile)) <= 16 for tile in shifted}  # a mosaic has as many values as cells
    assert kinds == {True, False}


def test_palettes_keep_their_hue_and_span_dark_to_light():
    for number in range(20):
        colours = palette(np.uint64(number), number / 20, 0.9)
        hues, saturations, values = zip(*(colorsys.rgb_to_hsv(*colour) for colour in colours), strict=True)
        distance = (np.array(hues) - number / 20 + 0.5) % 1 - 0.5
        assert np.abs(distance).max() <= 0.07 + 1e-9
        assert all(0.72 - 1e-9 <= s <= 0.9 + 1e-9 for s in saturations)
        np.testing.assert_allclose(sorted(values), (0.25, 0.5, 0.75, 1.0))


def test_lookup_passes_through_the_palette():
    colours = palette(np.uint64(3), 0.4, 0.8)
    table = lookup(colours)
    np.testing.assert_array_equal(table[::85], np.floor(colours * 255 + 0.5).astype(np.uint8))
    between = (colours[0] + (colours[1] - colours[0]) * (17 / 85)) * 255
    np.testing.assert_allclose(table[17], between, atol=0.51)
    np.testing.assert_array_equal(lookup(np.stack([colours, colours / 2]))[0], table)
