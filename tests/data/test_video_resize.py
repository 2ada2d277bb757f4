"""Clips at the size that a model takes: aspect, padding, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.video_resize import PADDING, make_fit
from bench.errors import UserError


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.integers(5, 60), st.integers(1, 40) | st.none(), st.integers(1, 16))
def test_a_fit_resizes_the_shorter_side_pads_to_a_multiple_and_comes_back(
    height: int, width: int, size: int | None, multiple: int
) -> None:
    fit = make_fit((height, width), size, multiple)
    assert min(fit.height, fit.width) == (size or min(height, width))
    assert all(
        side % multiple == 0 and 0 <= side - inner < multiple
        for side, inner in zip(fit.padded, (fit.height, fit.width), strict=True)
    )
    masks = fit.masks(np.ones((2, height, width), np.uint8))
    rows, columns = fit.inside
    assert (masks[:, rows, columns] == 1).all()
    assert (masks == 255).sum() == 2 * (fit.padded[0] * fit.padded[1] - fit.height * fit.width), "padding is void"
    scores = fit.undo(np.stack([masks[0] == 1, masks[0] != 1]).astype(np.float32))
    assert scores.shape == (2, height, width)
    assert (scores[0] > 0.99).all(), "nothing of the padding comes back"


def test_frames_keep_their_aspect_and_lie_on_the_mean_colour() -> None:
    fit = make_fit((480, 854), 240, 16)
    assert (fit.height, fit.width, fit.padded) == (240, 427, (240, 432))
    frames = fit.frames(np.full((1, 480, 854, 3), 9, np.uint8))
    assert tuple(frames[0, 0, 0]) == PADDING
    assert (frames[:, fit.inside[0], fit.inside[1]] == 9).all()
    checker = np.indices((40, 40)).sum(0) % 2 * 255
    small = make_fit((40, 40), 10, 1).frames(np.repeat(checker.astype(np.uint8)[None, ..., None], 3, -1))
    assert abs(small.astype(int) - 128).max() < 40, "antialiased"
    with pytest.raises(ValueError, match=r"made for \(480, 854\), got \(480, 853\)"):
        fit.masks(np.zeros((1, 480, 853), np.uint8))
    with pytest.raises(UserError, match="must be >= 1, got 0 and 16"):
        make_fit((480, 854), 0)
