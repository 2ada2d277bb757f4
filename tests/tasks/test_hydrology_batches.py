"""Batches of the task ``hydrology``: that they say what they should, made-up ones like those of training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.tasks.hydrology import Hydrology, HydrologyConfig
from tests.tasks.hydrology_data import CATCHMENTS, CPU, PATCHES, SMALL, Guess, small_region, small_task, some


@pytest.fixture
def make_task(tmp_path: Path):
    return partial(small_task, tmp_path)


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
