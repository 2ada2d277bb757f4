"""Scores of tracking: by hand, against slow definitions, and what absent frames and the first one count for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.aggregates import summarise
from bench.metrics import tracking

HEIGHT, WIDTH = 60, 80
LASOT = tuple(metric.name for metric in tracking.lasot_metrics(exclude_absent=False))


def random_clip(seed: int, frames: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted boxes, true boxes of which some are NaN, and whether the target is to be seen."""
    generator = np.random.default_rng(seed)
    truth = np.concatenate([generator.uniform(0, 40, (frames, 2)), generator.uniform(5, 20, (frames, 2))], axis=1)
    predicted = truth + generator.normal(0, 3, (frames, 4)) * generator.integers(0, 2, (frames, 1))
    seen = generator.random(frames) > 0.2
    truth[(generator.random(frames) > 0.8) & (np.arange(frames) > 0)] = np.nan
    return predicted, truth, seen


def slow_iou(first: np.ndarray, second: np.ndarray) -> float:
    x = max(0.0, min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0]))
    y = max(0.0, min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1]))
    return min(1.0, x * y / (first[2] * first[3] + second[2] * second[3] - x * y))


def slow_clip(box: np.ndarray) -> np.ndarray:
    x1, y1 = min(max(box[0], 0), WIDTH), min(max(box[1], 0), HEIGHT)
    x2, y2 = min(max(box[0] + box[2], 0), WIDTH), min(max(box[1] + box[3], 0), HEIGHT)
    return np.array([x1, y1, x2 - x1, y2 - y1])


@pytest.mark.parametrize("exclude_absent", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_lasot_is_the_slow_definition(seed: int, exclude_absent: bool) -> None:
    predicted, truth, seen = random_clip(seed)
    frames = []
    for box, true, here in zip(predicted, truth, seen, strict=True):
        if here and np.isfinite(true).all():
            offset = [(box[k] + box[2 + k] / 2) - (true[k] + true[2 + k] / 2) for k in (0, 1)]
            relative = [offset[k] / true[2 + k] for k in (0, 1)]
            frames.append((slow_iou(box, true), np.hypot(*offset), np.hypot(*relative)))
        elif not exclude_absent:
            frames.append((-1.0, np.inf, np.inf))
    expected = {
        "auc": np.mean([np.mean([iou > step * 0.05 for iou, _, _ in frames]) for step in range(21)]),
        "precision": np.mean([error <= 20 for _, error, _ in frames]),
        "norm_precision": np.mean([error <= 0.2 for _, _, error in frames]),
        "norm_precision_auc": np.mean([np.mean([error <= step / 100 for _, _, error in frames]) for step in range(51)]),
    }
    found = tracking.lasot(predicted, truth, seen, exclude_absent=exclude_absent)
    assert tuple(found) == LASOT
    assert found == pytest.approx({name: 100 * value for name, value in expected.items()})


@pytest.mark.parametrize("seed", range(5))
def test_got10k_pools_frames_of_all_clips_without_the_first_and_the_absent(seed: int) -> None:
    clips = [random_clip(10 * seed + number, frames=10 + 10 * number) for number in range(3)]
    overlaps = []
    for predicted, truth, seen in clips:
        for frame in range(1, len(truth)):
            if seen[frame] and np.isfinite(truth[frame]).all():
                overlaps.append(slow_iou(slow_clip(predicted[frame]), slow_clip(truth[frame])))
    records = [tracking.got10k(*clip, HEIGHT, WIDTH) for clip in clips]
    found = summarise([tracking.AO, tracking.SR50, tracking.SR75], records)
    assert found["ao"] == pytest.approx(100 * np.mean(overlaps))
    assert found["sr50"] == pytest.approx(100 * np.mean(np.array(overlaps) > 0.5))
    assert found["sr75"] == pytest.approx(100 * np.mean(np.array(overlaps) > 0.75))


def test_a_perfect_tracker_scores_20_of_21() -> None:
    _, truth, _ = random_clip(0)
    truth = truth[np.isfinite(truth).all(1)]
    seen = np.ones(len(truth), bool)
    assert tracking.lasot(truth, truth, seen)["auc"] == pytest.approx(100 * 20 / 21)
    assert tracking.lasot(truth, truth, seen)["norm_precision_auc"] == 100
    record = tracking.got10k(truth, truth, seen, HEIGHT, WIDTH)
    assert summarise([tracking.AO, tracking.SR75], [record]) == pytest.approx({"ao": 100, "sr75": 100})


def test_success_is_strict() -> None:
    truth = np.array([[0.0, 0, 10, 10]] * 2)
    half = np.array([[0.0, 0, 10, 10], [0.0, 0, 10, 5]])
    record = tracking.got10k(half, truth, np.ones(2, bool), HEIGHT, WIDTH)
    assert record == {"ao": {"frames": [0.5, 1]}, "sr50": {"frames": [0.0, 1]}, "sr75": {"frames": [0.0, 1]}}
    # The first frame counts for LaSOT: 20 of 21 thresholds; in the other 0, .05 .. .45 lie below .5.
    assert tracking.lasot(half, truth, np.ones(2, bool))["auc"] == pytest.approx(100 * (20 + 10) / 42)


def test_absent_frames_are_failures_unless_excluded() -> None:
    truth = np.array([[0.0, 0, 10, 10]] * 3 + [[np.nan] * 4])
    seen = np.array([True, True, False, True])
    predicted = np.array([[0.0, 0, 10, 10]] * 4)
    counted = tracking.lasot(predicted, truth, seen)
    assert counted["auc"] == pytest.approx(50 * 20 / 21)
    assert counted["precision"] == 50
    assert tracking.lasot(predicted, truth, seen, exclude_absent=True)["auc"] == pytest.approx(100 * 20 / 21)
    assert tracking.got10k(predicted, truth, seen, HEIGHT, WIDTH)["ao"] == {"frames": [1.0, 1]}


def test_nothing_to_score_is_left_out() -> None:
    truth = np.array([[0.0, 0, 10, 10], [np.nan] * 4])
    nothing = np.zeros(2, bool)
    assert tracking.got10k(np.zeros((2, 4)), truth, ~nothing, HEIGHT, WIDTH) == {}
    assert tracking.lasot(np.zeros((2, 4)), truth, nothing, exclude_absent=True) == {}
    assert tracking.lasot(np.zeros((2, 4)), truth, nothing)["auc"] == 0
    assert summarise([tracking.AO, *tracking.lasot_metrics(exclude_absent=True)], [{"sample": "test/a"}]) == {}


def test_what_lies_outside_of_the_image_is_cut_off() -> None:
    boxes = np.array([[-5.0, 10, 10, 10], [70, 50, 20, 20], [90, 0, 10, 10], [0, -20, 10, 10]])
    cut = tracking.clip_to_image(boxes, HEIGHT, WIDTH)
    assert cut[:2].tolist() == [[0, 10, 5, 10], [70, 50, 10, 10]]
    assert (cut[2:, 2:].prod(1) == 0).all()
    # Half of the true box is outside; a prediction of the inside alone is perfect.
    truth = np.array([boxes[0], boxes[0]])
    record = tracking.got10k(np.array([boxes[0], [0, 10, 5, 10]]), truth, np.ones(2, bool), HEIGHT, WIDTH)
    assert record["ao"] == {"frames": [1.0, 1]}


@given(st.integers(0, 1000))
def test_overlaps_of_both_conventions(seed: int) -> None:
    predicted, truth, _ = random_clip(seed)
    plain, inclusive = (tracking.overlaps(predicted, truth, inclusive=flag) for flag in (False, True))
    absent = np.isnan(truth).any(1)
    assert np.array_equal(np.isnan(plain), absent)
    assert (plain[~absent] >= 0).all()
    assert (plain[~absent] <= 1).all()
    # One pixel more on each side of two boxes of proper size brings them closer.
    assert (inclusive[~absent] >= plain[~absent] - 1e-12).all()


def test_overlaps_need_boxes_of_one_shape() -> None:
    with pytest.raises(ValueError, match=r"must both be \[F, 4\], got \[3, 4\] and \[2, 4\]"):
        tracking.overlaps(np.zeros((3, 4)), np.zeros((2, 4)))


def test_conventions_are_named() -> None:
    notes = {metric.name: metric.note for metric in tracking.lasot_metrics(exclude_absent=False)}
    assert "20/21" in notes["auc"]
    assert "count as failures" in notes["auc"]
    assert "without the inclusive pixel" in notes["auc"]
    assert "pytracking" in notes["norm_precision"]
    assert "got10k toolkit" in notes["norm_precision_auc"]
    assert "are left out" in tracking.lasot_metrics(exclude_absent=True)[0].note
    assert tracking.by_factor(tracking.AO, "drift")._asdict() | {"note": ""} == {
        "name": "ao_drift",
        "label": "AO, drift (%)",
        "higher_is_better": True,
        "digits": 1,
        "note": "",
        "aggregate": "pooled",
        "of": "",
        "group": "by factor",
    }
