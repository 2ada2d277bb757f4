"""Any data: frames, leakage that is told, and splits that break the contract."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench.data.arrays import ArraySplit
from bench.errors import UserError
from bench.tasks.nvs import NovelViewSynthesis, NVSConfig
from bench.tasks.nvs_batches import Chosen, gather
from tests.tasks.nvs_data import DRAWS, wandering_split, wandering_task


@pytest.fixture
def make_wandering(tmp_path: Path):
    return partial(wandering_task, tmp_path)


def test_auto_is_the_frame_that_suits_the_data() -> None:
    for data, frame in (("scenes", "none"), ("objects", "none"), ("re10k", "inputs"), ("transforms", "inputs")):
        assert NovelViewSynthesis(NVSConfig(data=data, perceptual="none"), Path("nowhere")).config.frame == frame


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_only_the_sample_frame_knows_the_targets(make_wandering, where: str) -> None:
    def batch(frame: str, shift: float):
        split = wandering_split()
        task = make_wandering(split, frame=frame)
        if where == "training":
            views = Chosen(np.arange(12), *split.choose(np.arange(12), DRAWS, 3, 2))
        else:
            views = next(task._evaluation_views("test", batch_size=12))
        split.c2w[np.arange(12)[:, None], views[2], 0, 3] += shift
        return task.collate(views[0], DRAWS) if where == "training" else gather(task.config, split, views)

    for frame in ("none", "inputs", "sample"):
        plain, moved = batch(frame, 0.0), batch(frame, 7.0)
        assert torch.equal(plain["input_images"], moved["input_images"])
        assert not torch.equal(plain["target_c2w"], moved["target_c2w"])
        assert torch.equal(plain["input_c2w"], moved["input_c2w"]) == (frame != "sample"), frame


def test_the_frame_bounds_the_poses_and_leaves_the_rest_alone(make_wandering) -> None:
    raw, framed = (make_wandering(frame=frame).collate(np.arange(12), DRAWS) for frame in ("none", "inputs"))
    assert raw["input_c2w"][..., :3, 3].abs().max() > 50
    assert framed["input_c2w"][..., :3, 3].abs().amax(dim=(1, 2)).numpy() == pytest.approx(1 / 1.35, abs=1e-5)
    for name in set(raw) - {"input_c2w", "target_c2w"}:
        assert torch.equal(raw[name], framed[name])
    assert framed["target_c2w"].dtype == torch.float32


def test_the_published_frame_is_told(make_wandering) -> None:
    assert make_wandering(frame="inputs").notices == ()
    assert "target poses" in make_wandering(frame="sample").notices[0]


class Leaky(ArraySplit):
    """Its protocol scores the first input, in every other scene, unless there are more than two."""

    notices = ("3 scenes are null",)

    def choose_evaluation(self, scenes, input_views, target_views):
        inputs, targets = super().choose_evaluation(scenes, input_views, target_views)
        targets[:, 0] = np.where((scenes % 2 == 0) & (input_views == 2), inputs[:, 0], targets[:, 0])
        return inputs, targets


def test_leakage_is_told(make_task, make_wandering) -> None:
    assert make_task().notices == ()
    line = make_task(target_has_input=True, target_views=6, input_views=2).notices[0]
    assert "25 % of the supervised targets are input views, and 96 % of the samples" in line
    split = wandering_split()
    leaky = Leaky(rgb=split.rgb, c2w=split.c2w, intrinsics=split.intrinsics)
    task = make_wandering(leaky, input_views=2)
    task.prepare()
    assert "3 scenes are null" in task.notices
    assert any(
        n.startswith("test: 25.0 % of the targets are input views (6 of 12 scenes) at 2 inputs") for n in task.notices
    )
    assert len(task.notices) == len(set(task.notices))
    clean = make_wandering()
    clean.prepare()
    assert clean.notices == ()


def test_one_input_beside_several_in_the_frame_of_the_inputs_is_told(make_wandering) -> None:
    def told(**options) -> bool:
        return any("one camera has none" in line for line in make_wandering(**options).notices)

    assert told(frame="inputs", min_input_views=1)
    assert told(frame="inputs", extra_input_views=(1,))
    assert told(frame="inputs", input_views=1, extra_input_views=(2,))
    assert not told(frame="inputs", min_input_views=2, extra_input_views=(4,))
    assert not told(frame="inputs", input_views=1), "one unit throughout"
    assert not told(frame="none", min_input_views=1)


def test_more_views_than_there_are_name_the_option_that_asked_for_them(make_wandering) -> None:
    with pytest.raises(UserError, match=r"^task\.extra_input_views: 15 inputs and 2 targets .* in test$"):
        make_wandering(extra_input_views=(15,)).prepare()
    with pytest.raises(UserError, match=r"^task\.input_views: 15 inputs and 2 targets .* in train$"):
        make_wandering(input_views=15).prepare()


def test_no_view_of_a_sample_is_read_twice(make_wandering) -> None:
    class Reader:
        """The same data; counts what is read."""

        def __init__(self) -> None:
            self.whole, self.calls = wandering_split(), []
            self.choose, self.choose_evaluation = self.whole.choose, self.whole.choose_evaluation
            self.sample_name = self.whole.sample_name

        def __len__(self) -> int:
            return len(self.whole)

        def load(self, scenes, views):
            self.calls.append(
                [(int(scene), int(view)) for scene, row in zip(scenes, views, strict=True) for view in row]
            )
            return self.whole.load(scenes, views)

    for options in ({}, {"min_input_views": 1}, {"target_has_input": True}):
        reader = Reader()
        task, plain = (make_wandering(split, **options) for split in (reader, reader.whole))
        task.training_size()
        reader.calls.clear()
        batch, expected = (t.collate(np.arange(12), DRAWS) for t in (task, plain))
        (read,) = reader.calls
        assert len(set(read)) == len(read)
        assert (len(read) < 60) == bool(options)
        for name, value in expected.items():
            assert torch.equal(batch[name], value)
            assert batch[name].stride() == value.stride()


def test_the_weights_that_the_loss_reads_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PerceptualLoss:
        def __init__(self, weights: Path) -> None:
            self.name = weights.name

        def identity(self):
            return {"name": self.name, "sha256": "0"}

    monkeypatch.setitem(sys.modules, "bench.metrics.gs_lrm", SimpleNamespace(PerceptualLoss=PerceptualLoss))
    options = {"perceptual": "none", "perceptual_loss": "gs-lrm", "perceptual_loss_weights": "vgg.mat"}
    assert NovelViewSynthesis(NVSConfig(**options), tmp_path).pretrained_parts() == [{"name": "vgg.mat", "sha256": "0"}]
    for loss in ("none", "st-lpips"):
        task = NovelViewSynthesis(NVSConfig(perceptual="none", perceptual_loss=loss), tmp_path)
        assert task.pretrained_parts() == []


def test_the_depth_oracle_is_left_out_without_depth(make_wandering) -> None:
    split = dataclasses.replace(wandering_split(), depth=None)
    assert [r["name"] for r in make_wandering(split).references()] == ["mean-colour", "nearest-view"]


def test_references_do_not_depend_on_the_frame(make_wandering) -> None:
    one, other = (make_wandering(frame=frame).references() for frame in ("none", "inputs"))
    assert one == other


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"rgb": np.zeros((12, 16, 32, 32, 3), np.float32)}, r"train: load must give rgb as uint8 \[1, 3, 32, 32, 3\]"),
        ({"intrinsics": np.zeros((12, 16, 3, 3), np.float32)}, "train: load must give intrinsics as float32"),
        ({"c2w": np.zeros((12, 16, 4, 4), np.float32)}, r"train: the pose of 0000/\d\d has a rotation"),
    ],
)
def test_splits_that_break_the_contract_are_named(make_wandering, change: dict, line: str) -> None:
    with pytest.raises(UserError, match=line):
        make_wandering(dataclasses.replace(wandering_split(), **change)).prepare()


def test_bare_arrays_are_refused_with_the_mend(make_wandering) -> None:
    with pytest.raises(UserError, match=r"train: SimpleNamespace lacks choose, .*go into an ArraySplit"):
        make_wandering(SimpleNamespace(rgb=np.zeros(1), __len__=lambda: 1)).training_size()
