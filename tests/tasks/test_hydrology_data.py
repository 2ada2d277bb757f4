"""Splits, statistics that know training alone, scales and climatologies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.tasks.hydrology_config import HydrologyConfig
from bench.tasks.hydrology_data import Region, cut, held_out, spans
from bench.tasks.hydrology_scales import LARGEST_LOGARITHM, Scale, climatology
from tests.tasks.hydrology_data import small_region

CONFIG = HydrologyConfig(patch_cells=4, days=8, test_years=1, held_out_catchments=2, anomalies=False)


def dates(first: str, last: str) -> np.ndarray:
    return np.arange(np.datetime64(first), np.datetime64(last) + np.timedelta64(1, "D"))


@pytest.mark.parametrize(
    ("first", "last", "validation", "test"),
    [
        ("1970-01-01", "2015-12-31", "2013-01-01", "2014-01-01"),
        ("1970-10-01", "2015-09-30", "2012-10-01", "2013-10-01"),
        ("2001-03-01", "2009-02-28", "2006-03-01", "2007-03-01"),
    ],
)
def test_the_last_years_are_test_and_those_before_validation(first, last, validation, test) -> None:
    days = dates(first, last)
    found = spans(days, HydrologyConfig())
    assert [str(days[found[split].start]) for split in found] == [first, validation, test]
    assert sum(map(len, found.values())) == len(days)
    assert [found["train"].stop, found["validation"].stop] == [found["validation"].start, found["test"].start]


@pytest.mark.parametrize(
    ("last", "lengths"),
    [("2003-12-31", [365, 365, 365]), ("2004-12-31", [730, 365, 366]), ("2005-12-31", [730, 365, 731])],
)
def test_a_short_record_keeps_one_year_for_test(last, lengths) -> None:
    found = spans(dates("2001-01-01", last), HydrologyConfig())
    assert [len(found[split]) for split in ("train", "validation", "test")] == lengths


def test_statistics_know_nothing_of_other_years_and_of_held_out_catchments() -> None:
    plain, changed = small_region(), small_region()
    known = Region(plain, CONFIG)
    later = known.spans["train"].stop
    changed.grids.values[:, later:] *= 7
    changed.gauges.values[:, :, later:] += 50
    changed.gauges.values[known.held_out] *= 9
    changed.gauges.statics[known.held_out] += 100
    other = Region(changed, CONFIG)
    assert other.scales == known.scales
    np.testing.assert_array_equal(other.held_out, known.held_out)
    np.testing.assert_array_equal(other.patch_climatology, known.patch_climatology)
    np.testing.assert_array_equal(other.series_climatology, known.series_climatology)
    np.testing.assert_array_equal(other.statics[~known.held_out], known.statics[~known.held_out])
    np.testing.assert_array_equal(other.patches[:, :later], known.patches[:, :later])
    # And they do know training: else the above would hold of anything.
    changed.grids.values[:, :later] *= 2
    changed.gauges.values[:, :, :later] *= 2
    assert all(one != two for one, two in zip(Region(changed, CONFIG).scales, known.scales, strict=True))


def test_training_values_have_mean_0_and_variance_1_over_land() -> None:
    region = Region(small_region(), CONFIG)
    train = np.where(region.patch_seen, region.patches, np.nan)[:, : region.spans["train"].stop]
    np.testing.assert_allclose(np.nanmean(train, axis=(1, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(np.nanstd(train, axis=(1, 2, 3)), 1, atol=1e-3)
    series = region.series[~region.held_out, :, : region.spans["train"].stop]
    np.testing.assert_allclose(series.mean(axis=(0, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(series.std(axis=(0, 2)), 1, atol=1e-3)
    assert region.patch_positions.tolist() == [[row, column] for row in range(4) for column in range(1, 5)]
    assert region.patch_seen.shape[:2] == (1, 1), "all land is always observed"
    assert not region.patch_seen[..., 0, 0].any(), "the second column of patches is sea for a quarter"
    assert not region.patches[..., 0, 0].any()


def test_anomalies_are_what_the_season_leaves() -> None:
    plain, bare = Region(small_region(), CONFIG), Region(small_region(), replace(CONFIG, anomalies=True))
    patches, series = plain.patch_climatology, plain.series_climatology
    land = plain.patch_seen[0, 0]
    whole = (bare.patches + patches[:, bare.day_of_year])[..., land]
    np.testing.assert_allclose(whole, plain.patches[..., land], atol=1e-5)
    np.testing.assert_allclose(bare.series + series[..., bare.day_of_year], plain.series, atol=1e-5)
    assert np.nanstd(bare.patches[2]) < 0.5 * np.nanstd(plain.patches[2]), "temperature has a season"
    assert abs(bare.patch_climatology).max() < 0.5 * abs(patches).max()
    number = np.array([[0, 17, -1]])
    at = bare.season_of_patches(1, np.array([[3, 4]]), number)
    np.testing.assert_array_equal(at[0, :2], [patches[1, 3, 0], patches[1, 4, 1]])
    own = bare.season_of_series(1, np.array([5]), np.array([[3, 4]]), np.array([[1, 0, -1]]))
    np.testing.assert_array_equal(own[0, :2], series[5, 1, [4, 3]])


def test_a_split_that_does_not_observe_a_modality_says_so() -> None:
    data = small_region()
    assert not [line for line in Region(data, CONFIG).notices if "observed" in line]
    data.gauges.values[:, 1, 730:1095] = np.nan
    assert Region(data, CONFIG).notices[-1] == "validation: no flow was observed in these years, so none is scored"


def test_a_record_ends_with_the_series_that_ends_first() -> None:
    data = small_region(years=5)
    data.gauges.values[:, 1, 4 * 365 + 1 :] = np.nan
    region, whole = Region(data, CONFIG), Region(small_region(years=4), CONFIG)
    assert region.spans == whole.spans
    assert "days after 2004-12-31 are left out: a series ends there in all catchments" in region.notices


def test_held_out_catchments_hang_on_their_identifiers_alone() -> None:
    ids = tuple(f"{number:08d}" for number in range(50))
    chosen = held_out(ids, 10)
    assert chosen.sum() == 10
    np.testing.assert_array_equal(held_out(ids[::-1], 10), chosen[::-1])
    assert not (chosen & ~held_out(ids, 20)).any()


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.sampled_from([None, 0.1, 1.0]), st.integers(0, 1000))
def test_a_scale_undoes_itself(spread, offset, seed) -> None:
    values = (np.random.default_rng(seed).gamma(1.0, spread, 200)).astype(np.float32)
    scale = Scale.of(values, offset)
    normal = scale.normalise(values)
    assert abs(float(normal.mean())) < 1e-2
    np.testing.assert_allclose(scale.physical(normal), values, rtol=1e-3, atol=1e-3 * spread)


def test_a_wild_prediction_stays_finite_and_a_skewed_one_is_never_negative() -> None:
    scale = Scale(0.0, 1.0, 0.1)
    wild = np.array([-1e6, 1e6, np.nan], np.float32)
    low, high, missing = scale.physical(wild)
    assert low == 0
    assert high == pytest.approx(np.exp(LARGEST_LOGARITHM), rel=1e-4)
    assert np.isnan(missing)
    constant = Scale.of(np.full(5, 3.0, np.float32), None)
    assert constant == Scale(3.0, 1.0, None)


def test_climatology_is_the_mean_around_the_day_and_wraps_at_new_year() -> None:
    day = np.tile(np.arange(365), 4)
    values = (day < 31).astype(np.float32)[:, None]
    found = climatology(values, day)[:, 0]
    assert found[15] == pytest.approx(1.0)
    assert found[100] == 0
    # Of the 31 days around January 1, 16 are in January; December 31 of leap years was never seen.
    assert found[0] == pytest.approx(16 / 30)
    holes = np.where(np.arange(len(day))[:, None] % 2, values, np.nan)
    np.testing.assert_allclose(climatology(holes, day)[15, 0], 1)
    assert not climatology(np.full((10, 2), np.nan), np.arange(10)).any()


def test_patches_are_cut_row_by_row_and_what_is_left_is_dropped() -> None:
    frame = np.arange(2 * 5 * 7).reshape(2, 5, 7)
    patches = cut(frame, 2)
    assert patches.shape == (2, 6, 4)
    assert patches[0, 0].tolist() == [0, 1, 7, 8]
    assert patches[0, 1].tolist() == [2, 3, 9, 10]
    assert patches[1, 5].tolist() == [53, 54, 60, 61]


def test_without_images_windows_without_any_observation_are_left_out() -> None:
    data = small_region()
    stop = 365
    data.gauges.values[:, :, :stop] = np.nan
    config = HydrologyConfig(patch_cells=4, days=8, test_years=1, images=(), held_out_catchments=2, data="camels-gb", data_path="a",
                             series=("evaporation", "flow"), statics=())  # fmt: skip
    _, starts = Region(data, config).training_pairs(config)
    assert starts.min() == stop - 7
