"""The task ``vos`` as a whole: data from preparation to scores, references, metrics, inference, pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.aggregates import summarise
from bench.errors import UserError
from bench.tasks import vos_evaluation as evaluation
from bench.tasks.vos import PRESETS, VideoObjectSegmentation, VOSConfig
from tests.tasks.vos_data import CPU, Copier, Seer, Squares, batch_of, make


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
    assert 85 < summarise(task.metrics, records)["j"] < 100
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
