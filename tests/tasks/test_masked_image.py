"""The task: fields and what they hide, streams, loss, scores, probes, references, pictures, and options that are refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from baselines.mae import MAE, MAEConfig
from bench.errors import UserError
from bench.metrics import masked
from bench.tasks.masked_image import PRESETS, QUICK_IMAGES, MaskedImage, MaskedImageConfig
from bench.tasks.nvs_config import PRESETS as NVS_PRESETS
from models.crossmae import CrossMAE, CrossMAEConfig
from models.layers.mask_counts import mask_counts
from tests.tasks.masked_image_data import Constant, FewerInTraining, LabelledImages, Oracle

CPU = torch.device("cpu")


def make(tmp_path: Path = Path("nowhere"), **options) -> MaskedImage:
    """The task on labelled images of 32 px and patches of 8: 16 patches, 4 visible."""
    config = MaskedImageConfig(**{"image_size": 32, "eval_batch": 7, "probe_images": 0, **options})
    return MaskedImage(config, tmp_path, lambda split: LabelledImages(split, config.image_size))


def batch_of(task: MaskedImage, count: int = 5) -> dict[str, torch.Tensor]:
    return task.transfer(task.collate(np.arange(count), np.arange(count, dtype=np.uint64) * 31), CPU)


def whole_test_images(task: MaskedImage) -> torch.Tensor:
    images = LabelledImages("test", task.config.image_size).load(np.arange(30))
    return masked.normalise(torch.from_numpy(images).movedim(-1, 1).float() / 255)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"data": "imagenet"}, "task.data must be one of scenes, folder, got 'imagenet'"),
        (
            {"data_path": "there"},
            "task.data_path is 'there', but task.data: scenes are rendered; set task.data to folder",
        ),
        ({"data": "folder", "data_path": ""}, "task.data_path is empty: give a folder, or null for none"),
        ({"image_size": 8}, "task.image_size must be at least 16, got 8"),
        ({"image_size": 64.0}, "task.image_size must be a whole number of at least 1, got 64.0"),
        ({"patch_size": 12}, "task.patch_size must divide task.image_size, 64, got 12: choose another"),
        ({"patch_size": 0}, "task.patch_size must be a whole number of at least 1, got 0"),
        ({"mask_ratio": 1.0}, "task.mask_ratio must lie between 0 and 1, got 1.0"),
        ({"mask_ratio": 0}, "task.mask_ratio must lie between 0 and 1, got 0"),
        ({"mask_ratio": "0.75"}, "task.mask_ratio must lie between 0 and 1, got '0.75'"),
        ({"mask_ratio": 0.99}, "task.mask_ratio 0.99 keeps none of 64 patches: lower it"),
        ({"norm_pix_loss": 1}, "task.norm_pix_loss must be true or false, got 1"),
        ({"augment": "mix"}, "task.augment must be one of auto, none, flip, crop, got 'mix'"),
        ({"probe_label": "sky"}, "task.probe_label must be one of composition, shape, got 'sky'"),
        ({"data": "folder", "probe_label": "shape"}, "task.probe_label: only scenes has it, task.data is folder"),
        ({"train_images": -1}, "task.train_images must be a whole number, or null for all, got -1"),
        ({"probe_images": None}, "task.probe_images must be a whole number, got None"),
        ({"eval_batch": 0}, "task.eval_batch must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(options: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        MaskedImageConfig(**options)
    assert line in str(error.value)


@given(tokens=st.sampled_from([16, 64, 100, 196, 1600]), percent=st.integers(1, 99))
def test_as_many_patches_are_kept_as_the_architectures_keep(tokens: int, percent: int) -> None:
    side = round(tokens**0.5)
    options = {"image_size": 16 * side, "patch_size": 16, "mask_ratio": percent / 100}
    try:
        expected = mask_counts(tokens, percent / 100).kept
    except ValueError:
        with pytest.raises(UserError, match="keeps none"):
            MaskedImageConfig(**options)
        return
    assert MaskedImageConfig(**options).kept == expected


def test_counts_are_exact_where_floats_are_not() -> None:
    assert MaskedImageConfig(image_size=160, patch_size=16, mask_ratio=0.9).kept == 10


def test_presets_work_and_the_embedded_ones_render_nothing_that_view_synthesis_does_not(tmp_path: Path) -> None:
    for name in ("tiny", "small"):
        ours, theirs = PRESETS[name].scene_spec, NVS_PRESETS[name].scene_spec
        for split in ("train", "validation", "test"):
            assert ours.describe(split) == theirs.describe(split)
    for config in PRESETS.values():
        batch = MaskedImage(config, tmp_path).worst_case(2)
        assert batch["target_images"].shape == (2, 3, config.image_size, config.image_size)
    with pytest.raises(UserError, match=r"task\.data_path is not set: give a folder of images"):
        MaskedImage(PRESETS["paper"], tmp_path).prepare()
    missing = dataclasses.replace(PRESETS["paper"], data_path=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere is no folder"):
        MaskedImage(missing, tmp_path).prepare()


def test_augment_auto_is_a_flip_of_scenes_and_a_crop_of_photographs() -> None:
    assert make().config.augment == "flip"
    assert make(data="folder").config.augment == "crop"
    assert make(data="folder", augment="none").config.augment == "none"


@pytest.mark.parametrize("architecture", [MAEConfig, CrossMAEConfig])
def test_shared_options_make_an_architecture_that_fits(architecture: type) -> None:
    task = make(mask_ratio=0.6, norm_pix_loss=True)
    shared = task.config.shared_options()
    config = architecture(**shared, width=16, layers=1, heads=2, decoder_width=16, decoder_layers=1, decoder_heads=2)
    assert config.counts.kept == task.config.kept
    assert config.norm_pix_loss
    model = {MAEConfig: MAE, CrossMAEConfig: CrossMAE}[architecture](config).eval()
    with torch.inference_mode():
        assert len(task.evaluate(model, CPU)) == 30
    batch = batch_of(task)
    outputs = model(images=batch["images"], noise=batch["noise"])
    theirs = model.reference_loss({"images": batch["target_images"]}, outputs)
    assert float(task.loss(outputs, batch).detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)


def test_noise_has_no_ties_and_masks_every_patch_equally_often() -> None:
    task = make()
    noise = task.collate(np.zeros(4000, np.int64) % 60, np.arange(4000, dtype=np.uint64))["noise"]
    assert (noise.dtype, noise.shape) == (torch.float32, (4000, 16))
    assert noise.min() > 0
    assert noise.max() < 1
    assert torch.equal(noise.sort(1).values, noise[:1].sort(1).values.expand_as(noise))
    seen = (noise.argsort(1)[:, :4, None] == torch.arange(16)).any(1).float().mean(0)
    assert seen.sub(0.25).abs().max() < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_what_masked_patches_of_the_source_hold_changes_nothing_in_the_inputs(seed: int) -> None:
    task = make(mask_ratio=0.6)
    host = task.synthetic(6, seed)
    plain = task.transfer(host, CPU)
    hidden = plain["noise"].argsort(1).argsort(1) >= task.config.kept
    patches = masked.patchify(host["target_images"], 8)
    other = torch.randint(0, 256, patches.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    changed = torch.where(hidden[..., None], other, patches)
    batch = task.transfer({**host, "target_images": masked.unpatchify(changed, 8)}, CPU)
    assert not torch.equal(batch["target_images"], plain["target_images"])
    for name in task.input_fields:
        assert torch.equal(batch[name], plain[name])
    shown = masked.patchify(plain["images"], 8)
    assert torch.equal(shown[~hidden], masked.patchify(plain["target_images"], 8)[~hidden])
    assert not shown[hidden].any()
    assert int(hidden.sum(1).unique()) == 16 - task.config.kept


def test_collate_serves_the_chosen_images_and_transfer_normalises_them() -> None:
    task = make()
    indices = np.array([7, 0, 59])
    batch = task.transfer(task.collate(indices, np.arange(3, dtype=np.uint64)), CPU)
    assert list(batch) == ["images", "noise", "target_images"]
    expected = torch.from_numpy(LabelledImages("train").load(indices)).movedim(-1, 1).float() / 255
    torch.testing.assert_close(masked.denormalise(batch["target_images"]), expected)
    assert batch["images"].dtype == torch.float32
    assert task.training_size() == 60


def test_the_stream_does_not_depend_on_the_batch_size() -> None:
    task = make()
    indices, draws = np.arange(6), np.arange(6, dtype=np.uint64) * 77
    whole = task.collate(indices, draws)
    parts = [task.collate(indices[i : i + 2], draws[i : i + 2]) for i in (0, 2, 4)]
    for name, value in whole.items():
        assert torch.equal(value, torch.cat([part[name] for part in parts]))


def test_worst_case_has_the_shapes_of_training_and_needs_no_data(tmp_path: Path) -> None:
    task = make()
    real = task.collate(np.arange(4), np.arange(4, dtype=np.uint64))
    made = MaskedImage(task.config, tmp_path).worst_case(4)
    assert list(made) == list(real)
    for name, value in real.items():
        assert (made[name].shape, made[name].dtype, made[name].stride()) == (value.shape, value.dtype, value.stride())


def test_synthetic_batches_follow_the_seed_and_edge_cases_are_degenerate() -> None:
    task = make(norm_pix_loss=True)
    assert torch.equal(task.synthetic(2, 5)["noise"], task.synthetic(2, 5)["noise"])
    assert not torch.equal(task.synthetic(2, 5)["target_images"], task.synthetic(2, 6)["target_images"])
    for name, host in task.edge_cases(3).items():
        batch = task.transfer(host, CPU)
        prediction = torch.zeros(3, 16, 192, requires_grad=True)
        loss = task.loss({"prediction": prediction, "mask": torch.ones(3, 16)}, batch)
        loss.backward()
        assert loss.isfinite(), name
        assert prediction.grad.isfinite().all(), name
        colours = host["target_images"].flatten(2).unique(dim=2).shape[-1]
        assert (colours == 1) == name.endswith(("images", "colour"))
    flat = task.transfer(task.edge_cases(1)["images of the mean colour"], CPU)["target_images"]
    assert flat.var() < 1e-4
    top = task.transfer(task.edge_cases(3)["only the first patches visible"], CPU)["images"]
    assert top[:, :, :8].any()
    assert not top[:, :, 8:].any()


def test_the_declared_symmetry_keeps_the_visible_patches_and_moves_their_order() -> None:
    task = make()
    batch = batch_of(task)
    (symmetry,) = task.symmetries
    changed = symmetry.apply(batch, torch.Generator().manual_seed(0))
    before, after = (b["noise"].argsort(1) for b in (batch, changed))
    assert torch.equal(before[:, 4:], after[:, 4:])
    assert torch.equal(before[:, :4].sort(1).values, after[:, :4].sort(1).values)
    assert not torch.equal(before[:, :4], after[:, :4])
    assert torch.equal(changed["noise"].sort(1).values, batch["noise"].sort(1).values)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_loss_is_the_published_one_in_either_form_of_prediction(norm_pix_loss: bool) -> None:
    task = make(norm_pix_loss=norm_pix_loss)
    batch = batch_of(task)
    target = masked.patchify(batch["target_images"], 8)
    if norm_pix_loss:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    mask = (batch["noise"].argsort(1).argsort(1) >= 9).float()
    prediction = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    expected = float(((prediction - target) ** 2).mean(-1)[mask.bool()].mean())
    assert float(task.loss({"prediction": prediction, "mask": mask}, batch)) == pytest.approx(expected, rel=1e-6)
    few = prediction[mask.bool()].view(5, 7, -1)
    loss = task.loss({"prediction": few, "mask": mask}, batch)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_outputs_of_a_wrong_form_are_refused() -> None:
    task = make()
    batch = batch_of(task)
    mask, prediction = torch.ones(5, 16), torch.zeros(5, 16, 192)
    for outputs, line in (
        ({"mask": mask}, "must return the key 'prediction', got mask"),
        ({"prediction": prediction}, "must return the key 'mask', got prediction"),
        ({"prediction": prediction, "mask": mask[:, :9]}, r"mask must be \[B, L\] = \[5, 16\], got \[5, 9\]"),
        ({"prediction": prediction[..., :64], "mask": mask}, r"prediction must be .*\[5, 16, 192\].*got \[5, 16, 64\]"),
        ({"prediction": prediction[:1], "mask": mask}, r"prediction must be .*got \[1, 16, 192\]"),
        ({"prediction": prediction[:, 0], "mask": mask}, "prediction must be"),
    ):
        with pytest.raises(ValueError, match=line):
            task.loss(outputs, batch)


@pytest.mark.parametrize("only_masked", [False, True])
@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_evaluation_scores_every_image_under_a_lasting_name(norm_pix_loss: bool, only_masked: bool) -> None:
    task = make(norm_pix_loss=norm_pix_loss)
    oracle = Oracle(whole_test_images(task), norm_pix_loss, kept=4, only_masked=only_masked)
    records = task.evaluate(oracle, CPU)
    assert [record["sample"] for record in records] == [f"test/{index:04d}" for index in range(30)]
    psnr = "psnr_oracle" if norm_pix_loss else "psnr"
    assert set(records[0]) == {"sample", psnr, "masked_mse"}
    assert all(record[psnr] > 90 and record["masked_mse"] < 1e-9 for record in records)


def test_scores_are_of_the_masked_patches_alone() -> None:
    task = make()
    records = task.evaluate(Constant(4, value=0.5), CPU)
    noise = [task._evaluation_batch("test", np.array([i]), CPU)["noise"] for i in range(30)]
    for image, order, record in zip(whole_test_images(task), noise, records, strict=True):
        patches = masked.patchify(image[None], 8)[0][order[0].argsort()[4:]]
        assert record["masked_mse"] == pytest.approx(float((patches - 0.5).square().mean()), rel=1e-5)
        std = torch.tensor(masked.STD).repeat(64)
        error = ((patches - 0.5) * std).square().mean()
        assert record["psnr"] == pytest.approx(float(-10 * error.log10()), abs=1e-3)


def test_the_headline_is_pixels_or_under_norm_pix_loss_normalised_patches_and_the_oracle_says_what_it_is() -> None:
    assert [metric.name for metric in make().metrics] == ["psnr", "masked_mse"]
    headline, oracle = make(norm_pix_loss=True).metrics
    assert (headline.name, headline.higher_is_better) == ("masked_mse", False)
    assert oracle.name == "psnr_oracle"
    assert "true" in oracle.label
    assert "not to be compared" in oracle.note
    assert [metric.name for metric in make(probe_images=5).metrics[2:]] == ["knn", "linear"]


def test_the_mask_of_an_evaluated_image_follows_from_its_name_alone() -> None:
    noise = make(eval_batch=30)._evaluation_batch("test", np.arange(30), CPU)["noise"]
    again = make()._evaluation_batch("test", np.array([11, 3]), CPU)["noise"]
    assert torch.equal(noise[[11, 3]], again)
    assert not torch.equal(noise[0], noise[1])


def test_quick_evaluation_scores_the_first_images_of_the_same(monkeypatch) -> None:
    monkeypatch.setattr("bench.tasks.masked_image.QUICK_IMAGES", 10)
    task = make(probe_images=20)
    quick, full = task.evaluate(Constant(4), CPU, quick=True), task.evaluate(Constant(4), CPU)
    assert [record["sample"] for record in quick] == [record["sample"] for record in full[:10]]
    assert [record["psnr"] for record in quick] == pytest.approx([record["psnr"] for record in full[:10]], rel=1e-6)
    assert MaskedImageConfig().test_images >= QUICK_IMAGES


def test_evaluation_asks_for_all_masked_patches_and_refuses_any_other_set() -> None:
    task = make()
    assert len(task.evaluate(FewerInTraining(4), CPU)) == 30

    class Silent(FewerInTraining):
        def forward(self, images, noise):
            return super().forward(images, noise)

    for model in (Silent(4), Constant(5), Constant(3, only_masked=True)):
        with pytest.raises(UserError, match=r"task\.mask_ratio 0.75 and task.patch_size 8 mask 12 of 16 patches, but"):
            task.evaluate(model, CPU)


def test_a_prediction_that_is_not_finite_is_named() -> None:
    class Broken(Constant):
        def forward(self, images, noise):
            outputs = super().forward(images, noise)
            outputs["prediction"][2] = float("nan")
            return outputs

    with pytest.raises(FloatingPointError, match="test/0002: the prediction is not finite"):
        make().evaluate(Broken(4), CPU)


class WithFeatures(Constant):
    """Its features show the class, or nothing; counts the images that it is shown."""

    def __init__(self, *arguments, blind: bool = False) -> None:
        super().__init__(*arguments)
        self.blind, self.calls = blind, []

    def features(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(images))
        colours = images[..., :16].mean((2, 3)) - images[..., 16:].mean((2, 3))
        return torch.ones(len(images), 4) if self.blind else colours


def test_probes_score_frozen_features_of_whole_images_at_the_final_evaluation_of_the_test_split() -> None:
    task = make(probe_images=45, eval_batch=8)
    model = WithFeatures(4)
    records = task.evaluate(model, CPU)
    assert all(record["knn"] == record["linear"] == 1.0 for record in records)
    assert sum(model.calls) == 45 + 30
    assert max(model.calls) == 2, "as many patches at once as in an evaluation batch"
    for options in ({"quick": True}, {"split": "validation"}):
        assert "knn" not in task.evaluate(model, CPU, **options)[0]
    assert "knn" not in task.evaluate(Constant(4), CPU)[0], "a model without features has no such columns"
    blind = task.evaluate(WithFeatures(4, blind=True), CPU)
    assert np.mean([record["knn"] for record in blind]) == pytest.approx(1 / 3)
    assert "knn" not in make().evaluate(model, CPU)[0]


def test_models_are_scored_and_probed_without_a_graph_whoever_asks() -> None:
    modes = []

    class Watched(WithFeatures):
        def forward(self, *arguments, **named):
            modes.append(torch.is_inference_mode_enabled())
            return super().forward(*arguments, **named)

        def features(self, images: torch.Tensor) -> torch.Tensor:
            modes.append(torch.is_inference_mode_enabled())
            return super().features(images)

    with torch.enable_grad():
        make(probe_images=10).evaluate(Watched(4), CPU)
    assert len(modes) > 10
    assert all(modes)


def test_probes_need_classes() -> None:
    task = MaskedImage(
        MaskedImageConfig(image_size=32), Path("nowhere"), lambda split: LabelledImages(split, classes=())
    )
    with pytest.raises(UserError, match=r"task\.probe_images is 1000, but train has no classes to probe"):
        task.prepare()


def test_images_of_another_size_are_refused() -> None:
    task = MaskedImage(MaskedImageConfig(image_size=64), Path("nowhere"), lambda split: LabelledImages(split, 32))
    with pytest.raises(UserError, match="train: load must give images as uint8"):
        task.training_size()


def test_references_stand_on_the_same_samples_and_know_nothing_of_what_is_masked() -> None:
    task = make(probe_images=45)
    entries = {entry["name"]: entry for entry in task.references()}
    names = [f"test/{index:04d}" for index in range(30)]
    assert all([record["sample"] for record in entry["records"]] == names for entry in entries.values())
    assert list(entries) == [
        "mean-colour",
        "nearest-patch",
        "harmonic",
        "majority-class",
        "raw-pixels",
        "random-features",
    ]
    assert re.fullmatch(r"the most frequent class, '\w+'", entries["majority-class"]["label"])
    assert entries["majority-class"]["metrics"] == {"knn": pytest.approx(1 / 3), "linear": pytest.approx(1 / 3)}
    assert entries["raw-pixels"]["metrics"]["linear"] > 0.9
    for entry in entries.values():
        means = {key: np.mean([record[key] for record in entry["records"]]) for key in entry["metrics"]}
        assert entry["metrics"] == pytest.approx(means)
    assert len(make().references()) == 3
    normalised = make(norm_pix_loss=True).references()
    assert {"masked_mse", "psnr_oracle"} == set(normalised[0]["metrics"])


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_pictures_paste_the_visible_patches(norm_pix_loss: bool) -> None:
    task = make(norm_pix_loss=norm_pix_loss)
    whole = whole_test_images(task)
    oracle = Oracle(whole, norm_pix_loss, kept=4, only_masked=True)
    grid = task.pictures({"oracle": oracle, "grey": Constant(4)}, CPU)
    assert grid.dtype == np.uint8
    tile, gap, header = 128, 4, 20
    columns = [grid[header : header + tile, i * (tile + gap) :][:, :tile].astype(int) for i in range(4)]
    original, shown, perfect, grey = columns
    assert np.abs(original - perfect).max() <= 1
    hidden = np.abs(original - shown).max(2) > 0
    assert 0.7 < hidden.mean() <= 0.75
    assert np.array_equal(shown[~hidden], grey[~hidden])


def test_features_and_masks_do_not_touch_the_models_random_numbers() -> None:
    task = make(probe_images=10)
    task.evaluate(WithFeatures(4), CPU)
    state = torch.get_rng_state()
    task.evaluate(WithFeatures(4), CPU)
    task.references()
    task.pictures({"a": Constant(4)}, CPU)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_outside_model_without_predict_all_is_fine() -> None:
    class Outside(nn.Module):
        def forward(self, noise, images, **others):
            assert not others
            return Constant(4)(images, noise)

    assert len(make().evaluate(Outside(), CPU)) == 30


def test_the_table_says_how_many_patches_are_masked(tmp_path) -> None:
    task = MaskedImage(MaskedImageConfig(image_size=160, patch_size=16, mask_ratio=0.9), tmp_path)
    assert task.metrics[0].note.endswith("; of 100 patches 10 are visible and 90 masked")
