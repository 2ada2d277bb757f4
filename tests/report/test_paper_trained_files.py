"""Published tables beside trained comparisons: which result counts, and what is written where."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.report import plots
from bench.report.paper.results import find_results, write_all
from bench.report.paper.trained import render_trained, write_trained
from bench.report.paper.trained.figures import comparable_lines, draw, write_figures
from bench.report.paper.trained.lines import (
    make_lines,
)
from bench.report.verify import verify
from tests.report.fake_store import FakeArm, FakeStore
from tests.report.published_tables import DUAL, LVSM, a_table, a_trial


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """`nvs` at two presets and with more seeds, an unfinished one, and another comparison: what a folder of results holds."""
    folder = tmp_path_factory.mktemp("results") / "results"
    arms = (FakeArm(LVSM, "fill", 17.0, 1.0, 20, 8), FakeArm(DUAL, "fill", 18.0, 1.0, 20, 8))
    for where, changes in {
        "cpu-2core/nvs-tiny": {},
        "cpu-2core/nvs-small": {"comparison": {"preset": "small"}, "budget_s": 60.0},
        "h200/nvs-small": {"comparison": {"preset": "small"}, "seeds": (0, 1, 2, 3)},
        "h200/nvs-paper": {"comparison": {"preset": "paper"}, "status": "running"},
    }.items():
        FakeStore(**{"arms": arms, **changes}).write(folder / where)
    return folder


def test_the_largest_preset_counts_then_most_seeds_and_the_rest_is_named(results):
    tables = render_trained([results])
    told = tables["tables.md"].split("## RealEstate10K, 512 px")[1].split("\n## ")[0]
    assert "nvs (preset small)" in told
    assert "4 seeds, on cpu: Fake 2-core CPU, 2 cores, 1 thread; h200/nvs-small." in told
    assert "Left out: cpu-2core/nvs-small (small, 60 s, 3 seeds), cpu-2core/nvs-tiny (tiny, 25 s, 3 seeds)." in told
    assert "paper" not in told.split("Left out")[1].splitlines()[0]
    row = next(csv.DictReader(io.StringIO(tables["nvs-re10k-512.csv"])))
    assert (row["arm"], row["published"], row["seeds"]) == (LVSM, "29.53", "4/4")
    assert float(row["ours_low"]) < float(row["ours"]) < float(row["ours_high"])


def test_what_is_written_is_the_same_twice_follows_from_the_results_and_says_from_which(results, tmp_path):
    first, second = (write_trained([results], tmp_path / name) for name in ("first", "second"))
    assert [path.name for path in first] == [path.name for path in second]
    assert {path.suffix for path in first} == {".md", ".tex", ".csv", ".png", ".pdf"}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    assert verify(tmp_path / "first").problems == []
    (tmp_path / "first" / "nvs-re10k-512.csv").write_text("changed")
    (tmp_path / "first" / "not-set.tex").unlink()
    problems = " ".join(map(str, verify(tmp_path / "first").problems))
    assert "nvs-re10k-512.csv" in problems
    assert "not-set.tex" in problems


def test_figures_show_what_has_both_differences_in_one_unit_and_carry_no_date(tmp_path):
    table, trial = a_table(), a_trial(tmp_path / "store")
    lines = make_lines(table, trial)
    assert [(line.row.label, line.measure.column) for line in comparable_lines(lines)] == [("dual", "PSNR")]
    assert write_figures({"empty": [(table, make_lines(table, None))]}, tmp_path) == []
    with plots.style():
        (ax,) = draw([(table, comparable_lines(lines))]).axes
    assert ax.get_xlabel() == "PSNR, difference (dB)"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dual"]
    drawn = sorted(float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() in ("o", "D"))
    (line,) = comparable_lines(lines)
    assert line.difference is not None
    assert drawn == pytest.approx(sorted([-0.74, line.difference.value]))
    pdf = next(path for path in write_figures({"nvs": [(table, lines)]}, tmp_path) if path.suffix == ".pdf")
    assert b"CreationDate" not in pdf.read_bytes()


def test_no_comparison_among_the_folders_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no"):
        render_trained([tmp_path])
    with pytest.raises(UserError, match="holds no"):
        find_results([tmp_path])
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "efficiency.json").write_text("{}")
    with pytest.raises(UserError, match=r"hold no comparison\.json; give comparisons"):
        render_trained([tmp_path])


def test_results_are_told_apart_and_points_of_curves_are_part_of_them(results, tmp_path):
    for name in ("scaling.json", "points/a/comparison.json", "costs/efficiency.json"):
        (tmp_path / "curves" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "curves" / name).write_text("{}")
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "efficiency.json").write_text("{}")
    found = find_results([results, tmp_path])
    assert found.scaling == (tmp_path / "curves",)
    assert found.efficiency == (tmp_path / "measured",)
    assert {folder.relative_to(results).as_posix() for folder in found.comparisons} == {
        "cpu-2core/nvs-small", "cpu-2core/nvs-tiny", "h200/nvs-paper", "h200/nvs-small",
    }  # fmt: skip


def test_all_tables_of_given_results_go_where_they_are_asked_to(results, tmp_path):
    assert write_all([results / "cpu-2core" / "nvs-tiny"], tmp_path / "out") == [tmp_path / "out"]
    assert (tmp_path / "out" / "derived.json").is_file()
    assert (tmp_path / "out" / "tables.md").is_file()
