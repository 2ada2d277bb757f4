"""Where the tables of all kinds of results are written, and that nothing is written over."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.report.paper.results import write_all
from bench.report.verify import verify
from tests.report.fake_store import FakeStore

MEASURED = Path(__file__).parents[2] / "results" / "cpu-2core" / "efficiency-tracking-tiny"


def test_measurements_of_two_devices_lie_apart_and_verify_where_they_are(tmp_path: Path) -> None:
    results = [shutil.copytree(MEASURED, tmp_path / device / MEASURED.name) for device in ("cpu", "gpu")]
    comparison = FakeStore().write(tmp_path / "cpu" / "nvs-tiny")
    out = tmp_path / "out"
    places = write_all([*results, comparison], out)
    assert places == [out, out / "cpu" / MEASURED.name, out / "gpu" / MEASURED.name]
    checked = verify(out)
    assert checked.problems == []
    assert len([line for line in checked.checked if "every table follows" in line]) == 3
    table = next((out / "gpu" / MEASURED.name).glob("*.csv"))
    table.write_text(table.read_text().replace("1", "2", 1))
    assert [line for line in verify(out).problems if table.name in line]


def test_tables_of_some_results_do_not_replace_those_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    comparison = FakeStore().write(tmp_path / "results" / "cpu" / "nvs-tiny")
    with pytest.raises(UserError, match="--out: is missing; results/paper holds the tables of all results"):
        write_all([comparison])
    assert not (tmp_path / "results" / "paper").exists()
    assert write_all(None) == write_all([Path("results")]) == [Path("results/paper")]
    assert verify(Path("results/paper")).problems == []
