"""Data on disk: RealEstate10K, objects and transforms, from files to records, and weights that must be given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bench.errors import UserError
from bench.tasks.nvs import NovelViewSynthesis, NVSConfig
from bench.tasks.views import mask_inputs
from tests.planted import TinyNVS
from tests.tasks.nvs_data import CPU, DRAWS


@pytest.mark.parametrize("data", ["re10k", "objects", "transforms"])
def test_missing_data_says_both_ways_out(data: str, tmp_path: Path) -> None:
    task = NovelViewSynthesis(NVSConfig(data=data, perceptual="none"), tmp_path)
    assert task.worst_case(1), "plans and checks need no data"
    with pytest.raises(
        UserError, match=r"task\.data_path is not set: give the folder of .*, or set task\.data: scenes"
    ):
        task.prepare()
    task = NovelViewSynthesis(NVSConfig(data=data, data_path=str(tmp_path / "no"), perceptual="none"), tmp_path)
    with pytest.raises(UserError, match=r"task\.data_path: .*no is no folder; it must hold"):
        task.prepare()


def test_the_vgg_of_gs_lrm_must_be_given(tmp_path: Path) -> None:
    task = NovelViewSynthesis(NVSConfig(perceptual="none", perceptual_loss="gs-lrm"), tmp_path)
    with pytest.raises(UserError, match=r"task\.perceptual_loss_weights is not set"):
        task.prepare()


def test_gs_lrm_weighs_half_on_scenes_and_once_on_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PerceptualLoss:
        """Stands for the network, whose weights are not at hand: the mean absolute difference."""

        def __init__(self, weights: Path) -> None:
            assert weights == Path("~/vgg.mat").expanduser()

        def __call__(self, prediction, target):
            assert prediction.shape == target.shape == (4, 3, 16, 16)
            return (prediction - target).abs().mean()

    monkeypatch.setitem(sys.modules, "bench.metrics.gs_lrm", SimpleNamespace(PerceptualLoss=PerceptualLoss))
    for data, weight in (("scenes", 0.5), ("objects", 1.0)):
        options = {"perceptual": "none", "perceptual_loss": "gs-lrm", "perceptual_loss_weights": "~/vgg.mat"}
        task = NovelViewSynthesis(NVSConfig(data=data, image_size=16, **options), tmp_path)
        batch = {"target_images": torch.zeros(2, 2, 3, 16, 16)}
        assert float(task.loss({"images": torch.full((2, 2, 3, 16, 16), 0.5)}, batch)) == 0.25 + weight * 0.5
        assert task.config.perceptual_loss_weight == weight, "a resumed comparison learns the same"


@pytest.fixture
def converted(tmp_path: Path):
    """RealEstate10K as LVSM converts it: 9 training clips and 3 test clips of 30 frames, one image a clip."""
    root, intrinsics = tmp_path / "re10k", [320.0, 320.0, 320.0, 180.0]
    for split, clips in (("train", 9), ("test", 3)):
        (root / split / "metadata").mkdir(parents=True)
        listed = []
        for clip in range(clips):
            folder = root / split / "images" / f"{split}{clip}"
            folder.mkdir(parents=True)
            Image.new("RGB", (640, 360), (clip, 0, 0)).save(folder / "00000.png", compress_level=1)
            frames = []
            for number in range(30):
                image = folder / f"{number:05d}.png"
                if number:
                    image.hardlink_to(folder / "00000.png")
                w2c = np.eye(4)
                w2c[0, 3] = -number
                frames.append({"image_path": str(image), "fxfycxcy": intrinsics, "w2c": w2c.tolist()})
            listed.append(root / split / "metadata" / f"{split}{clip}.json")
            listed[-1].write_text(json.dumps({"scene_name": f"{split}{clip}", "frames": frames}))
        (root / split / "full_list.txt").write_text("\n".join(map(str, listed)) + "\n")
    return root


def re10k_task(root: Path, **options) -> NovelViewSynthesis:
    given = {"image_size": 32, "perceptual": "none", "validation_scenes": 2, "train_scenes": None, **options}
    return NovelViewSynthesis(NVSConfig(data="re10k", data_path=str(root), **given), root.parent / "cache")


def test_realestate10k_trains_and_scores_with_validation_held_out(converted: Path) -> None:
    task = re10k_task(converted)
    told = []
    task.prepare(lambda *line: told.append(line))
    assert told, "making the index shows its progress"
    assert task.training_size() == 7
    splits = {name: task._split(name) for name in ("train", "validation")}
    clips = {name: {s.sample_name(i, 0).split("/")[0] for i in range(len(s))} for name, s in splits.items()}
    assert (len(clips["train"]), len(clips["validation"])) == (7, 2)
    assert not clips["train"] & clips["validation"]
    batch = task.collate(np.arange(7), DRAWS[:7])
    assert batch["input_c2w"][..., 0, 3].numpy() == pytest.approx(np.tile([-1 / 1.35, 1 / 1.35], (7, 1)), abs=1e-5)
    assert (batch["target_c2w"][..., 0, 3].abs() < 1 / 1.35).all(), "targets lie between the inputs"
    assert len(task.evaluate(TinyNVS().eval(), CPU, split="validation")) == 4
    records = task.evaluate(TinyNVS().eval(), CPU)
    assert {record["sample"].split("/")[1] for record in records} == {"test0", "test1", "test2"}
    assert "task.evaluation_index is not set" in task.notices[0]


def test_the_evaluation_index_of_realestate10k_is_scored_and_its_leaks_are_told(converted: Path) -> None:
    index = converted / "index.json"
    index.write_text(
        json.dumps(
            {
                "test1": None,
                "test0": {"context": [2, 20], "target": [2, 8, 11]},
                "test2": {"context": [0, 28], "target": [5, 6, 7]},
            }
        )
    )
    task = re10k_task(converted, evaluation_index=str(index), eval_targets=3, extra_input_views=(3,))
    names = [record["sample"] for record in task.evaluate(TinyNVS().eval(), CPU)]
    assert names == [f"test/test0/{n:05d}" for n in (2, 8, 11)] + [f"test/test2/{n:05d}" for n in (5, 6, 7)]
    told = " ".join(task.notices)
    assert "test: 16.7 % of the targets are input views (1 of 2 scenes) at 2 inputs" in told
    assert "test: 33.3 % of the targets are input views (1 of 2 scenes) at 3 inputs" in told
    assert "1 null" in told


def test_limits_take_the_first_scenes_and_a_null_takes_all(converted: Path) -> None:
    few, most = re10k_task(converted, train_scenes=3, test_scenes=2), re10k_task(converted, test_scenes=0)
    assert (len(few._split("train")), len(few._split("test"))) == (3, 2)
    assert (len(most._split("train")), len(most._split("test"))) == (7, 3)
    first, every = few._split("train"), most._split("train")
    assert [first.sample_name(i, 4) for i in range(3)] == [every.sample_name(i, 4) for i in range(3)]
    views = np.array([[4, 9], [1, 2], [0, 29]])
    for one, other in zip(first.load(np.arange(3), views), every.load(np.arange(3), views), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_number_of_inputs_says_nothing_of_the_gap(converted: Path) -> None:
    draws = np.random.default_rng(0).integers(0, 2**64, 4000, dtype=np.uint64)
    inputs, _ = re10k_task(converted)._split("train").choose(np.zeros(4000, int), draws, 4, 2)
    gap, count = inputs[:, 1] - inputs[:, 0], mask_inputs(draws, 1, 4).sum(axis=1)
    assert abs(np.corrcoef(gap, count)[0, 1]) < 0.06
    for one in np.unique(gap):
        assert np.bincount(count[gap == one], minlength=5)[1:] / (gap == one).sum() == pytest.approx(0.25, abs=0.07)


def test_fingerprints_are_those_of_the_splits_that_were_opened(converted: Path, make_task) -> None:
    task, few = re10k_task(converted), re10k_task(converted, train_scenes=3)
    assert task.fingerprints() == {}
    task.prepare()
    few.prepare()
    assert set(task.fingerprints()) == {"train", "test"}
    assert few.fingerprints()["test"] == task.fingerprints()["test"]
    assert few.fingerprints()["train"] == task.fingerprints()["train"] + ", first 3"
    plain = make_task()
    plain.prepare()
    assert plain.fingerprints() == {}, "arrays in memory have none"


def test_scenes_that_are_left_for_a_limit_are_told(converted: Path) -> None:
    task = re10k_task(converted, train_scenes=3, test_scenes=2)
    task.prepare()
    assert "train: only the first 3 of 7 scenes are used" in task.notices
    assert "test: only the first 2 of 3 scenes are used" in task.notices


def test_a_clip_that_is_trained_on_and_scored_is_refused(converted: Path) -> None:
    both = converted / "test" / "metadata" / "test0.json"
    both.write_text(both.read_text().replace('"scene_name": "test0"', '"scene_name": "train4"'))
    (converted / "test" / "images" / "test0").rename(converted / "test" / "images" / "train4")
    with pytest.raises(UserError, match=r"1 scenes are in both train and test \(train4\); take them out of one"):
        re10k_task(converted).prepare()


def test_the_rules_of_realestate10k_are_options(converted: Path) -> None:
    for path in (converted / "train" / "images").glob("*/00000.png"):
        Image.new("RGB", (64, 64)).save(path)
    still = converted / "train" / "metadata" / "train0.json"
    clip = json.loads(still.read_text())
    for frame in clip["frames"]:
        frame["w2c"] = np.eye(4).tolist()
    still.write_text(json.dumps(clip))
    with pytest.raises(UserError, match=r"all left out, 9 not of 360 x 640 pixels; set task\.scene_rules: none"):
        re10k_task(converted).prepare()
    assert len(re10k_task(converted, scene_rules="none")._split("train")) == 7
    assert len(re10k_task(converted, scene_rules="any-shape")._split("train")) == 6, "one stands still"
    with pytest.raises(UserError, match=r"all left out, 9 no more than 41 frames; set task\.min_gap lower"):
        re10k_task(converted, scene_rules="none", min_gap=40).prepare()
    near = re10k_task(converted, scene_rules="none", min_gap=5, max_gap=6)._split("train")
    inputs, _ = near.choose(np.zeros(12, int), DRAWS, 2, 3)
    assert set(inputs[:, 1] - inputs[:, 0]) == {5, 6}


def test_a_transforms_scene_trains_and_scores(tmp_path: Path) -> None:
    """From files to records: distances between cameras survive the frame up to its scale."""
    folder = tmp_path / "scene"
    folder.mkdir()
    frames = []
    for view in range(16):
        Image.new("RGB", (40, 32), (view * 10, 0, 0)).save(folder / f"{view:02d}.png")
        pose = np.eye(4)
        pose[0, 3] = view
        frames.append({"file_path": f"{view:02d}.png", "transform_matrix": pose.tolist()})
    (folder / "transforms.json").write_text(json.dumps({"fl_x": 40.0, "w": 40, "h": 32, "frames": frames}))
    options = {"data": "transforms", "data_path": str(folder), "image_size": 16, "perceptual": "none"}
    task = NovelViewSynthesis(NVSConfig(**options), tmp_path)
    task.prepare()
    assert task.training_size() == 12
    batch = task.transfer(task.collate(np.arange(12), DRAWS), CPU)
    shown = batch["input_images"][:, :, 0, 8, 8] * 255 / 10
    apart, in_frame = shown[:, 0] - shown[:, 1], batch["input_c2w"][:, 0, 0, 3] - batch["input_c2w"][:, 1, 0, 3]
    assert (in_frame / apart).numpy() == pytest.approx((2 / 1.35 / apart.abs()).numpy(), rel=1e-3)
    records = task.evaluate(TinyNVS().eval(), CPU)
    assert sorted(record["sample"] for record in records) == ["test/00", "test/08"]


def test_objects_are_painted_on_the_same_targets_from_any_number_of_inputs(tmp_path: Path) -> None:
    """Their targets are chosen among what is left of a scene: with more inputs others would be left."""
    root = tmp_path / "objects"
    for uid in ("chair", "lamp"):
        (root / uid).mkdir(parents=True)
        for view in range(24):
            Image.new("RGBA", (16, 16), (view * 8, 0, 0, 255)).save(root / uid / f"{view:03d}.png")
            np.save(root / uid / f"{view:03d}.npy", np.c_[np.eye(3), (0, 0, -1 - view)])
    for split, uid in (("train", "chair"), ("test", "lamp")):
        (root / f"{split}.json").write_text(json.dumps([uid]))

    seen: dict[int, list[float]] = {}

    class Watcher(nn.Module):
        def forward(self, input_images, target_c2w, **others):
            shown = seen.setdefault(input_images.shape[1], [])
            shown += (target_c2w[..., 2, 3] - 1).flatten().tolist()
            return {"images": torch.zeros(*target_c2w.shape[:2], *input_images.shape[2:])}

    options = {"data": "objects", "data_path": str(root), "image_size": 16, "perceptual": "none"}
    few = {"object_views": 24, "field_of_view": 90, "extra_input_views": (1, 20), "eval_targets": 4}
    task = NovelViewSynthesis(NVSConfig(**options, **few), tmp_path)
    task.prepare()
    focal = task.collate(np.zeros(1, int), DRAWS[:1])["input_intrinsics"][..., 0]
    assert focal.numpy() == pytest.approx(8), "90 degrees on 16 pixels"
    records = task.evaluate(Watcher(), CPU)
    views = [int(record["sample"].rsplit("/")[-1]) for record in records]
    assert min(views) >= 20, "no target is an input for any number of inputs"
    assert seen == {1: views, 2: views, 20: views}, "in the frame of the data, view v stands at z = v + 1"
    assert len(task.evaluate(Watcher(), CPU, quick=True)) == 4
    with pytest.raises(UserError, match=r"^task\.extra_input_views: 21 inputs and 4 targets do not fit the 24 views"):
        NovelViewSynthesis(NVSConfig(**options, **{**few, "extra_input_views": (21,)}), tmp_path).prepare()
