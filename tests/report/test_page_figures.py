import math
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.errors import UserError
from bench.report import page, plots
from bench.report.page import figures, plot, size
from bench.report.page import scaling as curves
from bench.store.scaling import open_scaling
from tests.report import fake_page
from tests.report.fake_page import Reader
from tests.report.planted_curves import VALUES, write_costs, write_quality

ROOT = Path(__file__).resolve().parents[2]
LAWS = {"linear": lambda x: 3.0 * x, "quadratic": lambda x: 0.5 * x**2}


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    return write_costs(tmp_path_factory.mktemp("curves") / "cpu-2core" / "scaling", LAWS)


@pytest.fixture(scope="module")
def quality(tmp_path_factory):
    laws = {"good": lambda budget: 20 - 8 / budget**0.5, "poor": lambda budget: 15 - 5 / budget}
    return write_quality(tmp_path_factory.mktemp("curves") / "cpu-2core" / "trained", laws, (2, 4, 8, 16), seeds=3)


# ---------------------------------------------------------------------------------------------------- scaling curves


def test_a_curve_has_a_drawing_a_quantity_and_both_tables(costs):
    made = curves.gather(open_scaling(costs), "scaling")
    (curve,) = made.curves
    assert [drawing.key for drawing in curve.plots] == ["latency_ms", "gflops"]
    read = Reader(page.render([costs]))
    for table, _ in curve.tables:
        assert [column.heading for column in table.columns] in read.rows
        for row in table.cells():
            assert row in read.rows
    for drawing in curve.plots:
        assert len(drawing.sentences) == len(LAWS)
        assert all(sentence in read.text for sentence in drawing.sentences)
    assert read.text.count(curve.plots[0].sentences[0]) == 2, "below the drawing, and on the card of the overview"


def test_both_axes_are_logarithmic_and_laws_straight(costs):
    latency = curves.gather(open_scaling(costs), "x").curves[0].plots[0]
    for trace in latency.traces:
        steps = [after.x - before.x for before, after in zip(trace.dots, trace.dots[1:], strict=False)]
        assert max(steps) - min(steps) < 0.3, "views double from point to point"
        ends = [tuple(map(float, place.split())) for place in trace.path[1:].split("L")]
        middle = ends[len(ends) // 2]
        share = (middle[0] - ends[0][0]) / (ends[-1][0] - ends[0][0])
        assert math.isclose(middle[1], ends[0][1] + share * (ends[-1][1] - ends[0][1]), abs_tol=0.5)
        assert trace.shape.dash
    assert [shown for _, shown in latency.x_ticks] == [str(value) for value in VALUES]


def test_the_largest_point_alone_is_open_and_says_by_how_much_it_was_missed(costs):
    for drawing in curves.gather(open_scaling(costs), "x").curves[0].plots:
        for trace in drawing.traces:
            assert [dot.open for dot in trace.dots] == [False] * (len(VALUES) - 1) + [True]
            assert re.search(r"not fitted; the law says .+: missed by [+-]\d+\.\d %", trace.dots[-1].tip)
            assert "not fitted" not in trace.dots[0].tip
    exact = curves.gather(open_scaling(costs), "x").curves[0].plots[1]
    assert all(not dot.reach for trace in exact.traces for dot in trace.dots), "counts have no interval"


def test_points_of_runs_name_their_runs_and_files(quality):
    made = curves.gather(open_scaling(quality), "x")
    (curve,) = made.curves
    assert curve.task == "nvs"
    (points, behind), (laws, all_of) = curve.tables
    for row, number in zip(points.rows, behind, strict=True):
        source = made.data["sources"][number]
        (file,) = source["files"]
        assert file.startswith(f"{row['value']:g}/runs/{row['arm']}.fill/seed-*/evals.jsonl")
        assert list((quality / "points" / "budget").glob(file.split(":")[0]))
        assert source["runs"] == (f"{row['value']:g}, {row['arm']}.fill: seeds 0, 1, 2",)
        assert source["origin"]["folder"] == "cpu-2core/trained/points/budget"
    assert all(len(made.data["sources"][number]["files"]) == 4 for number in all_of)
    assert len(laws.rows) == len(all_of) == 2


def test_costs_name_their_files(costs):
    data = curves.gather(open_scaling(costs), "x").data
    (source,) = data["sources"]
    assert all((costs / "costs" / "views" / file).name in ("counts.jsonl", "timings.jsonl") for file in source["files"])
    assert source["origin"]["folder"] == "cpu-2core/scaling/costs/views"


def test_scaling_stands_in_the_overview_the_contents_and_the_verdicts(costs):
    verdict = fake_page.verdict(folders=("cpu-2core/scaling/costs/views", "cpu-2core/scaling"))
    read = Reader(page.render([costs], [verdict]))
    targets = [attributes.get("href") for tag, attributes in read.elements if tag == "a"]
    assert targets.count("#scaling") == 2, "contents, verdict"
    assert targets.count("#scaling-views") == 2, "card, verdict"
    assert "1 scaling curves" not in read.text
    ids = [attributes["id"] for _, attributes in read.elements if attributes.get("id")]
    assert {"scaling", "scaling-views"} <= set(ids)
    assert len(set(ids)) == len(ids)


def test_unfinished_curves_are_refused(costs, tmp_path):
    copy = shutil.copytree(costs, tmp_path / "scaling")
    record = (copy / "scaling.json").read_text()
    (copy / "scaling.json").write_text(record.replace('"finished"', '"running"', 1))
    with pytest.raises(UserError, match="is running, not finished"):
        page.render([copy])


def test_published_curves_are_found(costs, tmp_path):
    published = shutil.copytree(costs, tmp_path / "results" / "cpu-2core" / "scaling")
    assert page.find(tmp_path / "results", tmp_path / "runs") == [published]


# ------------------------------------------------------------------------------------------------------------- plots


@given(st.floats(1e-6, 1e6), st.floats(1.02, 1e12))
def test_ticks_of_logarithmic_axes_lie_within_and_are_few(low, factor):
    found = plot.log_ticks(low, low * factor)
    assert 2 <= len(found) <= 12
    places = [place for place, _ in found]
    assert places == sorted(set(places))
    assert low * (1 - 1e-6) <= places[0]
    assert places[-1] <= low * factor * (1 + 1e-6)


@given(st.floats(1e-9, 1e12))
def test_a_tick_is_read_back(value):
    assert math.isclose(float(plot.written(value).replace(",", "")), value, rel_tol=5e-4)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=8), st.booleans())
def test_an_axis_holds_its_values_with_a_margin(values, log):
    axis = plot.spread("x", values, log=log)
    for value in values:
        assert 0 < axis.along(value, 0, 1000) < 1000


def test_names_that_would_run_into_each_other_are_left_out():
    axis = plot.spread("tokens", (1000, 1010, 1020, 4000), log=True, places=(1000, 1010, 1020, 4000))
    marks = tuple(plot.Mark(value, 1.0, "") for value in (1000, 4000))
    made = plot.draw("x", (axis, plot.spread("y", (1, 10), log=True)), [plot.Shape("", 0, 0, 0, marks)], (640, 380))
    assert [shown for _, shown in made.x_ticks] == ["1,020", "4,000"]


# ----------------------------------------------------------------------------------------------------------- figures


def test_a_figure_is_read_back_with_its_numbers():
    figure = Figure()
    one, two = figure.subplots(1, 2)
    one.plot(
        [1, 10, 100],
        [1, 2, 4],
        "s",
        color="#0173b2",
        linestyle=plots.LINES[1],
        label="counted",
        markerfacecolor="white",
    )
    one.errorbar([10], [3.0], yerr=[[1.0], [2.0]], color="#de8f05", marker="o")
    one.axhline(1.0)
    one.set_xscale("log")
    one.set(xlabel="views", ylabel="ratio")
    measured = Line2D([], [], color="#de8f05", marker="o", linestyle="none", label="measured")
    one.legend(handles=[*one.get_lines()[:1], measured])
    two.barh([0, 1], [5, 7], 0.3, color="#029e73", xerr=[[1, 1], [1, 1]])
    two.set_yticks([0, 1], ["first", "second"])
    two.set_xlabel("ms")
    made = figures.read("A figure", figure)
    left, right = made.panels
    counted, measured = sorted((trace.shape for trace in left.traces), key=lambda shape: shape.title)
    assert (counted.title, counted.colour, counted.mark, counted.dash) == ("counted", 0, 1, 1)
    assert [(mark.x, mark.y, mark.open) for mark in counted.marks] == [(1, 1, True), (10, 2, True), (100, 4, True)]
    assert (measured.title, measured.colour) == ("measured", 1)
    assert [(mark.x, mark.y, mark.ends) for mark in measured.marks] == [(10, 3, (2, 5))]
    assert measured.marks[0].tip == "measured\n3.00 [2.00, 5.00], ratio\nat 10, views"
    assert len(left.rules) == 1
    bars = right.traces[0].shape
    assert [bar[1] for bar in bars.bars] == [5, 7]
    assert bars.bars[1][4] == "7.00 [6.00, 8.00], ms\nsecond"
    assert [shown for _, shown in right.y_ticks] == ["first", "second"]
    assert right.above
    assert [entry.title for entry in made.legend] == ["counted", "measured"]


def test_a_measurement_without_training_shows_its_tables_and_figures():
    folder = ROOT / "results" / "cpu-2core" / "efficiency-tracking-tiny"
    read = Reader(page.render([folder]))
    stored = (folder / "paper" / "tables.md").read_text(encoding="utf-8")
    for title in re.findall(r"^## (.+)$", stored, re.M):
        assert title.replace("\\", "") in read.text
    assert len([tag for tag, attributes in read.elements if tag == "rect" and attributes.get("data-tip")]) > 20
    assert not any(tag == "img" for tag, _ in read.elements), "drawn from numbers, not stored as pictures"
    assert read.data[0]["sources"][0]["files"][0] == "counts.jsonl"


# -------------------------------------------------------------------------------------------------------------- size


def test_a_heavy_page_names_its_largest_parts(costs, tmp_path):
    folder = fake_page.write(tmp_path / "cpu-2core" / "nvs-tiny")
    written = page.write([folder, costs], tmp_path / "report.html")
    assert size.warning(written) is None
    told = size.warning(written, limit=100_000)
    assert re.search(r"more than 0\.1; largest: nvs-tiny \d\.\d\d \((pictures|drawings|tables)", told)
    assert "scaling" in told
    assert "\n" not in told
    found = size.parts(written.read_text(encoding="utf-8"))
    assert min(min(sizes.values()) for sizes in found.values()) >= 0
    assert next(iter(found)) == "nvs-tiny"
    with pytest.raises(UserError, match="cannot be read"):
        size.warning(tmp_path / "nothing.html")
