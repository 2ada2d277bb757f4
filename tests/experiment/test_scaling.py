"""Scaling curves from end to end: what a YAML file may say, measuring, stopping, going on, and drawing from stored results."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bench.console import Console
from bench.engine.blocks import Interrupted
from bench.errors import UserError
from bench.experiment import scaling
from bench.experiment.efficiency import SweptEfficiency, task_efficiency
from bench.experiment.efficiency.count import count
from bench.experiment.scaling.curves import read_curve, read_curves, shipped
from bench.report import verify
from bench.report.publish import publish
from bench.store.efficiency import open_efficiency
from bench.store.files import write_json
from bench.store.read import open_comparison
from bench.store.scaling import CostCurve, QualityCurve, open_scaling
from bench.store.write import ComparisonFolder
from tests.experiment import helpers
from tests.experiment.helpers import isochron, load, write_yaml

COST = {
    "kind": "cost",
    "title": "Cost against views",
    "task": "nvs",
    "axis": ["input_views"],
    "axis_label": "input views",
    "values": [1, 2, 3, 4],
    "timed_at": {"target_views": 1},
    "arms": [{"name": "dual", "timed": {"label": "efficient-lvsm"}}],
}


def write_curve(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump({**COST, **changes}))
    return path


def quality(tmp_path: Path) -> dict[str, object]:
    """A curve over the planted comparison: one architecture, four widths, ten steps a run."""
    comparison = write_yaml(tmp_path / "planted.yaml", batch=["fixed:2"], eval_fractions=[1.0])
    points = [
        {
            "value": width,
            "set": {"arms": [{"name": "plain", "factory": "tests.planted:TinyNVS", "options": {"width": width}}]},
        }
        for width in (4, 8, 16, 32)
    ]
    return {
        "kind": "quality",
        "title": "Quality against width",
        "comparison": str(comparison),
        "axis_label": "parameters",
        "x": "parameters",
        "value_label": "width",
        "points": points,
    }


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_curve_asks_for_what_there_is(name, tmp_path):
    curve = read_curve(shipped()[name])
    if isinstance(curve, CostCurve):
        swept = SweptEfficiency(task_efficiency(curve.task), scaling.sweep_of(curve))
        assert len(swept.groups("tiny")) == len(curve.values)
        assert {(row.label, row.mode) for row in swept.rows} == {
            (arm.counted.label, arm.counted.mode) for arm in curve.arms if arm.counted
        }
    else:
        names = {scaling.comparison_of(curve, point).name for point in curve.points}
        assert len(names) == len(curve.points) >= 4


def test_the_default_curves_show_what_is_promised():
    curves = read_curves()
    assert {curve.name for curve in curves} >= {"nvs-input-views", "vos-memory-frames", "mae-tokens"}
    assert [curve.kind for curve in curves] == sorted(curve.kind for curve in curves)
    assert any(curve.kind == "quality" for curve in curves)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "price"}, "kind: must be cost or quality, got 'price'"),
        ({"vlaues": [1]}, "vlaues: unknown key; remove it or mend its spelling"),
        ({"values": [1, 2, 4]}, "values: must be at least 4 ascending numbers > 0, got [1, 2, 4]"),
        ({"values": [1, 4, 2, 8]}, "values: must be at least 4 ascending numbers > 0, got [1, 4, 2, 8]"),
        ({"reference": "single"}, "reference: 'single' is none of the arms ['dual']"),
        ({"axis": ["input_views", "target"]}, "timed_at: 'target' is a part of the axis; give its size"),
        ({"timed_at": {"input_views": 1}}, "timed_at: 'input_views' is what varies; give its values under 'values'"),
        ({"form": "cubic"}, "form: "),
        ({"counted_values": [1, 2]}, "counted_values: must be at least 4 ascending numbers > 0, got [1, 2]"),
    ],
)
def test_a_mistake_in_a_curve_is_one_line_with_its_field(tmp_path, changes, said):
    with pytest.raises(UserError) as error:
        read_curve(write_curve(tmp_path / "mine.yaml", **changes))
    assert str(error.value).startswith("mine.yaml: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_names_tasks_calls_and_rows_are_named(tmp_path, cache):
    assert "curve 'views' is unknown; known: mae-days" in isochron("scaling-curve", "views").line
    for number, (changes, said) in enumerate([
        ({"task": "chess"}, "task 'chess': has no efficiency tables"),
        ({"arms": [{"name": "dual", "counted": {"label": "tripel"}}]}, "no row 'tripel' (mode 'full')"),
    ]):  # fmt: skip
        curve = write_curve(tmp_path / f"curve-{number}.yaml", **changes)
        assert said in isochron("scaling-curve", curve, "--out", tmp_path / "out").line
        assert not (tmp_path / "out" / "scaling.json").exists()


def test_the_page_names_every_curve_and_its_example_is_one(tmp_path):
    page = Path("docs/scaling.md").read_text(encoding="utf-8")
    table = page.split("## The curves")[1].split("## The laws")[0]
    assert set(shipped()) <= set(re.findall(r"`([a-z-]+)`", table))
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(example)
    curve = read_curve(tmp_path / "mine.yaml")
    assert [scaling.comparison_of(curve, point).task["target_views"] for point in curve.points] == [1, 2, 4, 8]


def test_a_drawing_that_was_cut_short_says_so(tmp_path, cache, monkeypatch):
    curve = read_curve(shipped()["nvs-input-views"])
    monkeypatch.setattr(scaling.shutil, "copytree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        scaling.collect([curve], [Path("results/cpu-2core/efficiency-nvs-tiny")], tmp_path / "out")
    with pytest.raises(UserError, match="delete it and give --from again"):
        scaling.go_on(tmp_path / "out", console=Console(quiet=True), cache_dir=cache)


def test_a_budget_scales_an_axis_that_is_the_budget(tmp_path, cache):
    curve = next(curve for curve in read_curves() if isinstance(curve, QualityCurve))
    started = scaling.start([curve], tmp_path / "out", budget="60s", seeds=2, device="cpu", cache_dir=cache)
    points = started.record.curves[0].points
    assert [point.value for point in points] == pytest.approx([10, 20, 30, 40, 60])
    comparison = scaling.comparison_of(started.record.curves[0], points[0])
    assert (comparison.budget.amount, comparison.seeds, comparison.device) == (10.0, (0, 1), "cpu")
    with pytest.raises(UserError, match="the axis of nvs-budget is seconds; give a duration"):
        scaling.start([curve], tmp_path / "other", budget="200 steps", cache_dir=cache)


@pytest.mark.slow
def test_costs_and_quality_are_measured_stopped_gone_on_with_and_verified(tmp_path, cache):
    curves = []
    for name, content in (("views", COST), ("width", quality(tmp_path))):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        curves.append(read_curve(path))
    folder = tmp_path / "out"
    scaling.start(curves, folder, device="cpu", cache_dir=cache)
    asked = []

    def stop() -> bool:
        asked.append(1)
        return (folder / "points" / "width" / "8").exists()

    with pytest.raises(Interrupted, match="go on with `isochron scaling-curve --out"):
        scaling.go_on(folder, console=Console(quiet=True), cache_dir=cache, stop_requested=stop)
    assert load(folder / "scaling.json")["status"] == "running"
    first = folder / "points" / "width" / "4" / "manifest.json"
    timed = folder / "costs" / "views" / "timings.jsonl"
    before = first.read_bytes(), timed.read_bytes()

    done = isochron("scaling-curve", "--out", folder)
    assert done.code == 0, done.err
    assert "Quality against width:" in done.out
    assert (first.read_bytes(), timed.read_bytes()) == before  # what was done is not done again
    measured = open_efficiency(folder / "costs" / "views")
    assert [group.sizes["input_views"] for group in measured.groups] == [1, 2, 3, 4]
    assert {(call.label, call.mode) for group in measured.groups for call in group.calls} == {
        ("efficient-lvsm", "full")
    }
    assert not measured.counts
    opened = open_scaling(folder)
    for part in opened.parts():
        assert verify.verify(part).problems == []
    points = [open_comparison(folder / "points" / "width" / str(width)).record for width in (4, 8, 16, 32)]
    assert [record.name for record in points] == [f"width-{width}" for width in (4, 8, 16, 32)]
    assert verify.verify(folder).problems == []
    table = (folder / "paper" / "width-points.tex").read_text()
    assert r"width & arm & parameters & training GFLOPs a sample" in table
    target = publish(folder, tmp_path / "results")
    assert target.name == "scaling-views-width-tiny"
    assert verify.verify(target).problems == []
    assert load(target / "scaling.json")["curves"][1]["comparison"] == "elsewhere/planted.yaml"
    assert not any(target.rglob("checkpoint.safetensors"))
    assert "is finished; nothing to measure" in isochron("scaling-curve", "--out", folder).out
    for name in (
        "manifest.json",
        "costs/views/manifest.json",
        "points/width/8/manifest.json",
        "points/width/8/table.tex",
        "points/width/16/table.tex",
    ):
        (folder / name).unlink()  # as if it had been killed just before it wrote them
    write_json(folder / "scaling.json", {**load(folder / "scaling.json"), "status": "running"})
    weights = (folder / "points" / "width" / "8" / "runs" / "plain" / "seed-0" / "run.json").read_bytes()
    again = isochron("scaling-curve", "--out", folder)
    assert again.code == 0, again.err
    assert (folder / "points" / "width" / "8" / "runs" / "plain" / "seed-0" / "run.json").read_bytes() == weights
    assert verify.verify(folder).problems == []
    (folder / "manifest.json").unlink()
    assert isochron("scaling-curve", "--out", folder).code == 0
    assert verify.verify(folder).problems == []
    assert "give it alone to go on" in isochron("scaling-curve", "--seeds", 2, "--out", folder).line


@pytest.mark.slow
def test_killed_in_a_call_and_in_a_run_it_goes_on_to_a_folder_that_verifies(tmp_path, cache):
    curves = []
    for name, content in (("views", COST), ("width", quality(tmp_path))):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
        curves.append(read_curve(tmp_path / f"{name}.yaml"))
    folder = tmp_path / "out"
    scaling.start(curves, folder, device="cpu", cache_dir=cache)
    timed, trained = folder / "costs/views/timings.jsonl", folder / "points/width/8/runs/plain/seed-0/events.jsonl"
    for watched in (timed, trained):
        err = tmp_path / f"err-{watched.stem}"
        with helpers.process("scaling-curve", "--out", folder, "--quiet", cache=cache, err=err) as child:
            while child.is_alive() and not (watched.exists() and watched.read_bytes().count(b"\n") >= 2):
                time.sleep(0.005)
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        assert (child.exitcode, err.read_text()) == (-signal.SIGKILL, "")
        assert load(folder / "scaling.json")["status"] == "running"
        assert isochron("verify", folder).code == 1
    done = isochron("scaling-curve", "--out", folder)
    assert done.code == 0, done.err
    assert verify.verify(folder).problems == []


@pytest.mark.slow
def test_a_point_that_diverges_stays_in_the_table_and_reaches_the_exit_code(tmp_path, cache):
    content = quality(tmp_path)
    content["points"][1]["set"]["training"] = {"learning_rate": 1e30, "gradient_clip": 0.0, "optimizer": "sgd"}
    (tmp_path / "width.yaml").write_text(yaml.safe_dump(content))
    done = isochron("scaling-curve", tmp_path / "width.yaml", "--device", "cpu", "--out", tmp_path / "out")
    assert done.code == 1
    assert "seed 0: diverged" in done.err
    said = (tmp_path / "out" / "paper" / "scaling.md").read_text()
    assert "Left out or in doubt: plain at 8, seed 0: diverged" in said
    assert "too few points" in said
    assert verify.verify(tmp_path / "out").problems == []


def test_a_full_disk_is_one_line_and_the_folder_can_be_gone_on_with(tmp_path, cache, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "views.yaml").write_text(yaml.safe_dump(COST))
    scaling.start([read_curve(tmp_path / "views.yaml")], tmp_path / "out", device="cpu", cache_dir=cache)
    with monkeypatch.context() as patch:
        patch.setattr("bench.store.files.os.fsync", full)
        assert "the disk is full; free some space" in isochron("scaling-curve", "--out", tmp_path / "out").line
    assert isochron("scaling-curve", "--out", tmp_path / "out", "-q").code == 0
    assert verify.verify(tmp_path / "out").problems == []
    (tmp_path / "out" / "paper" / "views-fits.csv").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("bench.store.files.os.fsync", full)
        assert "the disk is full" in isochron("scaling-curve", "--out", tmp_path / "out").line
    assert not (tmp_path / "out" / "paper" / "views-fits.csv").exists()


def test_two_processes_do_not_write_to_one_folder(tmp_path, cache):
    (tmp_path / "views.yaml").write_text(yaml.safe_dump(COST))
    made = scaling.start([read_curve(tmp_path / "views.yaml")], tmp_path / "out", device="cpu", cache_dir=cache)
    with ComparisonFolder(made.folder).locked():
        assert "another process is at work on it" in isochron("scaling-curve", "--out", made.folder).line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": "single"}, "curve width, point 4: reference: 'single' is none of the arms plain"),
        ({"metric": "beauty"}, "curve width, point 4: metric: 'beauty' is none of psnr"),
        ({"set": {"task": {"frames": 3}}}, "task.frames: unknown option"),
    ],
)
def test_what_a_point_lacks_is_told_before_anything_runs(tmp_path, cache, changes, said):
    (tmp_path / "width.yaml").write_text(yaml.safe_dump({**quality(tmp_path), **changes}))
    curve = read_curve(tmp_path / "width.yaml")
    with pytest.raises(UserError, match=re.escape(said)):
        scaling.start([curve], tmp_path / "out", cache_dir=cache)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"arms": [{"name": "a", "timed": {"label": "single"}}]},
            "arms: timed: no call 'single' (mode 'full') here; known: ",
        ),
        ({"timed_at": {}}, "timed_at: needs the size 'target_views'; add it"),
        ({"axis": ["frames"], "timed_at": {"input_views": 2, "target_views": 1}}, "axis: no call depends on 'frames'"),
        ({"preset": "huge"}, "preset: must be one of tiny, small, paper, got 'huge'"),
        (
            {"arms": [{"name": "a", "counted": {"label": "efficient-lvsm"}}], "axis": ["frames"]},
            "no row 'efficient-lvsm' (mode 'full') is counted",
        ),
    ],
)
def test_what_a_task_does_not_measure_is_told_before_anything_runs(tmp_path, cache, changes, said):
    curve = read_curve(write_curve(tmp_path / "mine.yaml", **changes))
    with pytest.raises(UserError, match=re.escape(said)):
        scaling.start([curve], tmp_path / "out", device="cpu", cache_dir=cache)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rows_are_counted_at_sizes_that_the_task_does_not_list_itself():
    curve = read_curve(shipped()["mae-tokens"])
    whole = task_efficiency("hydrology")
    swept = SweptEfficiency(whole, scaling.sweep_of(curve))
    listed = {(row.label, *sorted(row.sizes.items())) for row in whole.rows}
    ours = {row.sizes["days"]: row for row in swept.rows if row.label == "mae"}
    assert sorted(ours) == list(curve.counted_values)
    other = next(row for row in ours.values() if ("mae", *sorted(row.sizes.items())) not in listed)
    counted = count("hydrology", other)
    assert counted["sizes"] == other.sizes
    assert counted["counters"]["torch"] == counted["counters"]["closed_form"] > 0
    known = next(row for row in whole.rows if row.label == "mae" and ours[12].sizes.items() <= row.sizes.items())
    assert count("hydrology", ours[12]) == count("hydrology", known)
    taken = replace(ours[60], sizes={**ours[60].sizes, "days": 12})
    assert count("hydrology", taken) == count("hydrology", known)


@pytest.mark.usefixtures("figures_are_drawn")
def test_curves_of_stored_measurements_are_drawn_without_measuring(tmp_path):
    source = Path("results/cpu-2core/efficiency-nvs-tiny")
    done = isochron("scaling-curve", "--from", source, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "efficient-lvsm, GFLOPs (1 MAC = 2 FLOPs): exponent 1.00" in done.out
    assert verify.verify(tmp_path / "out").problems == []
    assert (
        "leave out --budget"
        in isochron("scaling-curve", "--from", source, "--budget", "3s", "--out", tmp_path / "b").line
    )
    line = isochron("scaling-curve", "mae-tokens", "--from", source, "--out", tmp_path / "c").line
    assert "no cost curve is about nvs" in line
