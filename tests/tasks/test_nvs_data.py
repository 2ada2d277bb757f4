"""Any data: frames, varying inputs, more or fewer inputs at the end, leakage that is told, and data on disk."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bench.conformance import check
from bench.data.arrays import ArraySplit
from bench.errors import UserError
from bench.tasks.nvs import NovelViewSynthesis, NVSConfig
from bench.tasks.nvs_batches import Chosen, gather
from bench.tasks.views import mask_inputs
from tests.planted import TinyNVS
from tests.tasks.conftest import labelled_split

CPU = torch.device("cpu")
DRAWS = np.arange(12, dtype=np.uint64)


def wandering_split(scenes: int = 12, views: int = 16, size: int = 32) -> ArraySplit:
    """Cameras that walk about far from the origin, all looking roughly one way."""
    split, generator = labelled_split(scenes, views, size), np.random.default_rng(0)
    split.c2w[..., :3, 3] = generator.normal(50, 3, (scenes, views, 3))
    return split


@pytest.fixture
def make_wandering(tmp_path: Path):
    """`make(split, **options)`: the task on wandering cameras, or on another split."""

    def make(split: ArraySplit | None = None, **options) -> NovelViewSynthesis:
        given = wandering_split() if split is None else split
        config = NVSConfig(**{"image_size": 32, "perceptual": "none", "input_views": 3, **options})
        return NovelViewSynthesis(config, tmp_path, lambda name: given)

    return make


# ---------------------------------------------------------------------------------------------------------------- frame


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


# ---------------------------------------------------------------------------------------------------------- input views


def test_without_the_option_there_is_no_mask(make_task) -> None:
    for task in (make_task(), make_task(input_views=3, min_input_views=3)):
        assert "input_mask" not in task.input_fields
        assert "input_mask" not in task.collate(np.arange(3), DRAWS[:3])
        assert len(task.symmetries) == 1


def test_masked_views_show_nothing_that_the_sample_may_not_see(make_task) -> None:
    task = make_task(input_views=4, min_input_views=1)
    indices = np.arange(40)
    draws = indices.astype(np.uint64)
    batch, full = task.collate(indices, draws), make_task(input_views=4).collate(indices, draws)
    mask = batch["input_mask"]
    assert mask.dtype == torch.bool
    assert set(mask.sum(dim=1).tolist()) == {1, 2, 3, 4}
    for name in ("input_images", "input_c2w", "input_intrinsics"):
        assert torch.equal(batch[name][mask], full[name][mask])
        assert torch.equal(batch[name][~mask], batch[name][:, :1].expand_as(batch[name])[~mask])
    assert torch.equal(batch["target_images"], full["target_images"])
    part = task.collate(indices[5:7], draws[5:7])
    assert all(torch.equal(part[name], batch[name][5:7]) for name in batch), "the stream depends on the batch"


def test_masked_views_do_not_shape_the_frame(make_wandering) -> None:
    task = make_wandering(frame="inputs", input_views=4, min_input_views=1)
    batch = task.collate(np.arange(12), DRAWS)
    for sample, mask in enumerate(batch["input_mask"]):
        centres = batch["input_c2w"][sample, mask, :3, 3]
        assert centres.mean(dim=0).numpy() == pytest.approx(0, abs=1e-5), (
            "the origin is the mean of those that are there"
        )


def test_evaluation_has_all_inputs(make_task) -> None:
    seen = []

    class Watcher(TinyNVS):
        def forward(self, input_mask, **inputs):
            seen.append(input_mask)
            return super().forward(**inputs)

    make_task(input_views=3, min_input_views=1, extra_input_views=(5,)).evaluate(Watcher().eval(), CPU, split="ood")
    assert {mask.shape[1] for mask in seen} == {3, 5}
    assert all(mask.all() for mask in seen)


def test_probes_and_edge_cases_have_masks(make_task) -> None:
    task = make_task(input_views=4, min_input_views=2)
    real, made = task.collate(np.arange(3), DRAWS[:3]), task.worst_case(3)
    assert {name: (v.shape, v.dtype) for name, v in real.items()} == {n: (v.shape, v.dtype) for n, v in made.items()}
    assert made["input_mask"].all()
    assert task.synthetic(3, 0)["input_mask"][0].tolist() == [True, True, False, False]
    edges = task.edge_cases(2)
    assert edges["only the last input view"]["input_mask"].tolist() == [[False, False, False, True]] * 2
    assert all(batch["input_mask"].any(dim=1).all() for batch in edges.values())


class Masked(TinyNVS):
    """Averages the views that are there."""

    def forward(self, input_images, input_c2w, input_intrinsics, input_mask, **inputs):
        weight = input_mask / input_mask.sum(dim=1, keepdim=True) * input_mask.shape[1]

        def weighed(value):
            return torch.where(_over(input_mask, value), value, 0) * _over(weight, value)

        views = (weighed(value) for value in (input_images, input_c2w, input_intrinsics))
        return super().forward(
            **dict(zip(("input_images", "input_c2w", "input_intrinsics"), views, strict=True)), **inputs
        )


def _over(mask, value):
    return mask.reshape(*mask.shape, *[1] * (value.ndim - 2))


class Ignorant(TinyNVS):
    """Takes the mask and looks at everything."""

    def forward(self, input_mask, **inputs):
        return super().forward(**inputs)


def test_check_finds_who_does_not_honour_the_mask(make_task) -> None:
    task = make_task(input_views=3, min_input_views=1)

    def failed(build) -> str:
        return " ".join(f.detail for f in check(build, task) if not f.passed and f.name != "all other checks")

    assert "forward does not take input_mask" in failed(lambda: Strict())
    assert "what masked input views hold" in failed(Ignorant)
    assert "masked" not in failed(Masked)


class Strict(nn.Module):
    """Knows nothing of masks."""

    def forward(self, input_images, input_c2w, input_intrinsics, target_c2w, target_intrinsics):
        return {"images": input_images[:, :1].expand(-1, target_c2w.shape[1], -1, -1, -1)}


def test_the_same_targets_are_painted_from_other_numbers_of_inputs(make_task) -> None:
    class CountsInputs(nn.Module):
        def forward(self, input_images, target_c2w, **others):
            shape = (*target_c2w.shape[:2], *input_images.shape[2:])
            return {"images": torch.full(shape, input_images.shape[1] / 10)}

    class Constant(CountsInputs):
        def forward(self, input_images, **others):
            return super().forward(input_images=input_images.new_zeros(len(input_images), 4, 3, 32, 32), **others)

    task = make_task(extra_input_views=(1, 4))
    assert [metric.name for metric in task.metrics] == ["psnr", "ssim", "psnr_1in", "psnr_4in"]
    assert [metric.label for metric in task.metrics[2:]] == ["PSNR, 1 input (dB)", "PSNR, 4 inputs (dB)"]
    records = task.evaluate(CountsInputs(), CPU)
    expected = make_task(extra_input_views=()).evaluate(Constant(), CPU)
    assert [r["sample"] for r in records] == [r["sample"] for r in expected]
    assert [r["psnr_4in"] for r in records] == [r["psnr"] for r in expected]
    assert all(record["psnr_1in"] != record["psnr"] for record in records)
    for cheap in (task.evaluate(Constant(), CPU, quick=True), task.evaluate(Constant(), CPU, split="validation")):
        assert not {"psnr_1in", "psnr_4in"} & set(cheap[0])


def test_references_see_as_many_inputs_as_the_arms(make_task) -> None:
    assert "psnr_8in" not in make_task(extra_input_views=(8,)).references("validation")[0]["metrics"]
    nearest = next(r for r in make_task(extra_input_views=(8,)).references() if r["name"] == "nearest-view")
    assert nearest["metrics"]["psnr_8in"] > nearest["metrics"]["psnr"] + 1, "more inputs, a nearer one"


# ------------------------------------------------------------------------------------------------------------- notices


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


# ------------------------------------------------------------------------------------------------------- data on disk


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
