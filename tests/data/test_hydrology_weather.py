"""Fields, weather and drainage: what the generated region is made of."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data.hydrology.drainage import SEA, SMALLEST, choose_catchments, drainage, upstream_sizes
from bench.data.hydrology.fields import DriftingField, Smoother, smooth_field
from bench.data.hydrology.region import CELL_KM, CENTRE, KM_PER_DEGREE, make_region
from bench.data.hydrology.spec import HydrologySpec
from bench.data.hydrology.weather import WeatherMaker, climate, oudin
from bench.errors import UserError

SPEC = HydrologySpec(years=1, height=24, width=20, catchments=5)


def test_a_smooth_field_has_the_variance_and_correlation_it_says():
    smoother, rng = Smoother((30, 41), 4.0), np.random.default_rng(0)
    fields = np.stack([smoother.field(smoother.draw(rng)) for _ in range(400)])
    assert fields.shape == (400, 30, 41)
    assert fields.mean() == pytest.approx(0, abs=0.1)
    assert fields.var() == pytest.approx(1, abs=0.06)
    for lag, expected in ((4, np.exp(-0.25)), (8, np.exp(-1))):
        assert (fields[:, lag:] * fields[:, :-lag]).mean() == pytest.approx(expected, abs=0.06)
        assert (fields[:, :, lag:] * fields[:, :, :-lag]).mean() == pytest.approx(expected, abs=0.06)
    assert (fields[:, 0] * fields[:, -1]).mean() == pytest.approx(0, abs=0.1)  # opposite edges


def test_a_mixture_has_variance_one():
    rng = np.random.default_rng(1)
    fields = [smooth_field(rng, (16, 16), (3.0, 1.5), (3.0, 1.0)) for _ in range(300)]
    assert np.var(fields) == pytest.approx(1, abs=0.1)


def test_the_wind_carries_a_lasting_field_along():
    rng = np.random.default_rng(2)
    field = DriftingField((32, 32), 3.0, 1.0, np.random.default_rng(3))
    before = field.step(np.zeros(2), rng)
    after = field.step(np.array([2.0, 5.0]), rng)
    np.testing.assert_allclose(after[2:, 5:], before[:-2, :-5], atol=1e-9)
    back = field.step(np.array([-0.5, -0.25]), rng)
    there = field.step(np.array([0.5, 0.25]), rng)
    assert np.abs(back - after).max() > 1e-3
    np.testing.assert_allclose(there, after, atol=1e-9)


def test_a_fading_field_keeps_its_variance_and_forgets():
    rng = np.random.default_rng(4)
    field = DriftingField((12, 12), 2.0, 0.6, np.random.default_rng(5))
    days = np.stack([field.step(np.zeros(2), rng) for _ in range(1500)])
    assert days.var() == pytest.approx(1, abs=0.06)
    assert (days[1:] * days[:-1]).mean() == pytest.approx(0.6, abs=0.04)


def test_oudins_evaporation():
    """Radiation of FAO-56, example 8: 20 degrees south, September 3: 32.2 MJ/m2/d."""
    assert oudin(np.array(15.0), np.array(-20.0), 246) == pytest.approx(32.2 / 2.45 * 0.2, rel=5e-3)
    assert oudin(np.array(-5.0), np.array(52.0), 20) == 0
    assert oudin(np.array(-9.0), np.array(52.0), 20) == 0
    assert oudin(np.array(10.0), np.array(52.0), 172) > 4 * oudin(np.array(10.0), np.array(52.0), 355)


def test_the_sun_sets_and_rises_on_the_largest_grid():
    half = 300 * CELL_KM / KM_PER_DEGREE
    latitude = np.array([CENTRE[0] + half, CENTRE[0] - half])
    for day in (172, 355):
        assert (oudin(np.array(10.0), latitude, day) > 0).all()


def test_a_year_has_its_leap_day():
    maker = WeatherMaker(SPEC, make_region(SPEC))
    assert [len(maker.year(year).rain) for year in (1999, 2000)] == [365, 366]


def test_the_expected_climate_is_what_the_weather_comes_to():
    region = make_region(SPEC)
    maker = WeatherMaker(SPEC, region)
    years = [maker.year(year) for year in range(1999, 2003)]
    rain, pet = climate(region)
    for name, expected in (("rain", rain), ("pet", pet)):
        made = np.mean([getattr(weather, name).sum(0) for weather in years], axis=0)
        assert made[region.land].mean() == pytest.approx(expected[region.land].mean(), rel=0.1)


@pytest.fixture(scope="module")
def terrain():
    spec = HydrologySpec()
    region = make_region(spec)
    return region, *drainage(region.elevation, region.land)


def test_all_land_drains_to_the_sea_or_over_the_edge(terrain):
    region, cells, downstream = terrain
    assert sorted(cells) == np.flatnonzero(region.land).tolist()
    assert (downstream[~region.land.ravel()] == SEA).all()
    order = np.empty(region.land.size, int)
    order[cells] = np.arange(len(cells))
    inner = cells[downstream[cells] != SEA]
    assert (order[downstream[inner]] < order[inner]).all()
    steps = np.abs(np.stack(np.divmod(inner, 32)) - np.stack(np.divmod(downstream[inner], 32)))
    assert steps.max() == 1
    outlets = cells[downstream[cells] == SEA]
    assert upstream_sizes(cells, downstream)[outlets].sum() == len(cells)


def test_water_runs_down_a_slope_and_out_of_a_hollow():
    elevation = np.add.outer(np.zeros(5), np.arange(6.0))  # the sea is in the west
    elevation[2, 3] = 0.5  # deeper than its surroundings
    land = np.ones((5, 6), bool)
    land[:, 0] = False
    land[[0, -1], :] = False
    land[:, -1] = False
    cells, downstream = drainage(elevation, land)
    assert len(cells) == 3 * 4
    assert sorted(cells[downstream[cells] != SEA]) == [2 * 6 + 2, 2 * 6 + 3]  # all others lie on the shore
    assert downstream[2 * 6 + 2] % 6 == 1  # down
    assert downstream[2 * 6 + 3] % 6 == 2  # up, out of the hollow, where the rim is lowest


def test_catchments_hold_all_that_drains_to_them_and_never_meet(terrain):
    region, _, downstream = terrain
    everything = np.concatenate(region.catchments)
    assert len(region.catchments) == 24
    assert len(np.unique(everything)) == len(everything)
    for cells in region.catchments:
        assert len(cells) >= SMALLEST
        inside = np.isin(downstream[cells], cells)
        assert (~inside).sum() == 1  # the outlet alone
        assert np.isin(np.flatnonzero(np.isin(downstream, cells)), cells).all()  # nothing flows in from outside
    sizes = [len(cells) for cells in region.catchments]
    assert max(sizes) >= 3 * min(sizes)


def test_too_many_catchments_are_refused_with_the_number_that_fits(terrain):
    _, cells, downstream = terrain
    with pytest.raises(UserError, match=r"hydrology.catchments must be at most \d+ on this grid, got 500"):
        choose_catchments(cells, downstream, 500, np.random.default_rng(0))


def test_means_over_catchments_are_means_over_their_cells(terrain):
    region = terrain[0]
    values = np.random.default_rng(0).random((3, region.land.size)).astype(np.float32)
    expected = np.stack([values[:, cells].mean(1) for cells in region.catchments], axis=1)
    np.testing.assert_allclose(region.catchment_means(values), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("years", 0), ("height", 8), ("height", 601), ("width", 4096), ("catchments", 0), ("seed", -1), ("years", 1.5)],
)
def test_spec_names_the_bad_field(field, value):
    with pytest.raises(UserError, match=rf"hydrology.{field} must be a whole number from \d+ to \d+, got {value}"):
        HydrologySpec(**{field: value})
