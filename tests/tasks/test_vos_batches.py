"""What samples of the task ``vos`` hold: windows, crops, slots, fields, synthetic and degenerate batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.video.clips import VOID
from bench.metrics import masked
from bench.tasks import vos_batches as batches
from bench.tasks.vos import VideoObjectSegmentation, VOSConfig
from tests.tasks.vos_data import COLOURS, CPU, Nothing, Squares, batch_of, make


def test_a_sample_is_a_function_of_its_index_and_draw_alone() -> None:
    for task in (make(), make({"height": 40, "width": 56}, data="davis")):
        draws = np.array([3, 5, 7], np.uint64)
        together = task.collate(np.array([0, 4, 4]), draws)
        alone = task.collate(np.array([4]), draws[1:2])
        for name in together:
            assert torch.equal(together[name][1:2], alone[name])
        assert not torch.equal(together["frames"][1], together["frames"][2])


@settings(deadline=None, max_examples=60)
@given(draw=st.integers(0, 2**64 - 1), gap=st.integers(1, 4), length=st.integers(2, 20), step=st.integers(1, 3))
def test_windows_keep_gaps_and_annotated_frames(draw: int, gap: int, length: int, step: int) -> None:
    info = Squares(length=length, step=step).info(0)
    config = VOSConfig(image_size=32, clip_frames=4, max_gap=gap)
    which = batches.draw_window(config, info, np.uint64(draw)).which
    annotated = np.flatnonzero(info.annotated)
    assert np.isin(which, annotated).all()
    places = np.searchsorted(annotated, which)
    gaps = np.diff(places)
    if len(annotated) >= 4:
        assert (gaps > 0).all() or (gaps < 0).all()
        assert np.abs(gaps).max() <= gap
    else:
        assert set(places) == set(range(len(annotated)))


@pytest.mark.parametrize(
    ("data", "max_gap", "widest"), [("davis", 3, 3), ("youtube-vos", 3, 1), ("youtube-vos", 15, 3)]
)
def test_gaps_count_frames_where_every_fifth_has_a_mask(data: str, max_gap: int, widest: int) -> None:
    config, info = VOSConfig(data=data, image_size=32, clip_frames=2, max_gap=max_gap), Squares(length=40).info(0)
    windows = [batches.draw_window(config, info, np.uint64(draw)).which for draw in range(300)]
    assert {abs(int(first) - int(last)) for first, last in windows} == set(range(1, widest + 1))


def test_windows_vary_in_gap_place_order_and_mirroring() -> None:
    config, info = VOSConfig(image_size=32, clip_frames=3, max_gap=2), Squares(length=12).info(0)
    windows = [batches.draw_window(config, info, np.uint64(draw)) for draw in range(200)]
    assert {abs(int(gap)) for window in windows for gap in np.diff(window.which)} == {1, 2}
    assert {int(window.which.min()) for window in windows} >= set(range(9))
    assert 70 < sum(window.which[0] > window.which[-1] for window in windows) < 130
    assert 70 < sum(window.mirrored for window in windows) < 130
    assert 30 < sum(window.mirrored and window.which[0] > window.which[-1] for window in windows) < 70


def test_crops_of_real_clips_vary_and_stay_inside() -> None:
    config, info = VOSConfig(data="davis", image_size=32), Squares(height=48, width=96).info(0)
    boxes = [batches.draw_window(config, info, np.uint64(draw)).box for draw in range(200)]
    shares = [(right - left) * (bottom - top) / (48 * 96) for left, top, right, bottom in boxes]
    assert all(0 <= left < right <= 96 and 0 <= top < bottom <= 48 for left, top, right, bottom in boxes)
    assert 0.25 < min(shares) < 0.4
    assert max(shares) > 0.6
    assert batches.draw_window(VOSConfig(), info, np.uint64(0)).box is None


@pytest.mark.parametrize("task", [make(), make({"height": 48, "width": 64}, data="davis", image_size=48)])
def test_masks_lie_where_the_objects_are_seen(task: VideoObjectSegmentation) -> None:
    batch = batch_of(task, 12)
    frames, masks = batch["frames"].movedim(2, -1).float(), batch["masks"]
    seen = set()
    for sample in range(12):
        for slot in (1, 2):
            own = masks[sample] == slot
            if not own.any():
                continue
            # Bicubic resizing blends the border of a square: its median is plain.
            colour = frames[sample][own].median(0).values
            number = int((torch.from_numpy(COLOURS).float() - colour).abs().sum(1).argmin())
            assert (torch.from_numpy(COLOURS[number]).float() - colour).abs().max() < 3
            seen.add((slot, number))
    assert seen == {(1, 1), (1, 2), (2, 1), (2, 2)}  # which object takes which slot is drawn


def labels_of(*frames: list[list[int]]) -> np.ndarray:
    return np.array(frames, np.uint8)


def test_slots_by_hand() -> None:
    labels = labels_of([[0, 0, 3, 3]], [[1, 1, 3, VOID]], [[1, 1, 2, 2]])
    draws = [np.uint64(draw) for draw in range(20)]
    for draw in draws:
        masks, start = batches.to_slots(labels, 3, 2, draw)
        # Object 3 is there first; 1 or 2 takes what is left, and is background until it starts, the other one always is.
        assert start.tolist() in ([0, 1], [0, 2])
        late = [[2, 2, 1, VOID]] if start[1] == 1 else [[0, 0, 1, VOID]]
        end = [[2, 2, 0, 0]] if start[1] == 1 else [[0, 0, 2, 2]]
        assert masks.tolist() == [[[0, 0, 1, 1]], late, end]
    assert {batches.to_slots(labels, 3, 2, draw)[1].tolist()[1] for draw in draws} == {1, 2}
    masks, start = batches.to_slots(labels * 0, 3, 2, draws[0])
    assert start.tolist() == [-1, -1]
    assert not masks.any()


def test_an_object_starts_where_enough_of_it_is_seen() -> None:
    labels = np.zeros((3, 100, 100), np.uint8)
    labels[:, 0, :19] = 1  # of 10,000 pixels: one too few
    labels[2, 0, :20] = 1
    masks, start = batches.to_slots(labels, 1, 1, np.uint64(0))
    assert start.tolist() == [2]
    assert not masks[:2].any()


def test_windows_begin_where_an_object_is_seen() -> None:
    hidden = tuple((number, frame) for number in (1, 2) for frame in range(3))
    task = make({"hidden": hidden}, max_gap=1)
    start = batch_of(task, 60)["start"]
    assert (start.amin(1) == 0).all()
    nothing = make({"hidden": tuple((number, frame) for number in (1, 2) for frame in range(8))})
    batch = batch_of(nothing)
    assert (batch["start"] == -1).all()
    outputs = Nothing()(**{k: v for k, v in nothing.transfer(batch, CPU).items() if k in nothing.input_fields})
    assert nothing.loss(outputs, nothing.transfer(batch, CPU)).item() == 0


def test_every_attempt_at_a_window_draws_anew() -> None:
    config, info = VOSConfig(data="davis", image_size=32, max_gap=1), Squares("train", 48, 96, 40).info(0)
    windows = [batches.draw_window(config, info, np.uint64(5), attempt) for attempt in range(batches.TRIES)]
    assert len({window.box for window in windows}) == batches.TRIES
    assert len({int(window.which[0]) for window in windows}) > batches.TRIES / 2
    assert len({window.mirrored for window in windows}) == 1


def test_fields_on_the_device() -> None:
    task = make({"void": True, "starts": (0, 5)}, clip_frames=5)
    host = batch_of(task)
    batch = task.transfer(host, CPU)
    assert set(batch) == {*task.input_fields, *task.target_fields}
    assert [batch[name].dtype for name in ("frames", "first_masks", "start", "masks")] == [
        torch.float32, torch.float32, torch.int64, torch.int64,
    ]  # fmt: skip
    assert batch["masks"].unique().tolist() == [0, 1, 2, VOID]
    pixels = masked.denormalise(batch["frames"].flatten(0, 1)).unflatten(0, batch["frames"].shape[:2])
    torch.testing.assert_close(pixels * 255, host["frames"].float(), atol=1e-3, rtol=0)
    for sample, start in enumerate(batch["start"].tolist()):
        for slot, frame in enumerate(start):
            expected = (
                batch["masks"][sample, frame] == slot + 1 if frame >= 0 else torch.zeros(32, 32, dtype=torch.bool)
            )
            assert torch.equal(batch["first_masks"][sample, slot].bool(), expected)
            assert not (batch["masks"][sample, : max(frame, 0)] == slot + 1).any()
    assert (batch["start"] > 0).any()


def test_edge_cases_are_legal() -> None:
    task = make()
    for batch in task.edge_cases(2).values():
        moved = task.transfer(batch, CPU)
        empty = moved["start"] < 0
        assert not moved["first_masks"][empty].any()
        assert moved["first_masks"][~empty].flatten(1).any(1).all()


@pytest.mark.parametrize("objects", [1, 2])
def test_some_objects_of_synthetic_batches_start_late(objects: int) -> None:
    task = make(objects=objects)
    batch = task.transfer(task.synthetic(4, seed=0), CPU)
    assert batch["start"][:, -1].tolist() == [0, 2, 0, 2]
    assert (batch["start"][:, :-1] == 0).all()
    for sample, slot in np.ndindex(4, objects):
        own, start = batch["masks"][sample] == slot + 1, int(batch["start"][sample, slot])
        assert not own[:start].any()
        assert torch.equal(own[start], batch["first_masks"][sample, slot].bool())
    assert batch["first_masks"][:, -1].flatten(1).any(1).all()
