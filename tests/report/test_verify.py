"""What `verify` says about the table's files; what it says about runs is tested on real ones (tests/experiment)."""

import json
from pathlib import Path

import pytest

from bench.report import tables, verify
from bench.store.read import open_comparison
from tests.report.fake_store import FakeStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = FakeStore().write(tmp_path / "store")
    tables.write(open_comparison(folder), folder)
    return folder


def problems(folder: Path) -> list[str]:
    return [line for line in verify.verify(folder).problems if line.startswith("table.")]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_files_that_tables_writes_pass(folder):
    assert problems(folder) == []
    assert sum(line.startswith("table.") for line in verify.verify(folder).checked) == 3


def test_last_digits_of_another_numpy_pass(folder):
    path = folder / "table.csv"
    rows = tables.read_csv(path)
    change(path, rows[0]["psnr"], repr(float(rows[0]["psnr"]) * (1 + 1e-12)))
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("key", "factor"), [("psnr", 1 + 1e-6), ("psnr_difference", -1), ("inference_peak_bytes", 2), ("steps_min", 1.1)]
)
def test_another_number_is_named(folder, key, factor):
    path = folder / "table.csv"
    row = next(row for row in tables.read_csv(path) if row[key])
    line = tables.read_csv(path).index(row) + 2
    change(path, f",{row[key]},", f",{float(row[key]) * factor!r},")
    found = problems(folder)
    assert len(found) == 1
    assert f"line {line}: " in found[0]


def test_another_text_an_emptied_cell_and_a_missing_row_are_named(folder):
    path = folder / "table.csv"
    text = path.read_text()
    for old, new, said in [
        ("lvsm-decoder-only", "other", "line 2: label"),
        (tables.read_csv(path)[0]["psnr"], "", "line 2: psnr"),
        ("arm,lvsm-decoder-only,fill,", "arm,lvsm-decoder-only,fill,0,", "line 2"),
        (text.splitlines()[-1] + "\n", "", "6 rows instead of 7"),
    ]:
        path.write_text(text)
        change(path, old, new)
        assert said in problems(folder)[0]


@pytest.mark.parametrize("name", ["table.md", "table.tex"])
def test_a_changed_line_of_the_tables_for_people_is_named(folder, name):
    path = folder / name
    change(path, "At knee: efficient-lvsm", "At knee: lvsm-decoder-only")
    number = next(i for i, line in enumerate(path.read_text().splitlines(), 1) if "At knee: lvsm" in line)
    assert problems(folder) == [f"{name}: every line follows from the records: line {number} differ"]


@pytest.mark.parametrize("name", ["table.csv", "table.md", "table.tex"])
def test_an_absent_table_is_named_with_the_mend(folder, name):
    (folder / name).unlink()
    assert problems(folder) == [f"{name}: present: make it with `isochron tables {folder}`"]


def test_a_table_of_other_records_is_wrong_in_every_form(folder):
    path = next(folder.glob("runs/efficient-lvsm.knee/seed-0/evals.jsonl"))
    lines = path.read_text().splitlines()
    last = json.loads(lines[-1])
    last["records"][0]["psnr"] += 5
    path.write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    assert [line.split(":")[0] for line in problems(folder)] == ["table.csv", "table.md", "table.tex"]
