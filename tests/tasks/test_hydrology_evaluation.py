"""Scores of the task ``hydrology``: that they can be recomputed, and how the references stand beside them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.aggregates import summarise
from bench.errors import UserError
from bench.tasks.hydrology import QUICK_WINDOWS, HydrologyConfig
from bench.tasks.hydrology_batches import gather
from bench.tasks.hydrology_evaluation import metrics_of
from tests.tasks.hydrology_data import CPU, Guess, small_region, small_task


@pytest.fixture
def make_task(tmp_path: Path):
    return partial(small_task, tmp_path)


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
