"""J and F against a slow direct form and against a second implementation, and what they say over time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from vos_benchmark.evaluator import Evaluator

from bench.metrics import video


def blobs(seed: int, frames: int, height: int, width: int) -> np.ndarray:
    """Smooth random masks [N, H, W], some of them empty or full."""
    generator = np.random.default_rng(seed)
    noise = gaussian_filter(generator.normal(size=(frames, height, width)), (0, 2, 2), mode="nearest")
    return noise > np.quantile(noise, generator.uniform(0.3, 1.0)) + generator.normal(0, 0.05, (frames, 1, 1))


def slow_f(predicted: np.ndarray, truth: np.ndarray, radius: int) -> float:
    """F of one frame, pixel by pixel."""

    def boundary(mask: np.ndarray) -> list[tuple[int, int]]:
        height, width = mask.shape
        found = []
        for y in range(height):
            for x in range(width):
                around = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
                if any(v < height and u < width and mask[v, u] != mask[y, x] for v, u in around):
                    found.append((y, x))
        return found

    ours, theirs = boundary(predicted), boundary(truth)
    if not ours or not theirs:
        return float(not ours and not theirs)

    def matched(some: list, others: list) -> float:
        near = [any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in some]
        return sum(near) / len(near)

    precision, recall = matched(ours, theirs), matched(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 14), width=st.integers(1, 14), radius=st.integers(0, 5))
def test_f_is_its_definition(seed: int, height: int, width: int, radius: int) -> None:
    predicted, truth = (np.random.default_rng([seed, which]).random((3, height, width)) > 0.7 for which in (0, 1))
    expected = [slow_f(*pair, radius) for pair in zip(predicted, truth, strict=True)]
    np.testing.assert_allclose(video.boundary_f(predicted, truth, radius), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (24, 40), (64, 64), (96, 96), (240, 427)])
def test_j_and_f_are_those_of_another_implementation(size: tuple[int, int]) -> None:
    truth, predicted = blobs(1, 9, *size), blobs(2, 9, *size)
    predicted[3:6] = np.roll(truth[3:6], (1, 2), axis=(1, 2))
    predicted[6], truth[7], predicted[8], truth[8] = False, False, False, False
    evaluator = Evaluator()
    evaluator.feed_frame(np.ones(size, np.uint8), np.ones(size, np.uint8))  # the object is known before it is missing
    for ours, theirs in zip(predicted, truth, strict=True):
        evaluator.feed_frame(ours.astype(np.uint8), theirs.astype(np.uint8))
    np.testing.assert_allclose(video.jaccard(predicted, truth), evaluator.object_iou[1][1:], atol=1e-12)
    np.testing.assert_allclose(video.boundary_f(predicted, truth), evaluator.boundary_f[1][1:], atol=1e-12)


def test_frames_in_chunks_score_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, truth = blobs(1, 7, 20, 24), blobs(2, 7, 20, 24)
    expected = video.boundary_f(predicted, truth)
    monkeypatch.setattr(video, "CHUNK_PIXELS", 3 * 20 * 24)
    np.testing.assert_array_equal(video.boundary_f(predicted, truth), expected)


def test_empty_masks() -> None:
    empty, full = np.zeros((1, 9, 9), bool), np.ones((1, 9, 9), bool)
    assert video.jaccard(empty, empty) == video.boundary_f(empty, empty) == 1
    some = empty.copy()
    some[0, 3:5, 3:5] = True
    for pair in ((empty, some), (some, empty)):
        assert video.jaccard(*pair) == video.boundary_f(*pair) == 0
    # A mask that fills the frame has no boundary, as one that is empty.
    assert video.boundary_f(full, empty) == 1
    assert video.jaccard(full, empty) == 0


@pytest.mark.parametrize(
    ("height", "width", "radius"), [(64, 64, 1), (96, 96, 2), (128, 128, 2), (480, 854, 8), (480, 480, 6)]
)
def test_the_tolerance_is_a_share_of_the_diagonal(height: int, width: int, radius: int) -> None:
    assert video.tolerance(height, width) == radius


def test_a_shift_costs_nothing_within_the_tolerance() -> None:
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 20:40, 20:44] = True
    scores = [float(video.boundary_f(np.roll(mask, shift, axis=2), mask)[0]) for shift in (0, 1, 2)]
    assert scores[:2] == [1, 1]
    assert 0.3 < scores[2] < 0.8


def test_void_pixels_are_in_no_mask() -> None:
    predicted, truth = blobs(1, 4, 16, 16), blobs(2, 4, 16, 16)
    void = np.zeros_like(truth)
    void[:, :, 8:] = True
    other = predicted.copy()
    other[:, :, 8:] ^= True
    for score in (video.jaccard, video.boundary_f):
        values = [score(video.without_void(side, void), video.without_void(truth, void)) for side in (predicted, other)]
        np.testing.assert_array_equal(*values)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 10, 78, 255, 256, 300, 1000])
def test_decay_compares_the_first_quarter_with_the_last(frames: int) -> None:
    values = np.random.default_rng(0).random(frames)
    places = np.round(np.linspace(1, frames, 5) + 1e-10).astype(np.int64) - 1
    expected = values[places[0] : places[1] + 1].mean() - values[places[3] : places[4] + 1].mean()
    assert video.decay(values) == pytest.approx(expected)


def test_decay_is_that_of_a_long_clip_beyond_255_frames() -> None:
    assert video.decay(np.linspace(1, 0, 401)) == pytest.approx(0.75)


def test_recall_counts_frames_above_one_half() -> None:
    assert video.recall(np.array([0.5, 0.51, 0.9, 0.0])) == 0.5


def test_wrong_shapes_are_named() -> None:
    for score in (video.jaccard, video.boundary_f):
        with pytest.raises(ValueError, match=r"masks must both be \[N, H, W\], got \[1, 2, 3\] and \[1, 3, 2\]"):
            score(np.zeros((1, 2, 3), bool), np.zeros((1, 3, 2), bool))
