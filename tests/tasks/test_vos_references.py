"""Predictors that learn nothing: what they copy, by hand and through the task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.data.video.clips import VOID, ClipInfo
from bench.tasks.vos import VideoObjectSegmentation, VOSConfig
from bench.tasks.vos_references import copy_first, previous_truth
from tests.tasks.vos_data import Squares

EVERY_SECOND = np.array([True, False, True, False, True])


def labels(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.uint8)[:, None]


def test_the_first_mask_stays_and_later_ones_lie_over_it() -> None:
    info = ClipInfo("clip", 5, 1, 4, (0, 2), EVERY_SECOND)
    truth = labels([1, 1, 0, 0], [VOID, 2, 2, 0], [0, 0, 1, 2])
    expected = labels([1, 1, 0, 0], [1, 1, 0, 0], [1, 2, 2, 0], [1, 2, 2, 0], [1, 2, 2, 0])
    np.testing.assert_array_equal(copy_first(truth, info), expected)


def test_the_truth_of_the_annotated_frame_before() -> None:
    info = ClipInfo("clip", 5, 1, 4, (0, 2), EVERY_SECOND)
    truth = labels([1, 1, 0, 0], [VOID, 2, 2, 0], [0, 0, 1, 2])
    expected = labels([1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 2, 2, 0], [0, 2, 2, 0])
    np.testing.assert_array_equal(previous_truth(truth, info), expected)
    assert truth[1, 0, 0] == VOID


def test_both_are_scored_like_models() -> None:
    task = VideoObjectSegmentation(
        VOSConfig(image_size=32, frames=8, shifted_clips=0), Path("nowhere"), lambda split: Squares(split)
    )
    rows = {row["name"]: row for row in task.references()}
    assert list(rows) == ["copy-first", "previous-truth"]
    for row in rows.values():
        assert row["metrics"]["j"] == pytest.approx(np.mean([record["j"] for record in row["records"]]))
        assert row["metrics"]["jf"] == pytest.approx((row["metrics"]["j"] + row["metrics"]["f"]) / 2)
    # A square of 8 px that moves by 1 or 2 px: 7/9 and 6/10 of the union stay from frame to frame, except where it jumps back.
    found = {record["sample"]: record["j"] for record in rows["previous-truth"]["records"]}
    assert found["test/clip-000/object-1"] == pytest.approx(100 * 7 / 9)
    assert found["test/clip-000/object-2"] == pytest.approx(100 * 6 / 10)
    assert rows["copy-first"]["metrics"]["j"] < rows["previous-truth"]["metrics"]["j"]
    assert rows["copy-first"]["metrics"]["j_decay"] > 20 > abs(rows["previous-truth"]["metrics"]["j_decay"])
