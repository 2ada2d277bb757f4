"""Where the tables of all kinds of results are written, and that nothing is written over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.report.paper import results
from bench.report.paper.results import write_all
from bench.report.verify import verify
from tests.report.fake_store import FakeStore

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "results" / "cpu-2core" / "efficiency-tracking-tiny"


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork of what runs tests, threads and torch inside, is not what the command makes."""
    monkeypatch.setattr(results, "PROCESSES", 1)


def test_measurements_of_two_devices_lie_apart_and_verify_where_they_are(tmp_path: Path) -> None:
    measured = [shutil.copytree(MEASURED, tmp_path / device / MEASURED.name) for device in ("cpu", "gpu")]
    comparison = FakeStore().write(tmp_path / "cpu" / "nvs-tiny")
    out = tmp_path / "out"
    places = write_all([*measured, comparison], out)
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


IN_TWO_PROCESSES = """
import sys
from pathlib import Path
from bench.errors import UserError
from bench.report.paper import results
measured, comparison, out = map(Path, sys.argv[1:])
results.PROCESSES = 2
results.write_all([measured, comparison], out)
(measured / "timings.jsonl").write_text("{}\\n")
try:
    results.write_all([measured, comparison], out.with_name("again"))
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_several_processes_write_the_same_bytes_and_pass_errors_on(tmp_path: Path) -> None:
    measured = shutil.copytree(MEASURED, tmp_path / "cpu" / MEASURED.name)
    comparison = FakeStore().write(tmp_path / "cpu" / "nvs-tiny")
    alone, together = tmp_path / "alone", tmp_path / "together"
    write_all([measured, comparison], alone)
    said = subprocess.run(
        [sys.executable, "-c", IN_TWO_PROCESSES, measured, comparison, together],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip
    assert "timings.jsonl: sizes: is missing" in said
    files = [{path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")} for out in (alone, together)]
    assert files[0] == files[1]
    assert {".png", ".pdf", ".csv"} <= {path.suffix for path in files[0]}
