"""The task: options that are refused, training samples, loss, the online loop, records, references, inference, pictures."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.aggregates import summarise
from bench.data.video.clips import Boxes, ClipInfo
from bench.errors import UserError
from bench.metrics import tracking as metrics
from bench.tasks import tracking_batches as batches
from bench.tasks.tracking import LONGEST_CYCLE, PRESETS, QUICK_CLIPS, Tracking, TrackingConfig
from bench.tasks.tracking_loop import LEAST_BOX, Predictor, follow, held
from bench.tasks.tracking_references import copy_first, previous_truth
from bench.tasks.vos_config import PRESETS as VOS_PRESETS
from tests.tasks.tracking_data import Answer, FindRed, FindRedCached, MovingSquares, crop_of, draws_of, make

CPU = torch.device("cpu")


def scores(task: Tracking, model: torch.nn.Module, **how) -> dict[str, float]:
    with torch.inference_mode():
        return summarise(task.metrics, task.evaluate(model, CPU, **how))


# ---------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"data": "otb"}, "task.data must be one of embedded, got10k, lasot, got 'otb'"),
        (
            {"data_path": "there"},
            "task.data_path is 'there', but task.data: embedded renders its own; set task.data to got10k or lasot",
        ),
        ({"data": "lasot", "data_path": ""}, "task.data_path is empty: give a folder, or null for none"),
        (
            {"data": "lasot", "frames": 12},
            "task.frames is an option of embedded alone, but task.data is lasot; leave it out",
        ),
        ({"data": "got10k", "test_clips": 0}, "task.test_clips must be a whole number of at least 1, or null for all"),
        ({"test_clips": None}, "task.test_clips must be a whole number: task.data: embedded has no end"),
        ({"image_size": 8}, "task.image_size must be a whole number from 32 to 1024, got 8"),
        ({"search_size": 96.0}, "task.search_size must be a whole number of at least 16, got 96.0"),
        ({"template_size": 8}, "task.template_size must be a whole number of at least 16, got 8"),
        ({"update_interval": -1}, "task.update_interval must be a whole number of at least 0, got -1"),
        ({"max_gap": True}, "task.max_gap must be a whole number of at least 1, got True"),
        ({"eval_batch": 0}, "task.eval_batch must be a whole number of at least 1, got 0"),
        ({"search_factor": 0.5}, "task.search_factor must be a number from 1 to 16, got 0.5"),
        ({"search_factor": None}, "task.search_factor must be a number from 1 to 16, got None"),
        ({"scale_jitter": math.nan}, "task.scale_jitter must be a number from 0 to 16, got nan"),
        ({"centre_jitter": 3.5}, "task.centre_jitter must be at most task.search_factor, 3, got 3.5"),
        ({"iou_loss": "diou"}, "task.iou_loss must be one of ciou, giou, got 'diou'"),
        (
            {"leave_out": ["a"]},
            "task.leave_out is an option of got10k, lasot alone, but task.data is embedded; leave it",
        ),
        ({"data": "got10k", "first_pixel": 0}, "task.first_pixel is an option of lasot alone, but task.data is got10k"),
        ({"data": "lasot", "first_pixel": 2}, "task.first_pixel must be 0 or 1, got 2"),
        ({"exclude_absent": 1}, "task.exclude_absent must be true or false, got 1"),
    ],
)
def test_wrong_options_are_named(options: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        TrackingConfig(**options)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_presets_make_batches_of_their_sizes_and_share_the_clips_of_vos(tmp_path: Path) -> None:
    for name, config in PRESETS.items():
        batch = Tracking(config, tmp_path).worst_case(2)
        assert batch["search"].shape == (2, 3, config.search_size, config.search_size)
        assert batch["template"].shape == batch["online_template"].shape == (2, 3, *[config.template_size] * 2)
        assert config.shared_options() == {"search_size": config.search_size, "template_size": config.template_size}
        if name != "paper":
            for split in ("train", "validation", "test"):
                assert config.video_spec.describe(split) == VOS_PRESETS[name].video_spec.describe(split)
    with pytest.raises(UserError, match=r"task\.data_path is not set: give the folder of got10k"):
        Tracking(PRESETS["paper"], tmp_path).prepare()


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
@pytest.mark.parametrize("data", ["got10k", "lasot"])
def test_every_preset_takes_files(preset: str, data: str) -> None:
    config = dataclasses.replace(PRESETS[preset], data=data, data_path="there")
    assert TrackingConfig(**dataclasses.asdict(config)) == config  # as a record writes it out


# ------------------------------------------------------------------------------------------------------------- loss


def test_loss_by_hand_in_both_forms() -> None:
    batch = {"boxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]])}
    outputs = {"boxes_cxcywh": torch.tensor([[0.5, 0.5, 1.0, 1.0]])}
    # IoU 1/4; the same middle and shape, so that CIoU is IoU; GIoU too, as the one encloses the other. Corners are off by 1/4.
    for iou_loss in ("ciou", "giou"):
        assert float(make(iou_loss=iou_loss).loss(outputs, batch)) == pytest.approx(2 * 0.75 + 5 * 0.25)
    outputs = {"boxes_cxcywh": torch.tensor([[0.75, 0.5, 0.5, 0.5]])}
    iou = 1 / 3
    assert float(make(iou_loss="giou").loss(outputs, batch)) == pytest.approx(2 * (1 - iou) + 5 * 0.125)
    distance = 0.25**2 / (0.75**2 + 0.5**2)
    assert float(make(iou_loss="ciou").loss(outputs, batch)) == pytest.approx(2 * (1 - iou + distance) + 5 * 0.125)


@pytest.mark.parametrize("iou_loss", ["ciou", "giou"])
def test_loss_is_finite_with_its_gradient_for_degenerate_boxes_and_right_ones_cost_nothing(iou_loss: str) -> None:
    task = make(iou_loss=iou_loss)
    cases = {**task.edge_cases(3), "synthetic": task.synthetic(3, seed=4)}
    predictions = [(0.5, 0.5, 0.0, 0.0), (0.6, 0.4, -0.3, -0.1), (0.5, 0.5, -0.2, 0.2), (90.0, -90.0, 0.1, 1e5)]
    for case in cases.values():
        batch = task.transfer(case, CPU)
        for prediction in [*predictions, tuple(batch["boxes"][0].tolist())]:
            box = torch.tensor([prediction] * 3, requires_grad=True)
            loss = task.loss({"boxes_cxcywh": box}, batch)
            loss.backward()
            assert loss.isfinite()
            assert box.grad is not None
            assert box.grad.isfinite().all()
    perfect = task.transfer(task.synthetic(3, seed=4), CPU)["boxes"]
    assert float(task.loss({"boxes_cxcywh": perfect}, {"boxes": perfect})) == pytest.approx(0, abs=1e-5)


def test_outputs_that_do_not_fit_are_named() -> None:
    batch = {"boxes": torch.zeros(2, 4)}
    with pytest.raises(ValueError, match="must return the key 'boxes_cxcywh', got boxes"):
        make().loss({"boxes": torch.zeros(2, 4)}, batch)
    with pytest.raises(ValueError, match=r"boxes_cxcywh must be \[B, 4\] = \[2, 4\], got \[2, 1, 4\]"):
        make().loss({"boxes_cxcywh": torch.zeros(2, 1, 4)}, batch)


# --------------------------------------------------------------------------------------------------------- following


def test_a_model_that_sees_the_target_follows_it() -> None:
    found = scores(make(), FindRed())
    assert min(found["ao"], found["ao_plain"], found["ao_occlusion"]) > 90
    assert found["sr50"] == 100
    assert found["auc"] > 80


@pytest.mark.parametrize("late", [0, 2])
def test_neither_the_batch_nor_the_cache_of_templates_changes_a_record(late: int) -> None:
    with torch.inference_mode():
        reference = make(late=late, eval_batch=1).evaluate(FindRed(), CPU)
        for eval_batch in (2, 7):
            for model in (FindRed(), FindRedCached()):
                assert make(late=late, eval_batch=eval_batch).evaluate(model, CPU) == reference
    assert [record["sample"] for record in reference] == [f"test/clip-{clip:05d}" for clip in range(7)]


@pytest.mark.parametrize("late", [0, 2])
def test_nothing_but_the_first_true_box_is_used(late: int) -> None:
    class Lying(MovingSquares):
        def frames(self, clip: int, which: np.ndarray) -> np.ndarray:
            return MovingSquares(self.split, late=self.late).frames(clip, which)

        def boxes(self, clip: int) -> Boxes:
            true, given = super().boxes(clip), self.info(clip).first_frames[0]
            others = np.arange(len(true.xywh)) != given
            xywh = np.where(others[:, None], np.float32([3, 50, 40, 2]), true.xywh)
            return Boxes(xywh, np.where(others, np.float32(0.9), true.visible), ~true.present | ~others)

    task, clips = make(late=late, update_interval=2), list(range(7))
    sources = (MovingSquares("test", late=late), Lying("test", late=late))
    assert not np.array_equal(sources[0].boxes(0).xywh, sources[1].boxes(0).xywh)
    honest, lying = (follow(task.config, Predictor(FindRed()), data, clips, CPU) for data in sources)
    for one, other in zip(honest, lying, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_target_that_is_given_late_is_followed_from_there() -> None:
    task, data = make(late=2), MovingSquares("test", late=2)
    boxes = follow(task.config, Predictor(FindRed()), data, [2], CPU)[0]
    assert len(boxes) == data.info(2).frames - 2
    assert boxes[0].tolist() == data.boxes(2).xywh[2].tolist()
    record = task.evaluate(FindRed(), CPU)[2]
    assert record["ao"]["frames"][1] == len(boxes) - 1


def test_the_template_stays_and_the_online_template_is_renewed_about_the_predicted_box() -> None:
    data = MovingSquares("test", lengths=1)
    for interval, sets in ((2, 3), (5, 1), (0, 1)):
        task, model = make(update_interval=interval), FindRedCached()
        boxes = follow(task.config, Predictor(model), data, [0], CPU)[0]
        assert len(model.templates) == sets  # of 6 frames; one that would serve no frame is not set
        first = model.templates[0][0]
        assert torch.equal(first, model.templates[0][1])
        assert all(torch.equal(template, first) for template, _ in model.templates)
        for number, (_, online) in enumerate(model.templates):
            time = number * interval
            crop = crop_of(boxes[time].tolist(), task.config.template_factor)
            cut = batches.cut(data.frames(0, np.array([time]))[0], crop, task.config.template_size)
            expected = task.transfer({"crop": cut[None]}, CPU)["crop"]
            assert torch.equal(online, expected)


def test_the_factor_of_evaluation_is_an_option() -> None:
    seen: list[float] = []

    class Width(FindRed):
        def forward(self, template, online_template, search):
            outputs = super().forward(template, online_template, search)
            seen.append(float(outputs["boxes_cxcywh"][0, 2]))
            return outputs

    for factor, expected in ((None, 1 / 3), (2.0, 1 / 2)):
        seen.clear()
        follow(make(evaluation_factor=factor).config, Predictor(Width()), MovingSquares("test"), [0], CPU)
        assert seen[0] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    "box", [(0.5, 0.5, 0.0, 0.0), (0.9, 0.9, -1.0, -1.0), (50.0, -50.0, 0.3, 0.3), (0.5, 0.5, 99.0, 99.0)]
)
def test_degenerate_predictions_stay_boxes_in_the_image(box: tuple[float, ...]) -> None:
    data = MovingSquares("test")
    least = math.sqrt(60 * 80) * LEAST_BOX
    for boxes in follow(make().config, Predictor(Answer(*box)), data, list(range(7)), CPU):
        assert (boxes[1:, 2:] >= least - 1e-9).all()
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= [80 + 1e-9, 60 + 1e-9]).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
def test_held_boxes_lie_in_the_image_and_good_ones_are_left_alone(box: list[float]) -> None:
    size = np.array([[60, 80]])
    kept = held(np.array([box]), size)
    x, y, w, h = kept[0]
    least = math.sqrt(60 * 80) * LEAST_BOX
    assert min(x, y) >= 0
    assert x + w <= 80 + 1e-9
    assert y + h <= 60 + 1e-9
    assert min(w, h) >= least - 1e-9
    assert held(kept, size) == pytest.approx(kept)


def test_a_box_that_is_not_finite_is_an_error_with_its_clip() -> None:
    with pytest.raises(FloatingPointError, match="clip-00000, frame 1: the predicted box is not finite"):
        make().evaluate(Answer(0.5, math.nan, 0.1, 0.1), CPU)


# ----------------------------------------------------------------------------------------------- records and references


def test_records_are_those_of_the_boxes_that_were_followed() -> None:
    task, data = make(), MovingSquares("test")
    records = task.evaluate(FindRed(), CPU)
    for clip, boxes in enumerate(follow(task.config, Predictor(FindRed()), data, list(range(7)), CPU)):
        truth = data.boxes(clip)
        overlaps = metrics.overlaps(boxes, truth.xywh.astype(np.float64))
        counted = [t for t in range(1, len(boxes)) if truth.visible[t] > 0]
        assert records[clip]["ao"]["frames"] == pytest.approx([overlaps[counted].sum(), len(counted)])
        factor = ("plain", "occlusion")[clip % 2]
        assert records[clip][f"ao_{factor}"] == records[clip]["ao"]
        assert set(records[clip]) == {
            *(
                "sample",
                "ao",
                "sr50",
                "sr75",
                "auc",
                "precision",
                "norm_precision",
                "norm_precision_auc",
                f"ao_{factor}",
            )
        }
    assert make().metrics[0].name == "ao"
    assert [metric.name for metric in make().metrics if metric.group] == ["ao_plain", "ao_occlusion"]
    assert not any(
        metric.group for metric in make(data="got10k", data_path="x", factors=TrackingConfig().factors).metrics
    )


def test_absent_frames_count_unless_excluded() -> None:
    counted, excluded = (scores(make(exclude_absent=flag), FindRed()) for flag in (False, True))
    assert excluded["precision"] == 100
    assert counted["precision"] < 95
    assert counted["ao"] == excluded["ao"]


def test_quick_follows_some_clips_evenly_over_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    assert QUICK_CLIPS >= 7
    assert len(make().evaluate(FindRed(), CPU, quick=True)) == 7
    monkeypatch.setattr("bench.tasks.tracking.QUICK_CLIPS", 3)
    whole = {record["sample"]: record for record in make().evaluate(FindRed(), CPU)}
    quick = make().evaluate(FindRed(), CPU, quick=True)
    assert [record["sample"] for record in quick] == ["test/clip-00000", "test/clip-00003", "test/clip-00006"]
    assert all(whole[record["sample"]] == record for record in quick)


def test_references_know_other_boxes_only() -> None:
    truth = np.array([[0.0, 0, 4, 4], [1, 0, 4, 4], [np.nan] * 4, [3, 0, 4, 4], [4, 0, 4, 4]])
    assert copy_first(truth)[:, 0].tolist() == [0, 0, 0, 0, 0]
    assert previous_truth(truth)[:, 0].tolist() == [0, 0, 1, 1, 3]
    found = {entry["name"]: entry for entry in make().references()}
    assert list(found) == ["copy-first", "previous-truth"]
    assert 100 > found["previous-truth"]["metrics"]["ao"] > found["copy-first"]["metrics"]["ao"] > 0
    assert [record["sample"] for record in found["copy-first"]["records"]] == [f"test/clip-{k:05d}" for k in range(7)]
    data = MovingSquares("test")
    boxes = np.repeat(data.boxes(0).xywh[:1], 6, axis=0).astype(np.float64)
    expected = metrics.overlaps(boxes, data.boxes(0).xywh.astype(np.float64))[1:].sum()
    assert found["copy-first"]["records"][0]["ao"]["frames"] == pytest.approx([expected, 5])
    assert len(make(late=2).references("test")) == 2


# ------------------------------------------------------------------------------------------------ inference, pictures


@pytest.mark.parametrize(("interval", "frames"), [(4, 4), (0, LONGEST_CYCLE), (200, LONGEST_CYCLE)])
def test_inference_is_timed_on_a_cycle_of_one_pair_of_templates(interval: int, frames: int) -> None:
    task = make(update_interval=interval)
    batch, units, unit = task.inference_case(2)
    assert (units, unit) == (frames, "frames")
    inputs = {name: value for name, value in task.transfer(batch, CPU).items() if name in task.input_fields}
    cached, plain = FindRedCached(), FindRed()
    for model in (cached, plain):
        call = task.inference_call(model, inputs)
        assert model.calls == 0
        call()
        assert model.calls == frames
    assert len(cached.templates) == 1


def test_pictures_show_the_truth_and_each_model() -> None:
    grid = make().pictures({"red": FindRed(), "still": Answer(0.5, 0.5, 0.3, 0.3)}, CPU)
    assert grid is not None
    assert grid.dtype == np.uint8
    assert grid.shape == (20 + 6 * (192 + 4) - 4, 3 * (192 + 4) - 4, 3)
    assert (grid == (255, 64, 32)).all(-1).any()


def test_what_was_opened_is_told() -> None:
    task = make()
    assert task.notices == ()
    task.prepare()
    assert task.notices == ("a square",)
    assert task.fingerprints() == dict.fromkeys(("train", "validation", "test"), "squares")


def test_a_clip_in_folders_has_a_name_of_one_part() -> None:
    class Folders(MovingSquares):
        def info(self, clip: int) -> ClipInfo:
            return dataclasses.replace(super().info(clip), name=f"birds/{clip}")

    task = Tracking(make().config, Path("nowhere"), Folders)
    assert [record["sample"] for record in task.evaluate(FindRed(), CPU)][:2] == ["test/birds:0", "test/birds:1"]


def test_embedded_clips_are_made_learned_from_and_scored(tmp_path: Path) -> None:
    config = TrackingConfig(image_size=48, train_clips=3, validation_clips=1, test_clips=2, factors=("plain", "drift"))
    task = Tracking(config, tmp_path)
    task.prepare()
    batch = task.transfer(task.collate(np.arange(3), draws_of(3)), CPU)
    assert batch["search"].isfinite().all()
    assert ((batch["boxes"][:, 2:] > 0.1) & (batch["boxes"][:, 2:] < 1)).all()
    records = task.evaluate(FindRed(), CPU)
    assert [set(record) & {"ao_plain", "ao_drift"} for record in records] == [{"ao_plain"}, {"ao_drift"}]
    assert any("procedural" in line for line in task.notices)
    assert len(list(tmp_path.glob("video-v*/*"))) == 3, "no more splits than are used"
