"""The task: fields, streams without leakage, loss, scores, names, references and pictures."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from bench.aggregates import summarise
from bench.errors import UserError
from bench.registry import make_config
from bench.tasks.nvs import PRESETS, QUICK_SCENES, NovelViewSynthesis, NVSConfig
from tests.planted import NanAfter, TinyNVS

CPU = torch.device("cpu")


class Constant(nn.Module):
    """Paints every target in one grey."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, input_images, target_c2w, **others):
        shape = (*target_c2w.shape[:2], *input_images.shape[2:])
        return {"images": torch.full(shape, self.value)}


class Oracle(nn.Module):
    """Knows that labelled scenes show their camera's position."""

    def forward(self, input_images, target_c2w, **others):
        colour = target_c2w[..., :3, 3] / 255
        return {"images": colour[..., None, None].expand(*colour.shape, *input_images.shape[-2:])}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"image_size": 8}, "task.image_size must be at least 16, got 8"),
        ({"input_views": 0}, "task.input_views must be a whole number of at least 1, got 0"),
        ({"eval_targets": True}, "task.eval_targets must be a whole number"),
        ({"ood": 1}, "task.ood must be true or false, got 1"),
        ({"perceptual": "vgg"}, "task.perceptual must be one of auto"),
        ({"perceptual_loss_weight": -1.0}, "task.perceptual_loss_weight must be 0 or more, got -1.0"),
        ({"perceptual_loss_weight": 0.5}, "task.perceptual_loss must name a network"),
        ({"perceptual_loss": "vgg"}, "task.perceptual_loss must be one of none, gs-lrm"),
        (
            {"perceptual_loss": "st-lpips", "perceptual_loss_weight": 0},
            "task.perceptual_loss_weight must be more than 0",
        ),
        ({"perceptual_loss": "st-lpips", "image_size": 16}, "task.perceptual_loss: st-lpips needs images of 32 px"),
        ({"perceptual_loss": "st-lpips", "perceptual_loss_weights": "a"}, "task.perceptual_loss_weights: only gs-lrm"),
        ({"fidelity": "fid"}, "task.fidelity must be one of none, inception-64"),
        (
            {"fidelity": "inception-2048"},
            "task.fidelity_weights is not set: inception-2048 needs weights-inception-2015",
        ),
        ({"fidelity": "alexnet", "fidelity_weights": "a"}, "task.fidelity_weights: only inception-.. reads a file"),
        ({"fidelity": "alexnet", "image_size": 16}, "task.fidelity: alexnet needs images of 32 px or more, got 16"),
        ({"data": "dl3dv"}, "task.data must be one of scenes, re10k, objects, transforms, got 'dl3dv'"),
        ({"data_path": "there"}, "task.data_path is 'there', but task.data: scenes are rendered"),
        ({"evaluation_index": "a.json"}, "task.evaluation_index: only re10k has it"),
        ({"data": "objects", "ood": True}, "task.ood must be false: only scenes have that split"),
        ({"data": "re10k", "data_path": ""}, "task.data_path is empty: give a path, or null for none"),
        ({"data": "re10k", "evaluation_index": ""}, "task.evaluation_index is empty"),
        ({"min_gap": 10}, "task.min_gap: only re10k has it, task.data is scenes; leave it out"),
        ({"data": "re10k", "min_gap": 193}, "task.min_gap must be at most task.max_gap, 192, got 193"),
        ({"data": "re10k", "scene_rules": "own"}, "task.scene_rules must be one of published, any-shape, none, got"),
        ({"data": "transforms", "object_views": 12}, "task.object_views: only objects has it"),
        ({"data": "objects", "field_of_view": 180}, "task.field_of_view must be between 0 and 180 degrees, got 180"),
        ({"frame": "first"}, "task.frame must be one of auto, none, inputs, sample"),
        ({"min_input_views": 3}, "task.min_input_views must be at most task.input_views, 2, got 3"),
        ({"min_input_views": 0}, "task.min_input_views must be a whole number of at least 1, got 0"),
        ({"extra_input_views": (4, 2)}, "task.extra_input_views must be different whole numbers"),
        ({"extra_input_views": (4, 4)}, "task.extra_input_views must be different whole numbers"),
        ({"extra_input_views": (0,)}, "task.extra_input_views must be different whole numbers"),
        ({"train_scenes": -1}, "task.train_scenes must be a whole number, or null for all, got -1"),
    ],
)
def test_wrong_options_are_named(options: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        NVSConfig(**options)
    assert line in str(error.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_enough_views(preset: str, tmp_path: Path) -> None:
    config = PRESETS[preset]
    assert config.scene_spec.train_views >= config.input_views + config.target_views
    assert NovelViewSynthesis(dataclasses.replace(config, perceptual="none"), tmp_path).worst_case(1)


def test_more_views_than_usual_are_rendered_where_they_are_asked_for() -> None:
    assert NVSConfig().scene_spec.test_views == 16
    assert NVSConfig(extra_input_views=(20, 4)).scene_spec.test_views == 22
    assert NVSConfig(input_views=8, eval_targets=9).scene_spec.test_views == 17
    spec = NVSConfig(train_scenes=None, test_scenes=0).scene_spec
    assert (spec.train_scenes, spec.test_scenes) == (20000, 100)


def test_published_options_still_load(repo_root: Path) -> None:
    published = yaml.safe_load((repo_root / "results/cpu-2core/nvs-tiny/comparison.yaml").read_text())["task"]
    assert published.pop("name") == "nvs"
    config = make_config(NovelViewSynthesis, published, "task")
    assert config == dataclasses.replace(NVSConfig(), perceptual="st-lpips", perceptual_loss_weight=0.0)


def test_options_that_do_not_touch_the_data_share_the_cache() -> None:
    assert NVSConfig().scene_spec == NVSConfig(eval_targets=4, target_views=3, perceptual="none").scene_spec


def test_collate_serves_the_chosen_scenes_with_images_and_poses_that_match(make_task) -> None:
    task = make_task(target_views=3)
    indices, draws = np.array([7, 0, 39, 7]), np.array([3, 9, 27, 81], np.uint64)
    batch = task.transfer(task.collate(indices, draws), CPU)
    for role in ("input", "target"):
        images = batch[f"{role}_images"]
        assert images.dtype == torch.float32
        assert images.is_contiguous()
        torch.testing.assert_close(images.mean(dim=(-2, -1)) * 255, batch[f"{role}_c2w"][..., :3, 3])
        assert batch[f"{role}_c2w"][:, 0, 0, 3].tolist() == indices.tolist()
    views = torch.cat([batch["input_c2w"][..., 1, 3], batch["target_c2w"][..., 1, 3]], dim=1)
    assert all(len(set(row.tolist())) == 5 for row in views), "a target among the inputs is a leak"


def test_the_stream_does_not_depend_on_the_batch_size(make_task) -> None:
    task = make_task()
    indices, draws = np.arange(6), np.arange(6, dtype=np.uint64) * 77
    whole = task.collate(indices, draws)
    parts = [task.collate(indices[i : i + 2], draws[i : i + 2]) for i in (0, 2, 4)]
    for name, value in whole.items():
        assert torch.equal(value, torch.cat([part[name] for part in parts]))


def test_worst_case_has_the_shapes_of_training_and_needs_no_data(make_task, tmp_path: Path) -> None:
    task = make_task(input_views=3, target_views=2)
    real = task.collate(np.arange(4), np.arange(4, dtype=np.uint64))
    made = NovelViewSynthesis(task.config, tmp_path / "nowhere").worst_case(4)
    assert list(made) == list(real)
    for name, value in real.items():
        assert (made[name].shape, made[name].dtype, made[name].stride()) == (value.shape, value.dtype, value.stride())


def test_synthetic_batches_follow_the_seed_and_edge_cases_are_degenerate(make_task) -> None:
    task = make_task()
    assert torch.equal(task.synthetic(2, 5)["input_images"], task.synthetic(2, 5)["input_images"])
    assert not torch.equal(task.synthetic(2, 5)["input_images"], task.synthetic(2, 6)["input_images"])
    edges = task.edge_cases(2)
    assert edges["black images"]["input_images"].max() == 0
    assert edges["white images"]["target_images"].min() == 255
    poses = torch.cat([edges["identical cameras"][f"{role}_c2w"] for role in ("input", "target")], dim=1)
    assert torch.equal(poses, poses[:, :1].expand_as(poses))


def test_loss_is_the_mean_squared_error_over_all_targets_and_refuses_to_broadcast(make_task) -> None:
    task = make_task()
    batch = task.transfer(task.collate(np.array([10, 20]), np.array([1, 2], np.uint64)), CPU)
    target = batch["target_images"]
    prediction = torch.rand(target.shape, generator=torch.Generator().manual_seed(0))
    loss = task.loss({"images": prediction.bfloat16()}, batch)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float((prediction.bfloat16().float() - target).square().mean()))
    with pytest.raises(ValueError, match="images must be"):
        task.loss({"images": prediction[:, :1]}, batch)
    with pytest.raises(ValueError, match="must return the key 'images'"):
        task.loss({"rgb": prediction}, batch)


def test_perceptual_loss_term_adds_to_the_loss_and_its_gradient(make_task) -> None:
    plain, task = make_task(), make_task(perceptual_loss="st-lpips")
    batch = task.transfer(task.synthetic(2, 0), CPU)
    images = torch.rand(batch["target_images"].shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    extra = task.loss({"images": images}, batch) - plain.loss({"images": images}, batch)
    assert extra > 0.01
    extra.backward()
    assert images.grad.abs().max() > 0
    images = images.detach()
    heavy = make_task(perceptual_loss="st-lpips", perceptual_loss_weight=1.5)
    assert float(heavy.loss({"images": images}, batch) - plain.loss({"images": images}, batch)) == pytest.approx(
        3 * float(extra.detach()), rel=1e-4
    ), "half of it unless told otherwise"
    assert [metric.name for metric in task.metrics] == ["psnr", "ssim"], "what is learned is not what is scored"


def test_evaluation_scores_every_target_of_every_scene_under_a_lasting_name(make_task) -> None:
    task = make_task(eval_targets=3, eval_batch=5)
    records = task.evaluate(Oracle(), CPU)
    assert len({record["sample"] for record in records}) == 37 * 3
    assert all(record["psnr"] > 90 and record["ssim"] > 0.999 for record in records)
    assert records[0].keys() == {"sample", "psnr", "ssim"}
    names = [record["sample"].split("/") for record in records]
    assert {split for split, _, _ in names} == {"test"}
    assert [int(scene) for _, scene, _ in names] == [scene for scene in range(37) for _ in range(3)]
    assert all(0 <= int(view) < 16 for _, _, view in names)


def test_the_name_is_that_of_the_target_view(make_task) -> None:
    """Labelled targets are (scene, view, 0) / 255, so a black image's error tells which view was scored."""
    for record in make_task().evaluate(Constant(0.0), CPU):
        _, scene, view = record["sample"].split("/")
        error = (int(scene) ** 2 + int(view) ** 2) / 3 / 255**2
        assert record["psnr"] == pytest.approx(min(100, -10 * np.log10(max(error, 1e-12))), abs=1e-3)


def test_samples_do_not_depend_on_batch_or_on_the_number_of_inputs(make_task) -> None:
    few, many = make_task(input_views=1, eval_batch=3), make_task(input_views=4, eval_batch=16)
    assert few.evaluate(Constant(0.1), CPU) == many.evaluate(Constant(0.1), CPU)


def test_evaluation_never_shows_the_target(make_task) -> None:
    task = make_task(input_views=4, eval_targets=4, target_has_input=True)
    for _, inputs, targets in task._evaluation_views("test"):
        assert not (inputs[:, :, None] == targets[:, None]).any()


def test_quick_is_a_subset_with_equal_numbers(make_task) -> None:
    task, model = make_task(), TinyNVS().eval()
    with torch.inference_mode():
        full = {record["sample"]: record["psnr"] for record in task.evaluate(model, CPU)}
        quick = task.evaluate(model, CPU, quick=True)
    assert len(quick) == QUICK_SCENES * 2
    assert all(record == {"sample": record["sample"], "psnr": full[record["sample"]]} for record in quick)


def test_other_splits_have_names_of_their_own(make_task) -> None:
    records = make_task().evaluate(Constant(0.0), CPU, split="validation")
    assert len(records) == 16
    assert all(record["sample"].startswith("validation/") for record in records)


def test_the_perceptual_metric_is_scored_under_its_own_name(make_task) -> None:
    task = make_task(perceptual="st-lpips")
    assert [metric.name for metric in task.metrics] == ["psnr", "ssim", "st_lpips"]
    with torch.inference_mode():
        records = task.evaluate(Oracle(), CPU, split="ood")
    assert all(record["st_lpips"] == pytest.approx(0, abs=1e-5) for record in records)


def test_distances_of_sets_are_scored_once_from_all_test_images(make_task) -> None:
    task = make_task(fidelity="alexnet")
    assert [metric.name for metric in task.metrics] == ["psnr", "ssim", "fd_alexnet", "kd_alexnet"]
    task.prepare()
    assert [metric.name for metric in task.metrics] == ["psnr", "ssim", "kd_alexnet"]
    assert "74 images each" in task.metrics[-1].note
    with torch.inference_mode():
        records = task.evaluate(Constant(0.9), CPU)
        assert "alexnet" not in task.evaluate(Constant(0.9), CPU, quick=True)[0]
    assert len(records) == 74
    found = summarise(task.metrics, records)
    assert set(found) == {"psnr", "ssim", "kd_alexnet"}
    assert found["kd_alexnet"] > 0


def test_an_output_that_is_not_finite_names_the_sample(make_task) -> None:
    model = NanAfter(steps=0).train()
    with pytest.raises(FloatingPointError, match=r"test/0000/\d\d: the prediction is not finite"):
        make_task().evaluate(model, CPU, quick=True)


def test_references_are_scored_on_the_same_samples(make_task) -> None:
    task = make_task()
    references = {reference["name"]: reference for reference in task.references()}
    assert set(references) == {"mean-colour", "nearest-view", "depth-warp"}
    assert "oracle" in references["depth-warp"]["label"]
    samples = [record["sample"] for record in task.evaluate(Constant(0.0), CPU)]
    for reference in references.values():
        assert [record["sample"] for record in reference["records"]] == samples
        mean = np.mean([record["psnr"] for record in reference["records"]])
        assert reference["metrics"]["psnr"] == pytest.approx(mean)
    # the mean colour of a labelled scene is off by the views' distance only
    assert references["mean-colour"]["metrics"]["psnr"] > 30


def test_pictures_show_inputs_truth_and_every_model(make_task) -> None:
    task = make_task(input_views=2)
    grid = task.pictures({"black": Constant(0.0), "white": Constant(1.0)}, CPU)
    assert grid.dtype == np.uint8
    assert grid.shape == (20 + 4 * 132 - 4, 5 * 132 - 4, 3)
    middle = grid[20 + 64 :: 132]
    assert (middle[:4, 3 * 132 + 64] == 0).all()
    assert (middle[:4, 4 * 132 + 64] == 255).all()
    assert [pixel[0] for pixel in middle[:4, 2 * 132 + 64]] == [0, 1, 2, 3], "one row a test scene"
    header = grid[:20]
    assert all((header[:, column * 132 : column * 132 + 128] < 128).any() for column in range(5)), "a label a column"


def test_data_that_do_not_fit_are_refused(make_task) -> None:
    with pytest.raises(UserError, match=r"task\.image_size is 64, but train has images of shape"):
        make_task(image_size=64).collate(np.array([0]), np.array([0], np.uint64))
    with pytest.raises(UserError, match="5 inputs and 2 targets do not fit the 6 views of a scene in train"):
        make_task(input_views=5).collate(np.array([0]), np.array([0], np.uint64))


def test_ood_must_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set task\.ood: true"):
        NovelViewSynthesis(NVSConfig(perceptual="none"), tmp_path).evaluate(Constant(0.0), CPU, split="ood")


def test_the_embedded_scenes_train_and_score_end_to_end(tmp_path: Path) -> None:
    """A few steps on rendered scenes beat the untrained model: poses, images and scores belong together."""
    options = {"image_size": 32, "train_scenes": 24, "validation_scenes": 2, "test_scenes": 4, "perceptual": "none"}
    task = NovelViewSynthesis(NVSConfig(**options), tmp_path)
    task.prepare(workers=1)
    torch.manual_seed(0)
    model = TinyNVS()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scores = []
    for step in range(40):
        if step in (0, 39):
            with torch.inference_mode():
                scores.append(np.mean([record["psnr"] for record in task.evaluate(model.eval(), CPU)]))
        indices = np.arange(24)
        batch = task.transfer(task.collate(indices, indices.astype(np.uint64) + np.uint64(24 * step)), CPU)
        loss = task.loss(model.train()(**{name: batch[name] for name in task.input_fields}), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert scores[1] > scores[0] + 1


@pytest.mark.gpu
def test_cuda_gives_the_same_batches_and_scores(make_task) -> None:
    task, cuda = make_task(perceptual="st-lpips"), torch.device("cuda")
    host = task.collate(np.arange(8), np.arange(8, dtype=np.uint64))
    there, here = task.transfer(host, cuda), task.transfer(host, CPU)
    assert all(torch.equal(there[name].cpu(), here[name]) and there[name].is_contiguous() for name in here)
    with torch.inference_mode():
        model = TinyNVS().eval()
        first, second = (task.evaluate(model.to(device), device) for device in (CPU, cuda))
    for one, other in zip(first, second, strict=True):
        assert one["sample"] == other["sample"]
        assert [one[m.name] for m in task.metrics] == pytest.approx([other[m.name] for m in task.metrics], rel=1e-2)


def test_the_example_in_the_documentation_runs(repo_root: Path, tmp_path: Path) -> None:
    text = (repo_root / "docs" / "bring-your-data.md").read_text()
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(example, "docs/bring-your-data.md", "exec"), {"cache": tmp_path})
