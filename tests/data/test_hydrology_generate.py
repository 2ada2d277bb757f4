"""The generated region: same bytes whoever writes them, resumed, shared, never silently wrong, and like real water."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.data.hydrology import generate
from bench.data.hydrology.generate import data_folder, open_generated, prepare
from bench.data.hydrology.region import make_region
from bench.data.hydrology.simulate import Simulation
from bench.data.hydrology.spec import SPECS, HydrologySpec
from bench.errors import UserError

SPEC = HydrologySpec(years=2, height=16, width=16, catchments=2)
ROOT = Path(__file__).parents[2]


def files_of(spec: HydrologySpec, cache_dir: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(data_folder(spec, cache_dir).iterdir()) if p.name != ".lock"}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """A cache that holds `SPEC`; tests do not write to it."""
    folder = tmp_path_factory.mktemp("reference")
    reports: list[tuple[str, int, int]] = []
    prepare(SPEC, folder, lambda *report: reports.append(report))
    assert reports == [("generating hydrology", done, 3) for done in range(4)]
    return folder


@pytest.fixture
def cache(reference, tmp_path) -> Path:
    """A copy of it that a test may damage."""
    target = data_folder(SPEC, tmp_path)
    target.mkdir(parents=True)
    for name, content in files_of(SPEC, reference).items():
        (target / name).write_bytes(content)
    return tmp_path


class Years:
    """Counts simulated years and can be told to fail after some."""

    def __init__(self, monkeypatch, fail_after: int | None = None):
        self.years: list[int] = []
        real = Simulation.year

        def year(simulation, number):
            if fail_after is not None and len(self.years) >= fail_after:
                raise KeyboardInterrupt
            self.years.append(number)
            return real(simulation, number)

        monkeypatch.setattr(Simulation, "year", year)


def test_shapes_names_and_calendar(reference):
    data = open_generated(SPEC, reference)
    assert data.dates[0] == np.datetime64("2000-01-01")
    assert data.dates[-1] == np.datetime64("2001-12-31")
    assert len(data.dates) == 366 + 365
    assert data.grids.names == ("rain", "soil_moisture", "temperature")
    assert data.grids.values.shape == (3, 731, 16, 16)
    assert isinstance(data.grids.values, np.memmap)
    assert data.gauges.names == ("evaporation", "flow")
    assert data.gauges.values.shape == (2, 2, 731)
    assert data.gauges.statics.shape == (2, 11)
    assert {data.grids.values.dtype, data.gauges.values.dtype, data.gauges.statics.dtype} == {np.dtype("float32")}
    for values in (data.grids.values, data.gauges.values, data.gauges.statics):
        assert np.isfinite(values).all()
    assert not data.grids.values[:, :, ~data.grids.land].any()
    assert any("generated" in notice for notice in data.notices)
    assert all("\n" not in notice for notice in data.notices)


def test_nothing_is_generated_twice(cache, monkeypatch):
    years = Years(monkeypatch)
    reports: list[tuple[str, int, int]] = []
    prepare(SPEC, cache, lambda *report: reports.append(report))
    assert (years.years, reports) == ([], [])


def test_another_spec_has_another_folder_and_fingerprint(reference, tmp_path):
    folders = {data_folder(SPEC, tmp_path)}
    for change in ({"years": 3}, {"height": 20}, {"width": 20}, {"catchments": 3}, {"first_year": 1990}, {"seed": 1}):
        folders.add(data_folder(dataclasses.replace(SPEC, **change), tmp_path))
    assert len(folders) == 7
    other = dataclasses.replace(SPEC, years=1, seed=1)
    prepare(other, tmp_path)
    one, two = open_generated(SPEC, reference), open_generated(other, tmp_path)
    assert one.fingerprint != two.fingerprint
    assert not np.array_equal(one.grids.values[:, :366], two.grids.values)


def test_more_years_begin_like_fewer(reference, tmp_path):
    longer = dataclasses.replace(SPEC, years=3)
    prepare(longer, tmp_path)
    short, long = open_generated(SPEC, reference), open_generated(longer, tmp_path)
    np.testing.assert_array_equal(long.grids.values[:, :731], short.grids.values)
    np.testing.assert_array_equal(long.gauges.values[:, :, :731], short.gauges.values)
    np.testing.assert_array_equal(long.gauges.statics, short.gauges.statics)


def test_other_gauges_leave_the_weather_alone(reference, tmp_path):
    other = dataclasses.replace(SPEC, years=1, catchments=3)
    prepare(other, tmp_path)
    weather = open_generated(SPEC, reference).grids.values[:, :366]
    np.testing.assert_array_equal(open_generated(other, tmp_path).grids.values, weather)


PROGRAM = """
import os, sys
from pathlib import Path
from bench.data.hydrology.generate import prepare
from bench.data.hydrology.simulate import Simulation
from bench.data.hydrology.spec import HydrologySpec
real = Simulation.year
def year(self, number):
    if number == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    print(number, flush=True)
    return real(self, number)
Simulation.year = year
print("ready", flush=True)
sys.stdin.readline()
prepare(HydrologySpec({spec}), Path(sys.argv[1]))
assert "torch" not in sys.modules
"""


def start(cache_dir: Path, die_in: int = 0) -> subprocess.Popen[str]:
    program = PROGRAM.replace("{spec}", ", ".join(f"{name}={value}" for name, value in vars(SPEC).items()))
    command = [sys.executable, "-c", program, str(cache_dir), str(die_in)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_write_once_and_the_same_bytes_as_this_one(reference, tmp_path):
    processes = [start(tmp_path) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = [process.communicate("go\n", timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(outputs) == ["", "1999\n2000\n2001\n"]
    assert files_of(SPEC, tmp_path) == files_of(SPEC, reference)


def test_a_killed_process_is_resumed_to_the_same_bytes(reference, tmp_path, monkeypatch):
    process = start(tmp_path, die_in=2001)
    assert process.communicate("go\n", timeout=300)[0] == "ready\n1999\n2000\n"
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match=r"is not in the cache .*; prepare it first"):
        open_generated(SPEC, tmp_path)
    years, reports = Years(monkeypatch), []
    prepare(SPEC, tmp_path, lambda *report: reports.append(report))
    assert years.years == [2001]
    assert [done for _, done, _ in reports] == [2, 3]
    assert files_of(SPEC, tmp_path) == files_of(SPEC, reference)


@pytest.mark.parametrize("lost", [".state.npz", ".series.npy.part"])
def test_an_interrupted_run_that_lost_a_file_begins_anew(reference, tmp_path, monkeypatch, lost):
    with monkeypatch.context() as patch:
        Years(patch, fail_after=1)
        with pytest.raises(KeyboardInterrupt):
            prepare(SPEC, tmp_path)
    (data_folder(SPEC, tmp_path) / lost).write_bytes(b"")
    years = Years(monkeypatch)
    prepare(SPEC, tmp_path)
    assert years.years == [1999, 2000, 2001]
    assert files_of(SPEC, tmp_path) == files_of(SPEC, reference)


@pytest.mark.parametrize("name", generate.FILES)
def test_a_damaged_file_is_an_error_and_generated_anew_once_it_is_deleted(cache, reference, monkeypatch, name):
    path = data_folder(SPEC, cache) / name
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    open_generated(SPEC, cache, verify=False)  # sizes are right
    years = Years(monkeypatch)
    for attempt in (prepare, open_generated):
        with pytest.raises(UserError, match=rf"{name} does not match its SHA-256.*; delete .*{name} and run again"):
            attempt(SPEC, cache)
    path.write_bytes(good[:100])
    with pytest.raises(UserError, match=rf"{name} has 100 bytes instead of {len(good)}; delete"):
        open_generated(SPEC, cache, verify=False)
    path.unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        open_generated(SPEC, cache)
    assert years.years == []
    if name == generate.FILES[0]:
        prepare(SPEC, cache)
        assert files_of(SPEC, cache) == files_of(SPEC, reference)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: "", "cannot be read"),
        (lambda text: text[:200], "cannot be read"),
        (lambda text: text.replace('"numpy": "', '"numpy": "0'), "was changed after it was written"),
    ],
)
def test_a_damaged_manifest_says_what_to_delete(cache, change, complaint):
    path = data_folder(SPEC, cache) / "manifest.json"
    path.write_text(change(path.read_text()))
    for attempt in (prepare, open_generated):
        with pytest.raises(UserError, match=rf"manifest.json {complaint}.*; delete .*{path.parent.name} and run again"):
            attempt(SPEC, cache)


def test_a_manifest_of_another_region_is_refused(cache):
    other = dataclasses.replace(SPEC, seed=5)
    data_folder(SPEC, cache).rename(data_folder(other, cache))
    with pytest.raises(UserError, match="describes other hydrology than was asked for"):
        open_generated(other, cache)


def test_a_disk_that_fills_up_is_one_clear_line_and_the_run_goes_on_later(reference, tmp_path, monkeypatch):
    calls, real = 0, os.fsync

    def fsync(descriptor):
        nonlocal calls
        calls += 1
        if calls == 3:  # the state of the spin-up, then the grids of the first year
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match=r"cannot write .*\.npy: no space left; free some") as info:
            prepare(SPEC, tmp_path)
    assert "\n" not in str(info.value)
    years = Years(monkeypatch)
    prepare(SPEC, tmp_path)
    assert years.years == [2000, 2001]
    assert files_of(SPEC, tmp_path) == files_of(SPEC, reference)


def test_too_small_a_disk_is_refused_before_anything_is_generated(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    years = Years(monkeypatch)
    with pytest.raises(UserError, match=r"hydrology needs 2 MiB in .*, but only 0 MiB are free; free some"):
        prepare(SPEC, tmp_path)
    assert years.years == []


def test_cache_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make .*; choose another cache folder"):
        prepare(SPEC, tmp_path / "file")


def test_too_many_catchments_name_the_field(tmp_path):
    with pytest.raises(UserError, match=r"hydrology.catchments must be at most \d+ on this grid, got 400"):
        prepare(dataclasses.replace(SPEC, catchments=400), tmp_path)


def test_the_code_on_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/hydrology-data.md").read_text(), re.DOTALL)
    exec(compile(code, "hydrology-data.md", "exec"), {})
    assert "2000-01-01" in capsys.readouterr().out.splitlines()[-1]


# --- the default region -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    folder = tmp_path_factory.mktemp("default")
    prepare(SPECS["tiny"], folder)
    return open_generated(SPECS["tiny"], folder)


@pytest.fixture(scope="module")
def land(default) -> dict[str, np.ndarray]:
    """[D, cells] on land, by name."""
    values = default.grids.values[:, :, default.grids.land].astype(np.float64)
    return dict(zip(default.grids.names, values, strict=True))


@pytest.fixture(scope="module")
def rivers(default) -> dict[str, np.ndarray]:
    """[D, C]: series by name, and the rain and temperature of each catchment's own cells."""
    region = make_region(SPECS["tiny"])
    series = dict(zip(default.gauges.names, default.gauges.values.transpose(1, 2, 0).astype(np.float64), strict=True))
    fields = default.grids.values.reshape(3, len(default.dates), -1)
    means = {name: region.catchment_means(fields[k]) for k, name in enumerate(default.grids.names)}
    return series | means


def correlation(one: np.ndarray, two: np.ndarray) -> float:
    """Mean over places of the correlation over days, [D, n] each."""
    one, two = one - one.mean(0), two - two.mean(0)
    return float(((one * two).mean(0) / np.sqrt((one**2).mean(0) * (two**2).mean(0))).mean())


def lagged(values: np.ndarray) -> float:
    return correlation(values[1:], values[:-1])


def test_realism_of_the_fields(default, land):
    rain, soil, temperature = land["rain"], land["soil_moisture"], land["temperature"]
    assert rain.min() == 0
    assert 2.8 < rain.mean() < 3.8
    assert 0.34 < (rain > 0).mean() < 0.44
    assert 29 < np.quantile(rain, 0.99) < 41
    assert 0.3 < lagged(rain) < 0.42
    assert 0.99 < lagged(soil) < 1
    assert 0.94 < lagged(temperature) < 0.985
    assert soil.min() > 0
    assert soil.max() <= 1
    assert 0.52 < soil.mean() < 0.72
    assert 0.15 < soil.std() < 0.28
    months = default.dates.astype("datetime64[M]").astype(int) % 12
    assert temperature[months == 6].mean() - temperature[months == 0].mean() > 9
    patches = default.grids.land.reshape(10, 4, 8, 4).mean((1, 3))
    assert 40 <= (patches >= 0.5).sum() <= 48


def test_realism_of_the_rivers(rivers):
    flow, evaporation = rivers["flow"], rivers["evaporation"]
    assert flow.min() > 0
    assert evaporation.min() >= 0
    assert 0.5 < flow.sum() / rivers["rain"].sum() < 0.7
    assert 0.95 < lagged(np.log(flow)) < 1
    loss = (flow + evaporation).sum(0) / rivers["rain"].sum(0)
    assert (np.abs(loss - 1) < 0.35).all()  # what is left is exchange with the ground outside


def test_the_gauge_errs_by_five_percent_and_not_always_the_same_way(monkeypatch):
    measured = Simulation(SPEC).year(1999)[1]
    monkeypatch.setattr("bench.data.hydrology.simulate.GAUGE_NOISE", 0.0)
    true = Simulation(SPEC).year(1999)[1]
    np.testing.assert_array_equal(measured[:, 0], true[:, 0])  # evaporation
    error = (measured[:, 1] / true[:, 1] - 1).T
    assert error.std() == pytest.approx(0.05, rel=0.1)
    assert error.mean() == pytest.approx(0, abs=0.01)
    assert lagged(error) == pytest.approx(0, abs=0.15)


def test_flow_follows_rain_and_not_the_other_way_round(rivers):
    rain, flow = rivers["rain"], np.log(rivers["flow"])
    rise = np.diff(flow, axis=0)
    after, before = correlation(rain[:-1], rise), correlation(rain[2:], rise[:-1])
    assert after > 0.3
    assert after > before + 0.2
    week = np.stack([rain[i : i + 7].sum(0) for i in range(len(rain) - 7)])
    assert correlation(week, flow[7:]) > 0.5


def test_soil_takes_up_rain_and_gives_it_back(land, rivers):
    change = np.diff(land["soil_moisture"], axis=0)
    assert correlation(land["rain"][1:], change) > 0.6
    dry = land["rain"][1:] == 0
    warm = land["temperature"][1:] > 15
    cold = land["temperature"][1:] < 5
    assert change[dry].max() < 0
    assert change[dry & warm].mean() < change[dry & cold].mean()
    assert correlation(rivers["soil_moisture"], np.log(rivers["flow"])) > 0.6
    assert correlation(rivers["temperature"], rivers["evaporation"]) > 0.5


def test_rain_comes_with_the_wind(default):
    """The mean wind blows two and a half cells a day to the east."""
    rain, land = default.grids.values[0], default.grids.land
    west, east = rain[:, :, :-2], rain[:, :, 2:]
    both = land[:, :-2] & land[:, 2:]
    ahead = correlation(west[:-1, both], east[1:, both])
    behind = correlation(east[:-1, both], west[1:, both])
    assert ahead > behind + 0.05


def test_it_is_colder_when_it_rains_and_higher_up(default, land):
    temperature = land["temperature"]
    year = (default.dates - default.dates.astype("datetime64[Y]")).astype(int)
    normal = np.stack([temperature[np.abs(year - day) <= 5].mean(0) for day in range(366)])
    anomaly = temperature - normal[year]
    assert anomaly[land["rain"] > 5].mean() < anomaly[land["rain"] == 0].mean() - 0.5
    region = make_region(SPECS["tiny"])
    altitude = region.elevation[region.land]
    assert np.corrcoef(altitude, temperature.mean(0))[0, 1] < -0.9
    assert np.corrcoef(altitude, land["rain"].mean(0))[0, 1] > 0.5


def ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort()


def test_attributes_tell_how_a_river_behaves(default, rivers):
    statics = dict(zip(default.gauges.static_names, default.gauges.statics.T, strict=True))
    names = ["altitude_min", "altitude_10", "altitude_50", "altitude_90", "altitude_max"]
    assert (np.diff(np.stack([statics[name] for name in names]), axis=0) >= 0).all()
    assert (statics["area"] > 80).all()
    flow = rivers["flow"]
    flashiness = np.abs(np.diff(flow, axis=0)).sum(0) / flow.sum(0)
    assert np.corrcoef(ranks(statics["baseflow_index"]), ranks(flashiness))[0, 1] < -0.5
    assert np.corrcoef(ranks(statics["wetness"]), ranks(flow.mean(0)))[0, 1] > 0.7
    assert np.corrcoef(ranks(statics["altitude_50"]), ranks(rivers["temperature"].mean(0)))[0, 1] < -0.8
