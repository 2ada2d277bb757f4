"""Training samples of the task ``tracking``: crops, frames, jitter, mirroring, and which clips they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data.video.clips import Boxes
from bench.errors import UserError
from bench.tasks import tracking_batches as batches
from bench.tasks.tracking import Tracking, TrackingConfig
from tests.tasks.tracking_data import FindRed, MovingSquares, crop_of, draws_of, make

CPU = torch.device("cpu")


def test_a_sample_is_a_function_of_its_clip_and_draw_alone() -> None:
    task = make()
    indices, draws = np.array([3, 3, 0, 11]), draws_of(4)
    whole = task.collate(indices, draws)
    for sample in range(4):
        alone = task.collate(indices[sample : sample + 1], draws[sample : sample + 1])
        assert all(torch.equal(alone[name][0], whole[name][sample]) for name in whole)
    assert not torch.equal(whole["search"][0], whole["search"][1])
    assert {name: value.dtype for name, value in whole.items()} == {
        "template": torch.uint8,
        "online_template": torch.uint8,
        "search": torch.uint8,
        "boxes": torch.float32,
    }


def test_boxes_of_samples_are_where_the_square_is_mirrored_or_not() -> None:
    task = make()
    batch = task.transfer(task.collate(np.arange(12), draws_of(12)), CPU)
    found = FindRed()(batch["template"], batch["online_template"], batch["search"])["boxes_cxcywh"]
    assert (found - batch["boxes"]).abs().max() < 0.03
    # Template crops are twice the target's side about its middle.
    for name in ("template", "online_template"):
        boxes = FindRed()(batch["search"], batch["search"], batch[name])["boxes_cxcywh"]
        assert (boxes - 0.5).abs().max() < 0.07
    # The centre moves by half of the jitter at most, in sides of the box that the crop follows.
    assert (
        batch["boxes"][:, :2] - 0.5
    ).abs().max() < 0.5 * task.config.centre_jitter / task.config.search_factor + 0.03
    assert batch["boxes"][:, :2].std() > 0.05
    assert batch["boxes"][:, 2].std() > 0.02


def test_one_sample_in_two_is_mirrored_with_all_its_crops() -> None:
    task = make(centre_jitter=0.0, scale_jitter=0.0, max_gap=1)
    samples = task.collate(np.zeros(200, np.int64), draws_of(200))
    # Crops of a search frame without jitter: there are only the frame's and its mirror image.
    for name in ("search", "template"):
        crops = {image.numpy().tobytes(): image for image in samples[name].contiguous()}
        assert len(crops) == 12
        assert all(image.flip(-1).contiguous().numpy().tobytes() in crops for image in crops.values())
    flipped = batches.stream(draws_of(200), batches.Salt.TRACKING_FLIP, 1)[:, 0] >> np.uint64(63) == 1
    assert 70 < flipped.sum() < 130


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3),
    st.integers(1, 30),
    st.sets(st.integers(0, 40), min_size=1),
)
def test_templates_are_other_usable_frames_within_the_gap_and_the_nearer_one_is_online(
    numbers: list[float], max_gap: int, usable: set[int]
) -> None:
    template, online, search = batches.choose_frames(sorted(usable), numbers, max_gap)
    assert {template, online, search} <= usable
    assert abs(online - search) <= abs(template - search) <= max_gap
    if search in (template, online):
        assert template == online == search
        assert not any(0 < abs(frame - search) <= max_gap for frame in usable)


def test_frames_that_are_kept_give_the_same_samples_as_those_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    @dataclass(frozen=True)
    class Counting(MovingSquares):
        def frames(self, clip: int, which: np.ndarray) -> np.ndarray:
            read.append(clip)
            return super().frames(clip, which)

    found = []
    for limit, reads in ((2**30, 0), (0, 24)):
        monkeypatch.setattr(batches, "HELD_BYTES", limit)
        task = Tracking(TrackingConfig(), Path("nowhere"), Counting)
        task.training_size()
        read.clear()
        found += [task.collate(np.tile(np.arange(12), 2), draws_of(24))]
        assert len(read) == reads
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_training_uses_frames_in_which_the_target_is_seen() -> None:
    task = make()
    data = task._training_clips()
    assert task.training_size() == 12
    assert data.usable[1] == [0, 1, 2, 4, 5]  # occluded in frame 3, gone in the last one


def test_clips_without_a_target_are_left_out_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Tiny(MovingSquares):
        rest: int = 0

        def boxes(self, clip: int) -> Boxes:
            truth = super().boxes(clip)
            truth.xywh[:, 2:] = 1 if clip >= self.rest else 9
            return truth

    assert Tracking(TrackingConfig(), tmp_path, lambda split: Tiny(split, rest=5)).training_size() == 5
    with pytest.raises(UserError, match="train: the target is never seen in any of 12 clips"):
        Tracking(TrackingConfig(), tmp_path, Tiny).training_size()


@given(st.integers(0, 2**63), st.floats(0, 4.5), st.floats(0, 0.5))
def test_jitter_keeps_to_its_bounds(draw: int, centre: float, scale: float) -> None:
    boxes = np.array([[10.0, 20, 30, 15], [-3, 40, 8, 8]])
    draws = np.array([draw, draw + 1], np.uint64)
    moved = batches.jittered(boxes, draws, centre, scale)
    assert (np.abs(np.log(moved[:, 2:] / boxes[:, 2:])) <= scale * batches.WIDEST_JITTER + 1e-9).all()
    offset = moved[:, :2] + moved[:, 2:] / 2 - boxes[:, :2] - boxes[:, 2:] / 2
    assert (np.abs(offset) <= centre / 2 * np.sqrt(moved[:, 2:].prod(1, keepdims=True)) + 1e-9).all()
    assert batches.jittered(boxes, draws, 0.0, 0.0) == pytest.approx(boxes)


def test_frames_and_jitter_are_spread_as_they_should_be() -> None:
    numbers = np.random.default_rng(0).random((4000, 3)).tolist()
    chosen = np.array([batches.choose_frames([2, 3, 5, 8, 9], own, 3) for own in numbers])
    assert [round(float(np.mean(chosen[:, 2] == frame)), 1) for frame in (2, 3, 5, 8, 9)] == [0.2] * 5
    seen = chosen[chosen[:, 2] == 5]
    shares = [float(np.mean(seen[:, :2] == frame)) for frame in (2, 3, 8)]
    assert np.abs(np.array(shares) - 1 / 3).max() < 0.05
    moved = batches.jittered(np.tile([0.0, 0, 1, 1], (4000, 1)), draws_of(4000), 1.0, 0.25)
    factor = np.log(moved[:, 2:]) / 0.25
    assert np.abs(factor.mean(0)).max() < 0.05
    assert np.abs(factor.std(0) - 0.94).max() < 0.05  # less than 1: it is cut off
    shift = (moved[:, :2] + moved[:, 2:] / 2 - 0.5) / np.sqrt(moved[:, 2:].prod(1, keepdims=True))
    assert np.abs(np.histogram(shift, 5, (-0.5, 0.5))[0] / shift.size - 0.2).max() < 0.02


def test_a_crop_is_square_of_the_published_side_and_black_outside() -> None:
    crop = crop_of([-4, 2, 8, 18], 2.0)
    assert crop.tolist() == [-12, -1, 24]  # ceil(sqrt(144) * 2) about (0, 11)
    frame = np.full((20, 30, 3), 200, np.uint8)
    cut = batches.cut(frame, crop, 24)
    assert (cut[:, :, :12] == 0).all()
    assert (cut[:, 0] == 0).all()
    assert (cut[:, 1:21, 12:] == 200).all()
    assert (cut[:, 21:] == 0).all()
    for nowhere in ([40, 5, 8], [-9, 5, 8], [5, 30, 8], [5, -8, 8]):
        assert (batches.cut(frame, np.array(nowhere), 16) == 0).all()
    assert (batches.cut(frame, np.array([25, 15, 10]), 10)[:, :5, :5] == 200).all()


def test_crops_are_resized_as_pillow_does_it() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    assert np.array_equal(batches.cut(frame, np.array([5, 7, 16]), 16).movedim(0, -1), frame[7:23, 5:21])
    for side, size in ((50, 32), (40, 96), (60, 17)):
        expected = Image.fromarray(frame[:side, :side]).resize((size, size), Image.Resampling.BILINEAR)
        found = batches.cut(frame, np.array([0, 0, side]), size).movedim(0, -1).numpy()
        assert np.abs(found.astype(int) - np.asarray(expected).astype(int)).max() <= 1


@given(st.lists(st.floats(-50, 100), min_size=2, max_size=2), st.lists(st.floats(0.5, 90), min_size=2, max_size=2))
def test_fractions_of_a_crop_and_back(corner: list[float], size: list[float]) -> None:
    boxes = np.array([corner + size])
    crops = batches.crops_around(boxes, 2.0)
    fractions = batches.to_fractions(boxes, crops)
    assert batches.to_pixels(fractions, crops) == pytest.approx(boxes)
    assert np.abs(fractions[:, :2] - 0.5).max() <= 1 / crops[0, 2]
    kept = batches.inside(fractions)
    assert (kept[:, :2] - kept[:, 2:] / 2 >= -1e-9).all()
    assert (kept[:, :2] + kept[:, 2:] / 2 <= 1 + 1e-9).all()
    centred = np.minimum(fractions[:, 2:], 0.9)
    whole = np.concatenate([np.full((1, 2), 0.5), centred], axis=1)
    assert batches.inside(whole) == pytest.approx(whole)
