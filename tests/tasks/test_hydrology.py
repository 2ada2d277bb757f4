"""The task ``hydrology`` as a whole: pictures, what it tells, and files of every kind from reading to scores."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bench.errors import UserError
from bench.tasks.hydrology import Hydrology, HydrologyConfig
from tests.data.hydrology_files import days, write_camels_gb, write_camels_us, write_caravan, write_netcdf
from tests.tasks.hydrology_data import CPU, SEA_COLUMNS, WIDTH, Guess, small_task, some


@pytest.fixture
def make_task(tmp_path: Path):
    return partial(small_task, tmp_path)


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
