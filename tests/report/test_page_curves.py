import itertools
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report import page
from bench.report.page import curves, ledger
from bench.report.summary import VIEWS, summarise
from bench.store.read import open_comparison
from tests.report import fake_page
from tests.report.fake_page import Reader

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake_page.write(tmp_path_factory.mktemp("page") / "cpu-2core" / "nvs-tiny")


def test_curves_show_the_mean_over_seeds_in_every_view(full):
    summary = summarise(full)
    charts = curves.charts(summary)
    assert tuple(chart.view for chart in charts) == VIEWS
    for chart in charts:
        for arm, line in zip(summary.arms, chart.lines, strict=True):
            ends = [curve.quality[-1] for curve in summary.curves[arm.arm.name].values()]
            last = line.points[-1]
            assert (last.mean, last.lowest, last.highest) == tuple(
                f"{value:.2f}" for value in (np.mean(ends), min(ends), max(ends))
            )
            assert [point.annealed for point in line.points] == [False, False, False, False, True]
            assert sorted(point.x for point in line.points) == [point.x for point in line.points]


def test_better_is_higher_on_the_page(full):
    chart = curves.charts(summarise(full))[0]
    points = sorted((point for line in chart.lines for point in line.points), key=lambda point: float(point.mean))
    assert points[0].y > points[-1].y
    assert all(0 < point.y < curves.HEIGHT and 0 < point.x < curves.WIDTH for point in points)


def test_a_start_that_would_squash_the_rest_is_cut_off_and_the_page_says_so(folder, tmp_path):
    assert not any(chart.cut for chart in curves.charts(summarise(open_comparison(folder))))
    copy = shutil.copytree(folder, tmp_path / "x")
    for path in copy.glob("runs/*/*/evals.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for record in lines[0]["records"]:
            record["psnr"] = -300.0
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chart = curves.charts(summarise(open_comparison(copy)))[0]
    assert chart.cut
    assert all(line.points[0].y > curves.HEIGHT > line.points[1].y for line in chart.lines)
    read = Reader(page.render([copy]))
    assert "The untrained start lies outside" in read.text
    assert any("-300.00" in row for row in read.rows)


@given(st.lists(st.floats(curves.TOP, curves.HEIGHT - curves.BOTTOM), max_size=6))
def test_names_of_baselines_do_not_overlap_and_stay_within(heights):
    placed = curves._apart(sorted(heights, reverse=True))
    assert all(before - after >= 15 - 1e-9 for before, after in itertools.pairwise(placed))
    assert all(curves.TOP < height <= curves.HEIGHT for height in placed)


def test_one_seed_has_no_band(single):
    assert {line.band for chart in curves.charts(summarise(single)) for line in chart.lines} == {""}


def test_a_baseline_far_away_is_told_and_not_drawn(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "x")
    found = json.loads((copy / "references.json").read_text())
    for record in found[0]["records"]:
        record["psnr"] = -400.0
    (copy / "references.json").write_text(json.dumps(found))
    chart = curves.charts(summarise(open_comparison(copy)))[0]
    assert chart.beyond == ("mean colour: -400.00",)
    assert [label for _, _, label in chart.references] == ["nearest view", "depth warp"]


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6))
def test_ticks_are_round_even_and_within(low, span):
    found = [value for value, _ in curves.ticks(low, low + span)]
    assert 2 <= len(found) <= 12
    steps = np.diff(found)
    assert np.allclose(steps, steps[0], rtol=1e-6, atol=1e-9)
    assert found[0] >= low - 1e-6 * span
    assert found[-1] <= low + span + 1e-6 * span
    assert re.fullmatch(r"(1|2|2\.5|5)(\.0+)?e[+-]\d+", f"{steps[0]:.1e}") or math.isclose(
        steps[0] % 1, 0, abs_tol=1e-6
    )


def test_ticks_are_written_with_the_digits_that_they_have():
    assert curves.ticks(0.0, 10.0) == [(value, f"{value:.0f}") for value in (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)]
    assert [shown for _, shown in curves.ticks(0.0, 0.5)] == ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]


def test_bars_hold_every_second(full):
    made = ledger.gather(summarise(full).arms, full.record.budget_s)
    for bar in made.bars:
        assert math.isclose(sum(float(part.seconds) for part in bar.parts), float(bar.total), rel_tol=0.01)
        for before, after in itertools.pairwise(bar.parts):
            assert math.isclose(before.left + before.width, after.left, abs_tol=0.02)
        assert bar.parts[-1].left + bar.parts[-1].width <= 100.01
    assert 0 < made.budget < 100
