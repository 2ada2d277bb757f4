"""The embedded clips are neither at the floor nor at the ceiling, and memory pays on them."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data.video.render import make_clip
from bench.data.video.scene import sample_scene
from bench.data.video.spec import VideoSpec
from tests.data.video_calibration import clip_score, copy_first, descriptors, previous_truth, propagate, read

SPEC = VideoSpec()
SIZE = SPEC.image_size


@pytest.fixture(scope="module")
def by_factor() -> dict[str, list[tuple[float, float]]]:
    """J of copying the first mask and of the true previous mask of every test clip."""
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(SPEC.test_clips):
        masks = sample_scene(SPEC, "test", number)[1].visible.reshape(SPEC.frames, SIZE, SIZE)
        scores = (clip_score(copy_first(masks), masks, 2), clip_score(previous_truth(masks), masks, 2))
        found.setdefault(SPEC.clip_factors("test", number)[0], []).append(scores)
    return found


def test_copying_masks_scores_low(by_factor):
    hard = [np.mean(values, axis=0) for factor, values in by_factor.items() if factor != "static"]
    copied, previous = np.mean(hard, axis=0)
    assert 10 < copied < 20
    assert 40 < previous < 70


def score(factor: str, policy: str, numbers: range) -> float:
    spec = VideoSpec(factors=(factor,))
    clips = [make_clip(spec, "test", number) for number in numbers]
    return float(np.mean([clip_score(propagate(c.rgb, c.masks[0], 2, policy, None, 0.003), c.masks, 2) for c in clips]))


def test_memory_of_the_past_pays_after_an_occlusion():
    assert score("occlusion", "bank", range(2)) > score("occlusion", "last", range(2)) + 10


def test_memory_of_the_recent_pays_in_drift():
    assert score("drift", "bank", range(2)) > score("drift", "first", range(2)) + 10


def test_memory_does_not_help_in_the_control():
    scores = [score("static", policy, range(1)) for policy in ("first", "last", "bank")]
    assert max(scores) - min(scores) < 5


def test_score_leaves_out_the_first_and_last_frame_and_counts_objects_alike():
    truth = np.zeros((4, 2, 2), np.uint8)
    truth[:, 0] = 1
    predicted = np.full_like(truth, 9)
    predicted[1, 0, 0] = 1
    assert clip_score(predicted, truth, 1) == pytest.approx((50 + 0) / 2)
    assert clip_score(predicted, truth, 2) == pytest.approx((50 + 0 + 100 + 100) / 4)  # object 2: absent from both


def test_read_outs_keep_what_they_should():
    labels = np.eye(12, dtype=np.float32)
    logits = np.stack([np.arange(12), np.arange(12)[::-1]]).astype(np.float32)
    assert (read(logits, labels, None, 2) > 0).all()
    np.testing.assert_array_equal(np.flatnonzero(read(logits, labels, "all", 2)[0]), np.arange(7, 12))
    np.testing.assert_array_equal(np.flatnonzero(read(logits, labels, "each", 2)[0]), [*range(1, 6), *range(7, 12)])
    np.testing.assert_allclose(read(logits, labels, "each", 2).sum(axis=1), 1, rtol=1e-6)


def test_descriptors_are_the_colours_about_a_place():
    frame = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    looks = descriptors(frame).reshape(4, 4, 3, 3, 3)
    np.testing.assert_allclose(looks[1, 2, 0, 2], frame[0, 0:2, 6:8].mean(axis=(0, 1)) / 255, rtol=1e-6)
