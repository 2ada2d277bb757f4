"""Decoding, cutting square, threads: what comes out is what the published loader makes of the same file."""

from __future__ import annotations

import io
import os
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data.images import ImagePool, composite, decode, fit_square
from bench.errors import UserError
from tests.data.re10k_data import jpeg


def encoded(image: np.ndarray, format: str = "PNG", mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode or "RGB").save(buffer, format)
    return buffer.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- decode -------------------------------------------------------------------------------------------------------


def test_png_comes_back_exactly_from_bytes_and_from_a_file(tmp_path: Path) -> None:
    image = noise(5, 7, 3)
    (tmp_path / "image.png").write_bytes(encoded(image))
    assert np.array_equal(decode(encoded(image)), image)
    assert np.array_equal(decode(tmp_path / "image.png"), image)


@pytest.mark.parametrize(("mode", "channels"), [("L", 3), ("P", 3), ("1", 3), ("LA", 4), ("RGBA", 4)])
def test_every_mode_becomes_rgb_or_rgba(mode: str, channels: int) -> None:
    assert decode(encoded(noise(6, 4, 3), mode=mode)).shape == (6, 4, channels)


def test_a_jpeg_in_grey_or_cmyk_becomes_rgb() -> None:
    for mode in ("L", "CMYK"):
        assert decode(encoded(noise(8, 8, 3), "JPEG", mode)).shape == (8, 8, 3)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    whole = jpeg((36, 64), 0)
    for data in (whole[: len(whole) // 2], b"", b"no image", encoded(noise(9, 9, 3))[:-30]):
        with pytest.raises(UserError, match="frame 3 of clip x cannot be decoded"):
            decode(data, "frame 3 of clip x")
    with pytest.raises(UserError, match=r"absent\.png is missing"):
        decode(tmp_path / "absent.png")


@pytest.mark.parametrize(
    ("values", "format"), [(np.uint16, "PNG"), (np.uint16, "TIFF"), (np.int32, "TIFF"), (np.float32, "TIFF")]
)
def test_more_than_8_bits_are_refused(tmp_path: Path, values: type, format: str) -> None:
    """Converted, they would be clipped to plain white or black."""
    path = tmp_path / f"deep.{format.lower()}"
    Image.fromarray(np.arange(12).reshape(3, 4).astype(values) * values(5000)).save(path, format)
    with pytest.raises(UserError, match=rf"deep\.{format.lower()} has 16-bit, 32-bit or float pixels .* 8 bits"):
        decode(path)
    with pytest.raises(UserError, match="a frame has 16-bit"):
        decode(path.read_bytes(), "a frame")


# --- alpha --------------------------------------------------------------------------------------------------------


def test_composite_blends_by_alpha() -> None:
    image = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    assert composite(image, (255, 255, 255)).tolist() == [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]
    assert composite(image, (0, 10, 20)).tolist() == [[[200, 100, 0], [0, 10, 20], [40, 28, 16]]]


def test_composite_rounds_to_the_nearest_level_and_leaves_rgb_alone() -> None:
    image = noise(40, 40, 4)
    alpha = image[..., 3:] / 255
    exact = image[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(composite(image) - exact).max() <= 0.5
    assert composite(image[..., :3].copy()).tolist() == image[..., :3].tolist()


# --- square -------------------------------------------------------------------------------------------------------


def reference(image: np.ndarray, size: int) -> np.ndarray:
    """Resize everything, then crop."""
    height, width = image.shape[:2]
    short = min(height, width)
    new = [size if side == short else max(size, round(size / short * side / 8) * 8) for side in (height, width)]
    whole = Image.fromarray(image).resize((new[1], new[0]), Image.Resampling.LANCZOS)
    top, left = (new[0] - size) // 2, (new[1] - size) // 2
    return np.asarray(whole)[top : top + size, left : left + size]


def test_published_size_becomes_256_by_456_cropped_at_100() -> None:
    image = decode(jpeg((360, 640), 0))
    square, intrinsics = fit_square(image, np.array([320.0, 576.0 / 1.6, 320, 180]), 256)
    whole = Image.fromarray(image).resize((456, 256), Image.Resampling.LANCZOS)
    assert np.array_equal(square, np.asarray(whole)[:, 100:356])
    assert intrinsics.tolist() == pytest.approx([320 * 456 / 640, 360 * 256 / 360, 128, 128], rel=1e-7)


@given(st.integers(8, 150), st.integers(8, 300), st.integers(8, 128))
def test_the_square_is_bit_for_bit_that_of_the_whole_image(height: int, width: int, size: int) -> None:
    image = noise(height, width, 3)
    square, _ = fit_square(image, np.ones(4), size)
    assert square.shape == (size, size, 3)
    assert np.array_equal(square, reference(image, size))


@pytest.mark.parametrize("shape", [(90, 160), (160, 90), (64, 64), (50, 301)])
def test_intrinsics_follow_the_pixels(shape: tuple[int, int]) -> None:
    """A bright disc stays where its ray is projected to."""
    height, width = shape
    focal, centre = np.array([70.0, 75.0]), np.array([width / 2 + 3, height / 2 - 2])
    ray = np.array([0.1, -0.12])
    x, y = focal * ray + centre
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    disc = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 20)
    square, (fx, fy, cx, cy) = fit_square(np.repeat(disc[..., None], 3, 2).astype(np.uint8), [*focal, *centre], 48)
    weight = square[..., 0] / square[..., 0].sum(dtype=float)
    grid = np.arange(48) + 0.5
    assert (weight.sum(0) * grid).sum() == pytest.approx(fx * ray[0] + cx, abs=0.1)
    assert (weight.sum(1) * grid).sum() == pytest.approx(fy * ray[1] + cy, abs=0.1)


# --- threads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_whoever_is_first(workers: int) -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.01 * (item < 3))
        return item * item

    assert ImagePool(workers).map(slow_at_first, range(20)) == [item * item for item in range(20)]


def test_several_threads_are_at_work() -> None:
    meeting = threading.Barrier(2, timeout=60)
    ImagePool(2).map(lambda _: meeting.wait(), range(2))  # one alone would wait in vain


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_is_raised_and_the_pool_works_on(workers: int) -> None:
    def fail(item: int) -> int:
        if item in (3, 5):
            raise UserError(f"image {item}")
        return item

    pool = ImagePool(workers)
    with pytest.raises(UserError, match="image 3"):
        pool.map(fail, range(50))
    assert pool.map(fail, [1, 2]) == [1, 2]


def test_the_pool_travels_to_other_processes() -> None:
    pool = ImagePool(2)
    assert pool.map(abs, [-1, -2]) == [1, 2]
    assert pickle.loads(pickle.dumps(pool)).map(abs, [-3, -4]) == [3, 4]
    child = os.fork()
    if child == 0:  # threads do not survive a fork
        os._exit(0 if pool.map(abs, [-5, -6]) == [5, 6] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_no_workers_are_refused() -> None:
    with pytest.raises(UserError, match="workers must be >= 1, got 0"):
        ImagePool(0)
