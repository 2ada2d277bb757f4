"""The task: options, batches that say what they should, loss, scores that can be recomputed, references, pictures."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.aggregates import summarise
from bench.data.hydrology.spec import HydrologySpec
from bench.errors import UserError
from bench.registry import make_config
from bench.tasks.hydrology import PRESETS, QUICK_WINDOWS, Hydrology, HydrologyConfig
from bench.tasks.hydrology_batches import gather
from bench.tasks.hydrology_evaluation import metrics_of
from tests.data.hydrology_files import days, write_camels_gb, write_camels_us, write_caravan, write_netcdf
from tests.tasks.hydrology_data import CATCHMENTS, SEA_COLUMNS, WIDTH, small_region

CPU = torch.device("cpu")
PATCHES = 16
"""Of 20 the 4 in the first column are sea."""
SMALL = {"patch_cells": 4, "days": 8, "test_years": 1, "held_out_catchments": 2}


class Guess(nn.Module):
    """Predicts one value everywhere."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, image_predicted=None, series_predicted=None, image_values=None, **others):
        found = {}
        if image_predicted is not None:
            found["image_prediction"] = torch.full((*image_predicted.shape, image_values.shape[-1]), self.value)
        if series_predicted is not None:
            found["series_prediction"] = torch.full(series_predicted.shape, self.value)
        return found


class Third(nn.Module):
    """Predicts the first third of the tokens in training, all if it is asked to."""

    def forward(self, predict_all=False, **inputs):
        whole = Guess()(**inputs)
        return whole if predict_all else {name: value[:, :, : value.shape[2] // 3] for name, value in whole.items()}


@pytest.fixture
def make_task(tmp_path: Path):
    def make(data=None, **options) -> Hydrology:
        region = small_region() if data is None else data
        return Hydrology(HydrologyConfig(**{**SMALL, **options}), tmp_path, lambda: region)

    return make


def some(task: Hydrology, count: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, task.training_size(), count), generator.integers(0, 2**64, count, dtype=np.uint64)


# ------------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"data": "era5"}, "task.data must be one of generated, camels-us, camels-gb, caravan, generic, got 'era5'"),
        ({"data_path": "there"}, "task.data_path is 'there', but task.data: generated makes its own"),
        (
            {"data": "camels-us", "data_path": "a"},
            "task.images is ['rain', 'soil_moisture', 'temperature'], but task.grids",
        ),
        ({"data": "camels-us", "images": (), "grids_path": "a.nc"}, "task.images is [], but task.grids_path is 'a.nc'"),
        ({"forcing": "maurer"}, "task.forcing: only camels-us has it, task.data is generated"),
        ({"caravan_source": "camels"}, "task.caravan_source: only caravan has it"),
        ({"days": 0}, "task.days must be a whole number of at least 1, got 0"),
        ({"days": 3}, "task.days: of a window of 3 days a mask ratio of 0.75 keeps none"),
        ({"window_jitter": 0.8}, "task.days: of a window of 3 days a mask ratio of 0.75 keeps none"),
        ({"mask_ratio": 1.0}, "task.mask_ratio must be between 0 and 1, got 1.0"),
        ({"missing_modality": 1}, "task.missing_modality must be at least 0 and less than 1, got 1"),
        (
            {"missing_modality": 0.1, "images": (), "series": ("flow",)},
            "task.missing_modality must be 0: there is only one",
        ),
        ({"image_mask": "grid"}, "task.image_mask must be one of auto, per-day, tube, block, got 'grid'"),
        ({"image_mask": ("tube", "tube")}, "task.image_mask must have 3 entries, one for each of task.images, got 2"),
        ({"series_mask": "tube"}, "task.series_mask must be one of days, block, got 'tube'"),
        ({"images": ("rain", "rain")}, "task.images must name nothing twice"),
        ({"images": ("flow",)}, "task.series must not have a name of task.images, got flow"),
        ({"images": (), "series": ()}, "task.images and task.series are both empty"),
        ({"series": ()}, "task.series is empty, so there are no catchments: set task.statics: []"),
        ({"unified_masks": 1}, "task.unified_masks must be true or false, got 1"),
        ({"held_out_catchments": -1}, "task.held_out_catchments must be a whole number of at least 0, got -1"),
        ({"data": "camels-us", "images": (), "data_path": ""}, "task.data_path is empty"),
        (
            {"data": "generic", "images": (), "data_path": "a"},
            "task.series is not set: with task.data: generic name the",
        ),
        ({"test_years": 0}, "task.test_years must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: dict, line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        HydrologyConfig(**options)


def test_presets_are_legal_and_options_come_from_a_comparison() -> None:
    assert PRESETS.keys() == {"tiny", "small", "paper"}
    options = {"region": {"years": 12}, "image_mask": ["tube", "per-day", "block"], "series": ["flow"]}
    config = make_config(Hydrology, options, "task")
    assert config.region == HydrologySpec(years=12)
    assert config.image_masks == ("tube", "per-day", "block")
    # A resumed comparison reads back what it wrote.
    assert make_config(Hydrology, dataclasses.asdict(config), "task") == config


def test_architectures_are_told_what_the_data_has() -> None:
    shared = HydrologyConfig().shared_options()
    assert shared == {"image_modalities": 3, "patch_pixels": 64, "series_modalities": 2, "static_attributes": 11}
    gauges = HydrologyConfig(data="camels-us", images=(), data_path="a").shared_options()
    assert (gauges["image_modalities"], gauges["series_modalities"], gauges["static_attributes"]) == (0, 5, 11)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"images": ("snow",)}, "task.images: the data have no snow; they have rain, soil_moisture, temperature"),
        ({"series": ("level",)}, "task.series: the data have no level"),
        ({"statics": ("colour",)}, "task.statics: the data have no colour"),
        ({"held_out_catchments": 6}, "task.held_out_catchments must be less than the 6 catchments, got 6"),
        ({"test_years": 3}, "task.days: a window of 8 days does not fit into the 0 days of train"),
        ({"patch_cells": 8}, "keeps none; make patches smaller"),
    ],
)
def test_data_that_do_not_fit_the_options_are_refused(make_task, options: dict, line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        make_task(**options).training_size()


def test_files_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    gauges = {"data": "camels-gb", "images": ()}
    with pytest.raises(UserError, match=r"task\.data_path is not set: give the folder of camels-gb"):
        Hydrology(HydrologyConfig(**gauges), tmp_path).prepare()
    with pytest.raises(UserError, match="is no folder"):
        Hydrology(HydrologyConfig(**gauges, data_path=str(tmp_path / "no")), tmp_path).prepare()


# ------------------------------------------------------------------------------------------------------------ batches


def test_a_batch_has_the_fields_and_counts_that_are_promised(make_task) -> None:
    task = make_task()
    batch = task.collate(*some(task))
    kept = 8 * (PATCHES // 4)
    shapes = {
        "image_values": (6, 3, kept, 16),
        "image_visible": (6, 3, kept),
        "image_predicted": (6, 3, 8 * PATCHES - kept),
        "image_targets": (6, 3, 8 * PATCHES - kept, 16),
        "image_target_mask": (6, 3, 8 * PATCHES - kept, 16),
        "series_values": (6, 2, 2),
        "series_visible": (6, 2, 2),
        "series_predicted": (6, 2, 6),
        "series_targets": (6, 2, 6),
        "series_target_mask": (6, 2, 6),
        "statics": (6, 11),
        "patch_positions": (6, PATCHES, 2),
        "day_of_year": (6, 8),
    }
    assert {name: tuple(value.shape) for name, value in batch.items()} == shapes
    assert {*task.input_fields, *task.target_fields} == shapes.keys()
    kinds = {torch.int64: ("visible", "predicted"), torch.bool: ("mask",)}
    for name, value in batch.items():
        expected = next((kind for kind, ends in kinds.items() if name.endswith(ends)), torch.float32)
        assert value.dtype == expected, name


@pytest.mark.parametrize(
    "options", [{"anomalies": False}, {"anomalies": False, "window_jitter": 0.25, "missing_modality": 0.3}]
)
def test_values_and_targets_are_those_of_the_region_at_their_tokens(make_task, options) -> None:
    data, task = small_region(), make_task(**options)
    indices, draws = some(task, 8)
    batch, region = task.collate(indices, draws), task._opened()
    catchments, starts = (part[indices] for part in task._training_pairs())
    for sample in range(8):
        for place, scale in enumerate(region.scales[:3]):
            for kind, content in (("visible", "values"), ("predicted", "targets")):
                for at, number in enumerate(batch[f"image_{kind}"][sample, place].tolist()[:40]):
                    got = batch[f"image_{content}"][sample, place, at]
                    if number < 0:
                        assert not got.any()
                        continue
                    day, patch = divmod(number, PATCHES)
                    row, column = (4 * int(part) for part in batch["patch_positions"][sample, patch])
                    cells = slice(row, row + 4), slice(column, column + 4)
                    values = data.grids.values[place, starts[sample] + day][cells].ravel()
                    land = data.grids.land[cells].ravel()
                    expected = np.where(land, scale.normalise(values), 0)
                    np.testing.assert_allclose(got, expected, atol=1e-5)
                    if kind == "predicted":
                        np.testing.assert_array_equal(batch["image_target_mask"][sample, place, at], land)
        for place, scale in enumerate(region.scales[3:]):
            for kind, content in (("visible", "values"), ("predicted", "targets")):
                days = batch[f"series_{kind}"][sample, place].numpy()
                own = data.gauges.values[catchments[sample], place, starts[sample] + days[days >= 0]]
                got = batch[f"series_{content}"][sample, place].numpy()[days >= 0]
                np.testing.assert_allclose(got, scale.normalise(own), atol=1e-5)
    first = (data.dates[starts] - data.dates[starts].astype("datetime64[Y]").astype("datetime64[D]")).astype(int)
    assert batch["day_of_year"][:, 0].tolist() == first.tolist()


@pytest.mark.parametrize("options", [{}, {"window_jitter": 0.25, "missing_modality": 0.3}])
def test_a_sample_is_the_same_in_every_batch(make_task, options) -> None:
    task = make_task(**options)
    indices, draws = some(task)
    together = task.collate(indices, draws)
    for sample in range(len(indices)):
        alone = task.collate(indices[sample : sample + 1], draws[sample : sample + 1])
        for name, value in alone.items():
            cut = together[name][sample][tuple(slice(size) for size in value.shape[1:])]
            torch.testing.assert_close(value[0], cut)


def test_windows_of_training_stay_in_training_years_and_catchments(make_task) -> None:
    task = make_task(window_jitter=0.25)
    catchments, starts = task._training_pairs()
    dates = small_region().dates
    assert dates[starts.max() + task.config.longest - 1] == np.datetime64("2002-12-31")
    assert len(set(catchments.tolist())) == CATCHMENTS - 2
    assert not task._opened().held_out[catchments].any()
    assert task.training_size() == (CATCHMENTS - 2) * (730 - 10 + 1)


def test_ragged_samples_say_which_tokens_are_there(make_task) -> None:
    task = make_task(window_jitter=0.25, missing_modality=0.3)
    batch = task.collate(*some(task, 64))
    assert {"image_visible_mask", "series_predicted_mask"} <= set(task.input_fields)
    for name in ("image_visible", "image_predicted", "series_visible", "series_predicted"):
        torch.testing.assert_close(batch[f"{name}_mask"], batch[name] >= 0)
    counts = batch["image_visible_mask"].sum(dim=-1)
    assert set(counts.flatten().tolist()) == {0, *(4 * days for days in range(6, 11))}
    there = torch.cat([counts, batch["series_visible_mask"].sum(dim=-1)], dim=1) > 0
    assert there.any(dim=1).all()
    assert 0.2 < (~there).float().mean() < 0.4
    assert not batch["image_target_mask"][~batch["image_predicted_mask"]].any()


def test_what_was_not_observed_is_neither_visible_nor_a_target(tmp_path) -> None:
    data = small_region()
    generator = np.random.default_rng(1)
    data.gauges.values[generator.random(data.gauges.values.shape) < 0.3] = np.nan
    gone = generator.random(data.grids.values.shape[:2]) < 0.2
    data.grids.values[gone] = np.nan
    data.grids.values[:, :, 2, 9] = np.nan
    options = {"data": "camels-gb", "grids_path": "a.nc", "series": ("evaporation", "flow"), "statics": ("area",)}
    task = Hydrology(HydrologyConfig(**SMALL, **options), tmp_path, lambda: data)
    indices, draws = some(task, 16)
    batch = task.collate(indices, draws)
    catchments, starts = (part[indices] for part in task._training_pairs())
    for sample, (catchment, start) in enumerate(zip(catchments, starts, strict=True)):
        for place in range(2):
            days = torch.cat([batch["series_visible"][sample, place], batch["series_predicted"][sample, place]])
            observed = np.isfinite(data.gauges.values[catchment, place, start : start + 8])
            assert sorted(days[days >= 0].tolist()) == np.flatnonzero(observed).tolist()
        for place in range(3):
            number = torch.cat([batch["image_visible"][sample, place], batch["image_predicted"][sample, place]])
            days = set((number[number >= 0] // PATCHES).tolist())
            assert days == set(np.flatnonzero(~gone[place, start : start + 8]).tolist())
    # A pixel that is missing in a patch that was observed is 0 on the way in and no target.
    patch = int(np.flatnonzero((task._opened().patch_positions == [0, 2]).all(axis=1))[0])
    seen, hidden = (batch[f"image_{kind}"] % PATCHES == patch for kind in ("visible", "predicted"))
    real = batch["image_visible_mask"], batch["image_predicted_mask"]
    assert (batch["image_values"][..., 9][seen & real[0]] == 0).all()
    assert not batch["image_target_mask"][..., 9][hidden & real[1]].any()
    assert batch["image_target_mask"][..., 8][hidden & real[1]].all()
    records = task.evaluate(Guess(), CPU)
    assert all(np.isfinite(value) for record in records for value in record.values() if not isinstance(value, str))


@pytest.mark.parametrize("options", [{"images": ()}, {"series": (), "statics": (), "held_out_catchments": 0}])
def test_one_kind_of_modality_alone(make_task, options) -> None:
    task = make_task(**options)
    lacking = "image" if "images" in options else "series"
    batch = task.collate(*some(task))
    assert not [name for name in (*batch, *task.input_fields, *task.target_fields) if name.startswith(lacking)]
    assert batch.keys() == {*task.input_fields, *task.target_fields}
    assert np.isfinite(float(task.loss(Guess()(**batch), batch)))
    records = task.evaluate(Guess(), CPU)
    assert "skill" in records[0]
    assert any("catchment" in record["sample"] for record in records) == (lacking == "image")
    assert (task.pictures({"guess": Guess()}, CPU) is None) == (lacking == "image")
    assert task.synthetic(2, 0).keys() == batch.keys() == task.worst_case(2).keys()


# --------------------------------------------------------------------------------------------------------------- loss


def test_the_loss_is_the_sum_of_the_modalities_mean_errors_over_their_targets(make_task) -> None:
    task = make_task(window_jitter=0.25, missing_modality=0.3)
    batch = task.collate(*some(task, 12))
    loss = task.loss(Guess(0.5)(**batch), batch)
    expected = 0.0
    for role, count in (("image", 3), ("series", 2)):
        for place in range(count):
            mask = batch[f"{role}_target_mask"][:, place]
            expected += float((batch[f"{role}_targets"][:, place][mask] - 0.5).square().mean())
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_sea_and_padding_do_not_reach_the_loss(make_task) -> None:
    task = make_task(missing_modality=0.3)
    batch = task.collate(*some(task))
    outputs = Guess(0.5)(**batch)
    spoiled = {
        name: torch.where(batch[name.replace("prediction", "target_mask")], value, torch.tensor(1e6))
        for name, value in outputs.items()
    }
    assert task.loss(spoiled, batch) == task.loss(outputs, batch)


def test_a_batch_without_targets_has_no_loss_and_finite_gradients(make_task) -> None:
    task = make_task(missing_modality=0.3)
    batch = task.edge_cases(2)["all visible"]
    prediction = {name: value.requires_grad_() for name, value in Guess(0.5)(**batch).items()}
    loss = task.loss(prediction, batch)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not prediction["image_prediction"].grad.any()


def test_training_may_predict_the_first_tokens_alone_but_evaluation_wants_all(make_task) -> None:
    task = make_task()
    batch = task.collate(*some(task))
    outputs = Third()(**batch)
    few = outputs["image_prediction"].shape[2]
    mask = batch["image_target_mask"][:, :, :few]
    target = batch["image_targets"][:, :, :few]
    images = sum(float(target[:, place][mask[:, place]].square().mean()) for place in range(3))
    series = float(batch["series_targets"][:, :, :2].square().mean(dim=(0, 2)).sum())
    assert float(task.loss(outputs, batch)) == pytest.approx(images + series, rel=1e-5)
    assert task.evaluate(Third(), CPU) == task.evaluate(Guess(), CPU)

    class Never(nn.Module):
        def forward(self, **inputs):
            return Third()(**inputs)

    with pytest.raises(ValueError, match=r"image_prediction must be \[B, K, M, P\] = .* all predicted tokens"):
        task.evaluate(Never(), CPU)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda outputs: {}, "forward must return the key 'image_prediction', got nothing"),
        (
            lambda outputs: {**outputs, "image_prediction": outputs["image_prediction"][..., :3]},
            "image_prediction must be",
        ),
        (
            lambda outputs: {**outputs, "series_prediction": outputs["series_prediction"][0]},
            "series_prediction must be",
        ),
    ],
)
def test_outputs_of_another_form_are_refused(make_task, spoil, line) -> None:
    task = make_task()
    batch = task.collate(*some(task))
    with pytest.raises(ValueError, match=re.escape(line)):
        task.loss(spoil(Guess()(**batch)), batch)


# --------------------------------------------------------------------------------------------------------- evaluation


def test_records_are_windows_and_catchments_and_the_same_for_every_model(make_task) -> None:
    task = make_task()
    records, others = task.evaluate(Guess(), CPU), task.evaluate(Guess(1.0), CPU)
    names = [record["sample"] for record in records]
    assert names == [record["sample"] for record in others]
    assert names == [f"test/window-{n:04d}" for n in range(365 // 8)] + [f"test/catchment-g{n}" for n in range(6)]
    known = {metric.name for metric in task.metrics}
    assert {key for record in records for key in record} - {"sample"} == known
    held_out = task._opened().held_out
    for place, record in enumerate(records[-6:]):
        assert all(key.endswith("_held_out") == bool(held_out[place]) for key in record if key != "sample")
    assert {metric.aggregate for metric in task.metrics if "nse" in metric.name} == {"median"}


def test_kge_stands_with_its_components_as_they_are(make_task) -> None:
    task = make_task()
    labels = {metric.name: (metric.label, metric.higher_is_better) for metric in task.metrics}
    assert labels["kge_alpha_flow"] == ("flow, KGE α", None)
    assert labels["kge_beta_flow_held_out"] == ("flow, KGE β", None)
    assert labels["kge_r_flow"] == ("flow, KGE r", True)
    for record in task.evaluate(Guess(0.5), CPU)[-6:]:
        parts = {key.removesuffix("_held_out"): value for key, value in record.items() if key.startswith("kge")}
        ideal = sum((parts[f"kge_{name}_flow"] - 1) ** 2 for name in ("r", "alpha", "beta"))
        assert parts["kge_flow"] == pytest.approx(1 - ideal**0.5)


def test_headings_say_the_units_of_the_data(make_task) -> None:
    labels = [metric.label for metric in make_task().metrics]
    for label in ("rain, MSE ((mm/d)²)", "soil_moisture, MSE (dimensionless)", "temperature, MSE ((°C)²)"):
        assert label in labels
    bare = HydrologyConfig(data="generic", data_path="a", images=(), series=("level",), held_out_catchments=0)
    assert "level, MSE (data units, squared)" in [metric.label for metric in metrics_of(bare, {})]


def test_scores_can_be_recomputed_by_hand(make_task) -> None:
    data, task = small_region(), make_task(eval_batch=5, anomalies=False)
    records = {record["sample"]: record for record in task.evaluate(Guess(), CPU)}
    region = task._opened()
    collected, window = {name: [] for name in task.config.modalities}, 3
    for chosen in task._chosen("test", quick=False):
        batch = gather(task.config, region, chosen, longest=8)
        for sample in np.flatnonzero(chosen.starts == region.windows("test", 8)[window]):
            if region.held_out[chosen.catchments[sample]]:
                continue
            for place, name in enumerate(task.config.modalities):
                role, own = ("image", place) if place < 3 else ("series", place - 3)
                mask = batch[f"{role}_target_mask"][sample, own]
                collected[name].append(batch[f"{role}_targets"][sample, own][mask])
    best = task._best_reference("test")
    record = records[f"test/window-{window:04d}"]
    for place, name in enumerate(task.config.modalities):
        normalised = torch.cat(collected[name])
        assert record[f"mse_{name}"] == pytest.approx(float(normalised.square().mean()), rel=1e-4)
        assert record[f"skill_{name}"] == pytest.approx(1 - record[f"mse_{name}"] / best[name])
        scale = region.scales[place]
        physical = scale.physical(normalised.numpy()) - scale.physical(np.zeros(1, np.float32))
        assert record[f"mse_physical_{name}"] == pytest.approx(float(np.square(physical).mean()), rel=1e-3)
    assert record["skill"] == pytest.approx(np.mean([record[f"skill_{name}"] for name in task.config.modalities]))
    # A constant hydrograph misses the mean of the masked days by the bias alone: NSE = -bias^2 / variance.
    catchment = int(np.flatnonzero(~region.held_out)[0])
    flow = data.gauges.values[catchment, 1, region.spans["test"].start :]
    constant = float(region.scales[4].physical(np.zeros(1, np.float32))[0])
    nse = records[f"test/catchment-{region.ids[catchment]}"]["nse_flow"]
    assert nse == pytest.approx(-((constant - flow.mean()) ** 2) / flow.var(), abs=0.25)
    assert records[f"test/catchment-{region.ids[catchment]}"]["kge_r_flow"] == 0


def test_quick_scores_are_those_of_the_full_evaluation(make_task) -> None:
    task = make_task()
    quick, full = task.evaluate(Guess(0.2), CPU, quick=True), task.evaluate(Guess(0.2), CPU)
    assert len(quick) == QUICK_WINDOWS
    by_name = {record["sample"]: record for record in full}
    for record in quick:
        assert record == {key: pytest.approx(value) for key, value in by_name[record["sample"]].items()}


def test_scores_do_not_depend_on_the_batch(make_task) -> None:
    first, second = (make_task(eval_batch=size).evaluate(Guess(0.2), CPU) for size in (3, 64))
    for one, other in zip(first, second, strict=True):
        assert one == {key: value if key == "sample" else pytest.approx(value) for key, value in other.items()}


def test_a_prediction_that_is_not_finite_is_named(make_task) -> None:
    task = make_task()
    task.references("test")
    with pytest.raises(FloatingPointError, match=r"test/window-0000, catchment g0: the image prediction is not finite"):
        task.evaluate(Guess(float("nan")), CPU)
    assert np.isfinite(summarise(task.metrics, task.evaluate(Guess(1e4), CPU))["mse_physical_flow"])


def test_anomalies_are_scored_like_the_values_that_they_stand_for(make_task) -> None:
    class Recall(nn.Module):
        """Is 0.3 above the truth everywhere."""

        def __init__(self, truth) -> None:
            super().__init__()
            self.truth = iter(truth)

        def forward(self, **inputs):
            batch = next(self.truth)
            return {f"{role}_prediction": batch[f"{role}_targets"] + 0.3 for role in ("image", "series")}

    found = []
    for anomalies in (True, False):
        task = make_task(anomalies=anomalies)
        region = task._opened()
        truth = [gather(task.config, region, chosen, longest=8) for chosen in task._chosen("test", quick=False)]
        found.append(task.evaluate(Recall(truth), CPU))
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"sample"}:
            assert one[key] == pytest.approx(other[key], rel=1e-3, abs=1e-3)


def test_the_references_are_the_same_whether_or_not_anomalies_are_learned(make_task) -> None:
    with_season, without = (
        {row["name"]: row["metrics"] for row in make_task(anomalies=a).references("test")} for a in (False, True)
    )
    assert with_season.keys() == without.keys()
    for name, metrics in with_season.items():
        assert without[name] == pytest.approx(metrics, rel=1e-3, abs=1e-3)


def test_zero_anomalies_are_the_climatology(make_task) -> None:
    class Zero(nn.Module):
        def forward(self, **inputs):
            fields = {"image": (inputs["image_values"].shape[-1],), "series": ()}
            return {
                f"{role}_prediction": torch.zeros(*inputs[f"{role}_predicted"].shape, *pixels)
                for role, pixels in fields.items()
            }

    task = make_task(anomalies=True)
    climatology = next(row for row in task.references("test") if row["name"] == "climatology")
    records = task.evaluate(Zero(), CPU)
    assert [record["sample"] for record in records] == [record["sample"] for record in climatology["records"]]
    for one, other in zip(records, climatology["records"], strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"sample"}:
            assert one[key] == pytest.approx(other[key], rel=1e-3, abs=1e-3)


def test_an_unknown_split_is_refused(make_task) -> None:
    with pytest.raises(UserError, match="split ood is unknown; known: train, validation, test"):
        make_task().evaluate(Guess(), CPU, split="ood")


def test_validation_is_another_year_without_held_out_catchments(make_task) -> None:
    records = make_task().evaluate(Guess(), CPU, split="validation")
    assert records[0]["sample"] == "validation/window-0000"
    assert not [key for record in records for key in record if key.endswith("_held_out")]


# --------------------------------------------------------------------------------------------------------- references


def test_the_best_reference_of_every_modality_has_skill_zero(make_task) -> None:
    task = make_task()
    rows = task.references("test")
    assert [row["name"] for row in rows] == ["climatology", "nearest", "nearest-anomaly", "time-interpolation"]
    names = [record["sample"] for record in task.evaluate(Guess(), CPU)]
    for row in rows:
        assert [record["sample"] for record in row["records"]] == names
        assert row["metrics"] == summarise(task.metrics, row["records"])
    for name in task.config.modalities:
        assert max(row["metrics"][f"skill_{name}"] for row in rows) == pytest.approx(0, abs=1e-9)
    again = make_task()
    assert again.references("test") == rows


def test_masks_per_day_make_soil_moisture_trivial_and_the_default_does_not(make_task) -> None:
    easy, hard = make_task(image_mask="per-day", days=16), make_task(days=16)
    assert hard.config.image_masks == ("per-day", "tube", "tube")
    trivial, honest = easy._best_reference("test")["soil_moisture"], hard._best_reference("test")["soil_moisture"]
    assert trivial < 0.1
    assert honest > 5 * trivial
    assert easy._best_reference("test")["rain"] == hard._best_reference("test")["rain"]


# ------------------------------------------------------------------------------------------- probes, checks, pictures


def test_symmetries_change_the_batch_and_not_what_it_says(make_task) -> None:
    task = make_task(missing_modality=0.3, window_jitter=0.25)
    batch = task.synthetic(4, 0)
    order, padding = (symmetry.apply(batch, torch.Generator().manual_seed(0)) for symmetry in task.symmetries)
    assert not torch.equal(order["image_visible"], batch["image_visible"])
    for role in ("image", "series"):
        place = (
            batch[f"{role}_visible"].argsort(dim=-1, stable=True),
            order[f"{role}_visible"].argsort(dim=-1, stable=True),
        )
        for name in ("visible", "visible_mask"):
            first, second = (b[f"{role}_{name}"].gather(2, own) for b, own in zip((batch, order), place, strict=True))
            torch.testing.assert_close(first, second)
        values = batch[f"{role}_values"].flatten(3) if role == "image" else batch[f"{role}_values"][..., None]
        others = order[f"{role}_values"].flatten(3) if role == "image" else order[f"{role}_values"][..., None]
        taken = [
            v.gather(2, own[..., None].expand(*own.shape, v.shape[-1]))
            for v, own in zip((values, others), place, strict=True)
        ]
        torch.testing.assert_close(*taken)
        mask = batch[f"{role}_visible_mask"]
        torch.testing.assert_close(padding[f"{role}_values"][mask], batch[f"{role}_values"][mask])
        assert not torch.equal(padding[f"{role}_values"], batch[f"{role}_values"])
    assert [symmetry.name for symmetry in make_task().symmetries] == ["order of the visible tokens"]


@pytest.mark.parametrize("options", [{}, {"missing_modality": 0.3, "window_jitter": 0.25}])
def test_made_up_batches_are_like_those_of_training(make_task, options) -> None:
    task = make_task(**options)
    task.prepare()
    real, made = task.collate(*some(task, 64)), task.synthetic(64, 1)
    assert {name: value.dtype for name, value in made.items()} == {name: value.dtype for name, value in real.items()}
    worst = task.worst_case(64)
    for name, value in real.items():
        assert all(small <= large for small, large in zip(value.shape, worst[name].shape, strict=True)), name
        assert made[name].shape == worst[name].shape
    if task.config.ragged:
        assert worst["image_visible_mask"].all()
        assert not made["image_visible_mask"][0, 0].any()
        assert made["image_visible_mask"][0, 1].sum() == 6 * 4
    for name, batch in task.edge_cases(3).items():
        for field, value in batch.items():
            assert len(value) == 3
            assert value.isfinite().all(), (name, field)
        assert np.isfinite(float(task.loss(Guess()(**batch), batch)))


def test_a_process_that_reads_no_data_makes_batches_of_the_right_shapes(make_task, tmp_path) -> None:
    make_task().training_size()

    def never():
        raise AssertionError("the data were read")

    probe = Hydrology(HydrologyConfig(**SMALL), tmp_path, never)
    assert probe.worst_case(2)["patch_positions"].shape == (2, PATCHES, 2)
    elsewhere = Hydrology(HydrologyConfig(**SMALL), tmp_path / "empty", never)
    assert elsewhere.worst_case(2)["patch_positions"].shape == (2, 80, 2), (
        "all patches of the grid, as the most there can be"
    )


def test_pictures_show_truth_hidden_patches_and_models(make_task) -> None:
    task = make_task()
    grid = task.pictures({"guess": Guess()}, CPU)
    assert grid.dtype == np.uint8
    tile = 4 * -(-128 // WIDTH) * 5
    assert grid.shape[1] == 3 * (tile + 4) - 4
    assert not np.array_equal(grid[:, :tile], grid[:, tile + 4 : 2 * tile + 4])
    sea = grid[30:60, : tile * 3 // WIDTH]
    assert (sea == 255).all(), f"the first {SEA_COLUMNS} columns are sea"


def test_what_was_found_is_told(make_task) -> None:
    task = make_task()
    assert task.notices == ()
    task.prepare()
    assert task.fingerprints() == {"all": "small"}
    assert task.notices[0] == "a region for tests"
    assert "images: 16 of 20 patches are at least half land and are used" in task.notices
    assert re.search(r"held out: 2 of 6 catchments are never trained on \(g\d, g\d\)", task.notices[-1])


# -------------------------------------------------------------------------------------------------------------- files


def write_generic(root: Path, count: int) -> None:
    for place, basin in enumerate(("1", "2", "3")):
        wave = np.sin(np.arange(count) / 9 + place)
        variables = {"flow": np.exp(wave), "warmth": 10 * wave}
        write_netcdf(root / "time_series" / f"{basin}.nc", days("1970-10-01", count), variables, "date", units="mm/d")


@pytest.mark.parametrize(
    ("data", "write", "first", "options"),
    [
        ("camels-us", lambda root, count: write_camels_us(root, ("01022500", "02064000"), count), "2000-02-25", {}),
        ("camels-gb", lambda root, count: write_camels_gb(root, ("1001", "39001"), count), "1970-10-01", {}),
        (
            "caravan",
            lambda root, count: write_caravan(root, "csv", "gb", ("1", "2"), count),
            "1990-01-01",
            {"series": ("flow", "precipitation")},
        ),
        ("generic", write_generic, "1970-10-01", {"series": ("flow", "warmth")}),
    ],
)
def test_files_of_every_kind_are_read_masked_and_scored_beside_grids(tmp_path, data, write, first, options) -> None:
    count = 3 * 366
    write(tmp_path / "gauges", count)
    noise = np.random.default_rng(0).random((count, 8, 8)).astype(np.float32)
    write_netcdf(tmp_path / "grids.nc", days(first, count), {"rainfall": noise}, units="mm")
    config = HydrologyConfig(
        data=data, data_path=str(tmp_path / "gauges"), grids_path=str(tmp_path / "grids.nc"), images=("rainfall",),
        patch_cells=2, days=8, held_out_catchments=1, eval_batch=64, **options,
    )  # fmt: skip
    task = Hydrology(config, tmp_path / "cache")
    told: list[str] = []
    task.prepare(lambda text, done, of: told.append(text))
    assert [line for line in told if line.startswith("reading")], "reading says how far it is"
    batch = task.collate(*some(task))
    assert batch["image_targets"].shape == (6, 1, 8 * 12, 4)
    assert np.isfinite(float(task.loss(Guess()(**batch), batch)))
    records = task.evaluate(Guess(), CPU)
    assert {f"mse_{name}" for name in config.modalities} <= {key for record in records for key in record}
    assert "rainfall, MSE ((mm)²)" in [metric.label for metric in task.metrics]
    # What was parsed once is taken from the cache, by another process too.
    (kept,) = (tmp_path / "cache").glob("catchments-v*/*.npz")
    before = kept.stat().st_mtime_ns
    told.clear()
    again = Hydrology(config, tmp_path / "cache")
    again.prepare(lambda text, done, of: told.append(text))
    assert not [line for line in told if line.startswith("reading")]
    assert kept.stat().st_mtime_ns == before
    assert again.fingerprints() == task.fingerprints()


@pytest.mark.shared
def test_a_real_record_of_three_years_of_flow_is_split_scored_and_told(shared_dir, tmp_path) -> None:
    options = {"data": "camels-us", "data_path": str(shared_dir / "data" / "camels_us"), "images": ()}
    task = Hydrology(HydrologyConfig(**options, held_out_catchments=1), tmp_path)
    task.prepare()
    region = task._opened()
    assert [len(region.spans[split]) for split in ("train", "validation", "test")] == [366, 365, 365]
    records = task.evaluate(Guess(), CPU)
    nse = [record[key] for record in records for key in ("nse_flow", "nse_flow_held_out") if key in record]
    assert len(nse) == 4
    assert np.isfinite(nse).all()
    best = [row["metrics"]["skill_flow"] for row in task.references()]
    assert max(best) == pytest.approx(0, abs=1e-9)
    assert "flow, MSE ((mm/d)²)" in [metric.label for metric in task.metrics]
    with pytest.raises(UserError, match=r"task\.held_out_catchments must be less than the 4 catchments, got 4"):
        Hydrology(HydrologyConfig(**options), tmp_path).prepare()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"images": ("rain", "snow")},
            r"task\.images: the data have no snow; they have rain, soil_moisture, temperature",
        ),
        ({"series": ("level",)}, r"task\.series: the data have no level"),
        ({"held_out_catchments": 24}, r"task\.held_out_catchments must be less than the 24 catchments, got 24"),
        ({"days": 800}, r"task\.days: a window of 800 days does not fit"),
    ],
)
def test_what_the_generated_region_cannot_have_is_refused_before_it_is_made(tmp_path, options, line) -> None:
    with pytest.raises(UserError, match=line):
        Hydrology(dataclasses.replace(PRESETS["tiny"], **options), tmp_path)
    assert not list(tmp_path.iterdir())
