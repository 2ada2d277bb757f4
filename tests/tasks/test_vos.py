"""The task: what samples hold, the loss, scores, attention, references, pictures, files, and options that are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from vos_benchmark.evaluator import Evaluator

from bench.data.video.clips import VOID, ClipInfo
from bench.errors import UserError
from bench.metrics import masked
from bench.tasks import vos_batches as batches
from bench.tasks import vos_evaluation as evaluation
from bench.tasks import vos_loss
from bench.tasks.vos import PRESETS, QUICK_CLIPS, VideoObjectSegmentation, VOSConfig
from models.vos_memory import VOSMemory, VOSMemoryConfig
from tests.tasks.vos_data import COLOURS, SIZES, Copier, Nothing, Seer, Squares

CPU = torch.device("cpu")


def make(clips: dict | None = None, **options) -> VideoObjectSegmentation:
    """The task on squares of 32 px in clips of 8 frames."""
    ours = {"frames": 8, "shifted_clips": 0} if options.get("data", "embedded") == "embedded" else {}
    config = VOSConfig(**{"image_size": 32, "eval_batch": 3, **ours, **options})
    return VideoObjectSegmentation(config, Path("nowhere"), lambda split: Squares(split, **(clips or {})))


def batch_of(task: VideoObjectSegmentation, count: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    draws = np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)
    return task.collate(np.arange(count) % task.training_size(), draws)


# ------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"data": "ytvos"}, "task.data must be one of embedded, davis, davis-2016, youtube-vos, images, got 'ytvos'"),
        (
            {"data_path": "there"},
            "task.data_path is 'there', but task.data: embedded renders its own; set task.data to davis, davis-2016",
        ),
        ({"data": "davis", "data_path": ""}, "task.data_path is empty: give a folder, or null for none"),
        ({"image_size": 8}, "task.image_size must be a whole number of at least 16, got 8"),
        ({"clip_frames": 1}, "task.clip_frames must be a whole number of at least 2, got 1"),
        ({"clip_frames": 11}, "task.clip_frames must be at most task.frames, 10, got 11"),
        ({"max_gap": 0}, "task.max_gap must be a whole number of at least 1, got 0"),
        ({"objects": 1.5}, "task.objects must be a whole number of at least 1, got 1.5"),
        ({"data": "davis", "objects": 255}, "task.objects must be at most 254, as masks are bytes, got 255"),
        ({"frames": 3}, "task.frames must be a whole number from 4 to 1000, got 3"),
        ({"factors": ("fog",)}, "task.factors must be different names of plain, distractors, occlusion, drift, static"),
        ({"train_clips": None}, "task.train_clips must be a whole number: task.data: embedded has no end"),
        (
            {"data": "davis", "test_clips": 0},
            "task.test_clips must be a whole number of at least 1, or null for all, got 0",
        ),
        ({"data": "davis", "image_size": 40}, "task.patch_multiple must divide task.image_size, 40, got 16"),
        ({"shifted_clips": -1}, "task.shifted_clips must be a whole number, got -1"),
        ({"eval_batch": True}, "task.eval_batch must be a whole number of at least 1, got True"),
        ({"ce_start": -0.1}, "task.ce_start must be a number from 0 to 1, got -0.1"),
        ({"ce_start": 0.5}, "task.ce_end must not lie before task.ce_start, 0.5, got 0.4"),
        ({"ce_fraction": 0}, "task.ce_fraction must be above 0"),
        (
            {"data": "davis", "frames": 12},
            "task.frames is an option of embedded alone, but task.data is davis; leave it",
        ),
        (
            {"eval_size": 240},
            "task.eval_size is an option of davis, davis-2016, youtube-vos, images alone, but task.data",
        ),
        ({"leave_out": ["bear"]}, "task.leave_out is an option of davis, davis-2016, youtube-vos, images alone, but"),
        ({"data": "davis", "all_frames": True}, "task.all_frames is an option of youtube-vos alone, but task.data is"),
    ],
)
def test_wrong_options_are_named(options: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        VOSConfig(**options)
    assert line in str(error.value)


def test_presets_work_and_real_data_must_be_given(tmp_path: Path) -> None:
    for config in PRESETS.values():
        batch = VideoObjectSegmentation(config, tmp_path).worst_case(2)
        assert batch["frames"].shape == (2, config.clip_frames, 3, config.image_size, config.image_size)
        assert config.shared_options() == {"image_size": config.image_size}
    with pytest.raises(UserError, match=r"task\.data_path is not set: give the folder of davis"):
        VideoObjectSegmentation(PRESETS["paper"], tmp_path).prepare()
    missing = dataclasses.replace(PRESETS["paper"], data_path=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere is no folder; it must hold davis"):
        VideoObjectSegmentation(missing, tmp_path).prepare()


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
@pytest.mark.parametrize("data", ["davis", "youtube-vos", "images"])
def test_every_preset_takes_files(preset: str, data: str) -> None:
    config = dataclasses.replace(PRESETS[preset], data=data, data_path="there")
    assert VOSConfig(**dataclasses.asdict(config)) == config  # as a record writes it out


def test_options_of_embedded_clips_reach_them() -> None:
    spec = VOSConfig(image_size=32, frames=12, objects=1, distractors=4, occlusion_frames=5, drift_rate=0.5).video_spec
    assert (spec.image_size, spec.frames, spec.objects) == (32, 12, 1)
    assert (spec.distractors, spec.occlusion_frames, spec.drift_rate) == (4, 5, 0.5)


def test_embedded_clips_from_rendering_to_scores(tmp_path: Path) -> None:
    config = VOSConfig(image_size=32, frames=8, train_clips=3, validation_clips=1, test_clips=6, shifted_clips=2)
    task = VideoObjectSegmentation(config, tmp_path)
    task.prepare()
    assert task.training_size() == 3
    assert batch_of(task, 3)["frames"].shape == (3, 4, 3, 32, 32)
    rows = {row["name"]: row for row in task.references()}
    assert rows["previous-truth"]["metrics"]["j"] > rows["copy-first"]["metrics"]["j"]
    records = rows["copy-first"]["records"]
    assert len(records) == 12 + 4
    assert {key for record in records for key in record} == {
        metric.name for metric in task.metrics if not metric.name.startswith("usage")
    } | {"sample"}
    assert any("procedural" in line for line in task.notices)
    assert set(task.fingerprints()) == set(config.splits)


def test_preparing_opens_what_is_rendered_so_that_it_is_told(tmp_path: Path) -> None:
    config = VOSConfig(image_size=32, frames=8, train_clips=1, validation_clips=1, test_clips=1, shifted_clips=0)
    task = VideoObjectSegmentation(config, tmp_path)
    task.prepare()
    assert set(task.fingerprints()) == {"train", "validation", "test"}
    assert any("procedural" in line for line in task.notices)


def test_real_clips_from_files_to_scores_and_back(tmp_path: Path) -> None:
    from bench.data.davis import open_davis, write_davis

    for name in ("train", "val"):
        write_davis(Squares("validation", 40, 64, 6, void=True), tmp_path / name, name=name, quality=None)
    config = VOSConfig(data="davis", data_path=str(tmp_path / "val"), image_size=32, eval_size=20, patch_multiple=8)
    task = VideoObjectSegmentation(config, tmp_path)
    records = task.evaluate(Seer().eval(), CPU)
    assert len(records) == 8
    assert task.evaluation_batch == 1
    # Seen at half of their size, masks come back a little blurred in theirs; void does no harm.
    assert 85 < evaluation.means(records)["j"] < 100
    task.write_predictions(Seer().eval(), CPU, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4 * 6
    same = dataclasses.replace(config, eval_size=40, test_clips=2)
    records = VideoObjectSegmentation(same, tmp_path).evaluate(Seer().eval(), CPU)
    assert [record["j"] for record in records] == [100.0] * 4
    trained = VideoObjectSegmentation(dataclasses.replace(config, data_path=str(tmp_path / "train")), tmp_path)
    trained._splits["train"] = open_davis(tmp_path / "train", "train")
    assert batch_of(trained, 2)["frames"].shape == (2, 4, 3, 32, 32)


def test_objects_of_davis_2016_are_one(tmp_path: Path) -> None:
    from bench.data.davis import write_davis

    write_davis(Squares("validation", 32, 32, 5), tmp_path, year=2016, quality=None)
    config = VOSConfig(data="davis-2016", data_path=str(tmp_path), image_size=32, eval_size=32)
    (row, _) = VideoObjectSegmentation(config, tmp_path).references()
    assert [record["sample"].split("/")[-1] for record in row["records"]] == ["object-1"] * 4


def test_images_make_another_clip_for_every_draw(tmp_path: Path) -> None:
    for number in range(20):
        image, mask = (f(number, np.zeros(1, int))[0] for f in (Squares("train").frames, Squares("train").masks))
        for folder, pixels, ending in (("images", image, "jpg"), ("masks", mask, "png")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number:02d}.{ending}")
    config = VOSConfig(data="images", data_path=str(tmp_path), image_size=32, eval_size=32)
    task = VideoObjectSegmentation(config, tmp_path)
    task.prepare()
    assert task.training_size() < 20
    one, other = (task.collate(np.zeros(1, int), np.array([draw], np.uint64))["masks"] for draw in (1, 2))
    assert one.any()
    assert not torch.equal(one, other)
    assert {metric["sample"].split("/")[0] for metric in task.references()[0]["records"]} == {"test"}
    assert any("pseudo-videos" in line for line in task.notices)


def test_youtube_vos_is_looked_for_where_it_lies(tmp_path: Path) -> None:
    config = VOSConfig(data="youtube-vos", data_path=str(tmp_path), image_size=32)
    with pytest.raises(UserError, match="YouTube-VOS"):
        VideoObjectSegmentation(config, tmp_path).prepare()


def test_only_files_can_be_written_like() -> None:
    with pytest.raises(UserError, match="only davis, davis-2016 and youtube-vos have files"):
        make().write_predictions(Seer(), CPU, Path("out"))


# ------------------------------------------------------------------------------------------------------------- samples


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


# ---------------------------------------------------------------------------------------------------------------- loss


def slow_loss(logits: torch.Tensor, masks: torch.Tensor, start: torch.Tensor, share: float) -> float:
    """Sample by sample and frame by frame, as the definition reads."""
    total = 0.0
    for sample in range(len(logits)):
        for frame in range(1, logits.shape[1]):
            slots = [slot for slot, begun in enumerate(start[sample].tolist()) if 0 <= begun < frame]
            valid = masks[sample, frame] != VOID
            if not slots or not valid.any():
                continue
            chances = logits[sample, frame].softmax(0)[:, valid]
            truth = masks[sample, frame][valid]
            errors = -chances.gather(0, truth[None])[0].log()
            kept = errors.sort(descending=True).values[: int(np.ceil(share * len(errors)))]
            dice = []
            for slot in slots:
                p, g = chances[slot + 1], (truth == slot + 1).float()
                dice.append(1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1))
            total += float(kept.mean() + sum(dice) / len(dice)) / len(logits)
    return total


@pytest.mark.parametrize("share", [1.0, 0.5, 0.15])
def test_loss_is_its_definition(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, 4, 7, 9, generator=generator) * 3
    masks = torch.randint(0, 4, (5, 4, 7, 9), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = VOID
    start = torch.tensor([[0, 0, 0], [0, 2, -1], [-1, 1, 0], [3, 3, 3], [-1, -1, -1]])
    assert vos_loss.loss(logits, masks, start, share).item() == pytest.approx(
        slow_loss(logits, masks, start, share), rel=1e-4
    )


def test_the_given_frame_and_void_pixels_do_not_count() -> None:
    task = make({"void": True})
    batch = task.transfer(batch_of(task), CPU)
    logits = torch.randn(6, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    task.loss({"logits": logits}, batch).backward()
    touched = logits.grad.abs().sum(2) > 0
    void = batch["masks"] == VOID
    assert not touched[:, 0].any()
    assert not touched[void].any()
    assert touched[:, 1:][~void[:, 1:]].all()


def test_as_many_pixels_count_as_progress_says() -> None:
    asked = (None, 0.0, 0.1, 0.25, 0.4, 1.0)
    shares = [vos_loss.hardest_share(progress, 0.1, 0.4, 0.15) for progress in asked]
    assert shares == pytest.approx([1, 1, 1, 0.575, 0.15, 0.15])
    assert vos_loss.hardest_share(0.2, 0.2, 0.2, 0.3) == 0.3
    task = make()
    batch = task.transfer(batch_of(task), CPU)
    outputs = Copier()(**{name: batch[name] for name in task.input_fields})
    plain, warm, late = (task.loss(outputs, batch, progress=progress).item() for progress in (None, 0.05, 0.9))
    assert plain == warm < late


def test_a_right_answer_costs_less_than_a_wrong_one() -> None:
    task = make()
    batch = task.transfer(batch_of(task), CPU)
    right = F.one_hot(batch["masks"], 3).permute(0, 1, 4, 2, 3) * 20.0
    losses = [task.loss({"logits": logits}, batch, 1.0).item() for logits in (right, right * 0, -right)]
    assert losses[0] < 1e-3 < 1 < losses[1] < losses[2]


@pytest.mark.parametrize("name", make().edge_cases(2))
def test_degenerate_batches_have_a_finite_loss_and_gradient(name: str) -> None:
    task, model = make(), Nothing(0.3)
    batch = task.transfer(task.edge_cases(2)[name], CPU)
    loss = task.loss(model(**{field: batch[field] for field in task.input_fields}), batch, progress=0.9)
    loss.backward()
    assert loss.isfinite()
    assert model.value.grad.isfinite()


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


def test_wrong_outputs_are_named() -> None:
    task = make()
    batch = task.transfer(batch_of(task, 2), CPU)
    with pytest.raises(ValueError, match="forward must return the key 'logits', got masks"):
        task.loss({"masks": batch["masks"]}, batch)
    with pytest.raises(ValueError, match=r"logits must be \[B, F, 1 \+ O, H, W\] = \[2, 4, 3, 32, 32\], got \[2, 4, 2"):
        task.loss({"logits": torch.zeros(2, 4, 2, 32, 32)}, batch)


# --------------------------------------------------------------------------------------------------------------- score


class Whole(Copier):
    """Has no stream."""

    def __getattribute__(self, name: str):
        if name == "stream":
            raise AttributeError(name)
        return super().__getattribute__(name)

    def forward(self, frames: torch.Tensor, first_masks: torch.Tensor, start: torch.Tensor) -> dict[str, torch.Tensor]:
        return Copier()(frames, first_masks, start)


def test_who_sees_everything_scores_full_marks() -> None:
    for clips in ({}, {"void": True}, {"starts": (0, 3)}, {"step": 2}, {"hidden": ((1, 3), (1, 4))}):
        task = make(clips)
        records = task.evaluate(Seer().eval(), CPU)
        assert len(records) == 2 * SIZES["test"]
        means = evaluation.means(records)
        assert {means[name] for name in ("j", "f", "jf", "miou", "j_recall", "f_recall")} == {100.0}
        assert means["j_decay"] == means["f_decay"] == 0


def test_records_are_named_by_clip_and_object_and_hold_the_factor_of_the_clip() -> None:
    records = make().evaluate(Seer().eval(), CPU)
    assert [record["sample"] for record in records[:3]] == [
        "test/clip-000/object-1",
        "test/clip-000/object-2",
        "test/clip-001/object-1",
    ]
    for record, clip in zip(records, np.arange(14) // 2, strict=True):
        factor, other = ("plain", "occlusion")[:: 1 if clip % 2 == 0 else -1]
        assert record[f"j_{factor}"] == record["j"]
        assert f"j_{other}" not in record


def test_a_clip_in_folders_has_a_name_of_one_part() -> None:
    class Folders(Squares):
        def info(self, clip: int) -> ClipInfo:
            return dataclasses.replace(super().info(clip), name=f"birds/{clip // 2}/{clip}")

    task = VideoObjectSegmentation(make().config, Path("nowhere"), Folders)
    samples = [record["sample"] for record in task.evaluate(Copier().eval(), CPU)]
    assert samples[:2] == ["test/birds:0:0/object-1", "test/birds:0:0/object-2"]
    assert len({tuple(sample.split("/")[:2]) for sample in samples}) == SIZES["test"]


def test_clips_with_other_patterns_are_scored_apart() -> None:
    plain, both = (make(shifted_clips=count).evaluate(Copier().eval(), CPU) for count in (0, 2))
    assert both[:14] == plain
    assert [set(record) for record in both[14:]] == [{"sample", "j_shifted"}] * 4
    assert both[-1]["sample"] == "shifted/clip-001/object-2"
    for options in ({"quick": True}, {"split": "validation"}):
        records = make(shifted_clips=2).evaluate(Copier().eval(), CPU, **options)
        assert not any(record["sample"].startswith("shifted") for record in records)


def test_scores_do_not_depend_on_the_evaluation_batch_or_on_the_stream() -> None:
    expected = make(eval_batch=1).evaluate(Whole().eval(), CPU)
    assert make(eval_batch=5).evaluate(Whole().eval(), CPU) == expected
    streamed = make(eval_batch=5).evaluate(Copier().eval(), CPU)
    assert [{k: v for k, v in record.items() if not k.startswith("usage")} for record in streamed] == expected
    assert len({record["j"] for record in expected}) > 4


def test_the_cheap_evaluation_is_j_of_the_first_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < QUICK_CLIPS <= 30
    monkeypatch.setattr("bench.tasks.vos.QUICK_CLIPS", 4)
    full, quick = (make().evaluate(Copier().eval(), CPU, quick=quick) for quick in (False, True))
    assert quick == [{"sample": record["sample"], "j": record["j"]} for record in full[:8]]


def test_j_and_f_of_a_clip_are_those_of_another_implementation() -> None:
    """In clips whose objects are all there from the first frame to the last, as its object set needs."""
    task, videos = make(), Squares("test")
    records = {record["sample"]: record for record in task.evaluate(Copier().eval(), CPU)}
    every = np.arange(8)
    for clip in range(len(videos)):
        truth, evaluator = videos.masks(clip, every), Evaluator()
        for frame in every[1:-1]:
            evaluator.feed_frame(truth[0], truth[frame])
        j, f = evaluator.conclude()
        for number in (1, 2):
            record = records[f"test/clip-{clip:03d}/object-{number}"]
            assert record["j"] == pytest.approx(j[number])
            assert record["f"] == pytest.approx(f[number])
            assert record["jf"] == pytest.approx((j[number] + f[number]) / 2)


def test_the_given_and_the_last_frame_are_not_scored() -> None:
    info = ClipInfo("clip", 6, 8, 8, (0, 2, 4), np.ones(6, bool))
    truth = np.zeros((6, 8, 8), np.uint8)
    for number, start in enumerate(info.first_frames, 1):
        truth[start:, 2 * number, 1:6] = number
    labels = truth.copy()
    labels[0], labels[5] = 0, 0
    labels[2][truth[2] == 2] = 0
    scored = list(evaluation.score("test/clip", labels, truth, info, quick=False))
    assert [(record["sample"], record["j"]) for record in scored] == [
        ("test/clip/object-1", 100),
        ("test/clip/object-2", 100),
    ]
    labels[3] = 0
    one, two = evaluation.score("test/clip", labels, truth, info, quick=True)
    assert (one["j"], two["j"]) == (75.0, 50.0)


def test_counts_of_a_record_by_hand() -> None:
    info = ClipInfo("clip", 3, 2, 4, (0,), np.ones(3, bool))
    truth = np.zeros((3, 2, 4), np.uint8)
    truth[:, 0] = [1, 1, 0, VOID]
    labels = np.zeros((3, 2, 4), np.uint8)
    labels[:, 0] = [0, 1, 1, 1]
    (record,) = evaluation.score("test/clip", labels, truth, info, quick=False)
    assert record["miou"] == {"foreground": [1, 3], "background": [4, 6]}
    assert record["j"] == pytest.approx(100 / 3)


def test_attention_is_told_in_shares_of_where_it_goes() -> None:
    task = make()
    for record in task.evaluate(Copier().eval(), CPU):
        shares = {part: record[f"usage_{part}"] for part in ("query", "first", "last", "other")}
        # Frames 1 .. 6: of 10 tokens 5 go to frame 0, 2 to the frame before unless that is 0, 1 to frame 2 from frame 4 on.
        assert shares == pytest.approx({"query": 170 / 6, "first": 50, "last": 100 / 6, "other": 5}, abs=1e-4)
    for record in task.evaluate(Whole().eval(), CPU) + task.evaluate(Copier().eval(), CPU, quick=True):
        assert not any(key.startswith("usage") for key in record)


def test_an_object_that_starts_late_has_its_own_first_frame() -> None:
    records = make({"starts": (0, 3)}).evaluate(Copier().eval(), CPU)
    # Of object 2 frames 4 .. 6 are scored; memory of frames before its start is memory of its start.
    shares = [records[1][f"usage_{part}"] for part in ("query", "first", "last", "other")]
    # Frame 4 reads 0, 2 and 3: all of them are first; 5 and 6 read 0 and 2 as first and the frame before as last.
    assert shares == pytest.approx([20, (80 + 60 + 60) / 3, (0 + 20 + 20) / 3, 0], abs=1e-3)


def test_the_memory_architecture_is_followed_through_its_stream() -> None:
    task = make({"starts": (0, 2)}, eval_batch=4)
    config = VOSMemoryConfig(
        **task.config.shared_options(),
        strides=(4, 2, 1),
        widths=(8, 16, 16),
        layers=(1, 1, 2),
        heads=2,
        decoder_width=8,
    )
    model = VOSMemory(config).eval()
    batch = task.transfer(batch_of(task), CPU)
    assert task.loss(model(**{name: batch[name] for name in task.input_fields}), batch).isfinite()
    streamed = task.evaluate(model, CPU)

    class Forward(nn.Module):
        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            return model(**inputs)

    for ours, theirs in zip(streamed, task.evaluate(Forward().eval(), CPU), strict=True):
        assert ours["j"] == pytest.approx(theirs["j"], abs=0.5)
        shares = {key: value for key, value in ours.items() if key.startswith("usage")}
        assert len(shares) == 4
        assert all(value >= 0 for value in shares.values())
        assert sum(shares.values()) == pytest.approx(100, abs=1e-3)


def test_masks_are_given_to_the_stream_where_they_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    model, streams = Copier().eval(), []
    opened = Copier.stream
    monkeypatch.setattr(
        Copier, "stream", lambda self, **options: streams.append(opened(self, **options)) or streams[-1]
    )
    make({"starts": (0, 3)}, eval_batch=7).evaluate(model, CPU)
    assert [number for number, told in streams[0].calls if told] == [0, 3]
    assert len(streams[0].calls) == 8


def test_probabilities_come_back_to_the_size_of_the_files_with_their_corners_on_its_corners() -> None:
    """Four times as large: four pixels for each. Were the outermost pixels' centres held together, borders would shift by one."""
    config = VOSConfig(data="davis", image_size=32, eval_size=16, patch_multiple=1)
    clips = evaluation.read_clips(config, Squares("test", 64, 128, 2), [0])
    small = torch.zeros(16, 32, dtype=torch.int64)
    small[:, 5:], small[3:6, 28:] = 1, 2

    class Known(nn.Module):
        def forward(self, frames: torch.Tensor, first_masks: torch.Tensor, start: torch.Tensor) -> dict:
            return {"logits": 9 * F.one_hot(small, 3).permute(2, 0, 1).float().expand(1, 2, -1, -1, -1)}

    labels = evaluation.follow(Known().eval(), clips, CPU).labels[0, 1]
    expected = np.kron(small.numpy(), np.ones((4, 4)))
    rounded = np.zeros((64, 128), bool)  # bilinear resizing rounds the corners of the part within
    rounded[10:14, 110:114] = rounded[22:26, 110:114] = True
    np.testing.assert_array_equal(labels[~rounded], expected[~rounded])


def test_a_broken_model_is_named() -> None:
    class Broken(Seer):
        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = super().forward(**inputs)["logits"]
            logits[1, 3, 0, 4, 4] = torch.nan
            return {"logits": logits}

    with pytest.raises(FloatingPointError, match="clip-001: the logits are not finite"):
        make().evaluate(Broken().eval(), CPU)

    class Small(nn.Module):
        def forward(self, frames: torch.Tensor, first_masks: torch.Tensor, start: torch.Tensor) -> dict:
            return {"logits": torch.zeros(len(frames), 8, 3, 16, 16)}

    with pytest.raises(ValueError, match=r"must be \[B, 1 \+ O, H, W\] = \[3, 3, 32, 32\], got \[3, 3, 16, 16\]"):
        make().evaluate(Small().eval(), CPU)


def test_metrics_name_what_decides() -> None:
    task = make(factors=("plain", "drift"))
    names = [metric.name for metric in task.metrics]
    assert names[0] == task.gate.metric == "j"
    assert task.gate.reference in {row["name"] for row in task.references()}
    assert "boundaries match within ceil(0.008 diagonal) pixels, 1 px at 32 x 32" in task.metrics[1].note
    assert [name for name in names if name.startswith("j_")] == ["j_recall", "j_decay", "j_plain", "j_drift"]
    assert next(metric for metric in task.metrics if metric.name == "miou").aggregate == "pooled"
    assert all(m.higher_is_better is None for m in task.metrics if m.name.startswith("usage"))
    assert "j_plain" not in [metric.name for metric in make(data="davis").metrics]


def test_inference_is_timed_on_whole_clips() -> None:
    task = make()
    host, units, name = task.inference_case(3)
    assert (host["frames"].shape[:2], units, name) == ((3, 8), 8, "frames")
    moved = task.transfer(host, CPU)
    inputs = {field: moved[field] for field in task.input_fields}
    model = Copier()
    task.inference_call(model, inputs)()
    assert task.inference_call(Seer(), inputs)()["logits"].shape == (3, 8, 3, 32, 32)


def test_inference_on_files_is_timed_at_the_size_of_evaluation() -> None:
    task = make(data="davis", eval_size=60, patch_multiple=16)
    host, units, _ = task.inference_case(2)
    clips = evaluation.read_clips(task.config, Squares("test", 480, 854, 2), [0])
    assert host["frames"].shape == (2, units, 3, 64, 112)
    assert clips.frames.shape[-2:] == (64, 112)
    assert (host["masks"][:, 0].flatten(1).max(1).values > 0).all()


def test_pictures_show_truth_and_models_at_a_few_times() -> None:
    task = make()
    alone = task.pictures({}, CPU)
    grid = task.pictures({"sees": Seer().eval(), "copies": Copier().eval()}, CPU)
    assert grid.dtype == np.uint8
    assert grid.shape[0] == alone.shape[0]
    assert grid.shape[1] > alone.shape[1]
    tile, gap = 128, 4
    columns = [grid[:, place * (tile + gap) : place * (tile + gap) + tile] for place in range(4)]
    frame, truth, sees, copies = (column[20:].astype(int) for column in columns)
    assert (frame != truth).any()
    np.testing.assert_array_equal(truth, sees)
    assert (truth != copies).any()
