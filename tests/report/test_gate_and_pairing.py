"""A comparison whose reference does not beat a trivial predictor ranks nothing; clips pair what shares their name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.aggregates import aggregate
from bench.report import plots, tables
from bench.report.summary import compare, summarise
from bench.store.read import open_comparison
from tests.report.fake_store import METRICS, FakeStore


def task(**more):
    return {"name": "nvs", "options": {}, "metrics": METRICS, **more}


def section(table, title):
    return next(section for section in table.sections if section.title.startswith(title))


def gated(make_store, margin):
    gate = {"metric": "psnr", "reference": "nearest-view", "margin": margin}
    return make_store(comparison={"task": task(gate=gate)})


def test_without_the_margin_nothing_is_ranked(make_store):
    comparison = gated(make_store, 30.0)
    table = tables.build(comparison)
    assert len(table.verdicts) == 1
    assert table.verdicts[0].startswith("Inconclusive, no ranking: lvsm-decoder-only (")
    assert "arms are ranked from 30 on" in table.verdicts[0]
    assert not any(cell.bold for row in section(table, "Quality").rows for cell in row)
    views = section(table, "Four views")
    assert {row[views.headings.index("leader")].text for row in views.rows} == {"no ranking"}
    assert not any("leads" in sentence for sentence in views.sentences)
    paired = section(table, "Paired by seed")
    assert paired.rows, "the numbers themselves stay"
    assert {row[paired.headings.index("P(better)")].text for row in paired.rows} == {"–"}
    assert not paired.sentences, "no crossover"


def test_with_the_margin_the_ranking_stands_and_the_caption_says_what_was_asked(make_store):
    table = tables.build(gated(make_store, 0.1))
    assert len(table.verdicts) == 2
    assert any(cell.bold for row in section(table, "Quality").rows for cell in row)
    assert any("which learns nothing" in line and "arms are ranked from 0.1 on" in line for line in table.caption)


def test_the_gate_judges_the_worst_policy(make_store):
    outcome = summarise(gated(make_store, 0.1)).gate
    assert outcome.arm.arm.policy == "fill", "whose reference arm has the lower ceiling"
    assert outcome.ahead == pytest.approx(outcome.reached - outcome.floor)


@pytest.mark.parametrize("policies", [("fill",), ("fill", "knee")])
def test_a_reference_that_did_not_finish_ranks_nothing(make_store, policies):
    gate = {"metric": "psnr", "reference": "nearest-view", "margin": 0.1}
    failed = {(f"lvsm-decoder-only.{policy}", seed): "diverged" for policy in policies for seed in (0, 1, 2)}
    table = tables.build(make_store(comparison={"task": task(gate=gate)}, statuses=failed))
    (verdict,) = table.verdicts
    assert verdict.startswith(
        "Inconclusive, no ranking: no run of lvsm-decoder-only has finished under every batch policy"
    )
    assert not any(cell.bold for row in section(table, "Quality").rows for cell in row)


def test_without_the_predictor_that_learns_nothing_nothing_is_ranked(make_store):
    gate = {"metric": "psnr", "reference": "nearest-view", "margin": 0.1}
    (verdict,) = tables.build(make_store(comparison={"task": task(gate=gate)}, learn_nothing=False)).verdicts
    assert "'nearest-view', which learns nothing, was not scored" in verdict


@pytest.mark.parametrize(("margin", "passed"), [(0.5, False), (-10.0, True)])
def test_where_lower_is_better_ahead_is_below(make_store, margin, passed):
    gate = {"metric": "st_lpips", "reference": "depth-warp", "margin": margin}
    outcome = summarise(make_store(comparison={"task": task(gate=gate)})).gate
    assert outcome.ahead == pytest.approx(outcome.floor - outcome.reached)
    assert outcome.passed == passed


def test_only_means_are_paired_by_what_samples_have_in_common(tmp_path: Path):
    metrics = [METRICS[0], {**METRICS[1], "aggregate": "median"}]
    folder = FakeStore(comparison={"task": {**task(pairing="scene"), "metrics": metrics}}).write(tmp_path / "store")
    comparison = open_comparison(folder)
    assert set(compare(summarise(comparison))[0].unit_differences) == {"psnr"}
    assert {row[2].text for row in section(tables.build(comparison), "Paired by scene").rows} == {"PSNR (dB)"}


def test_scenes_are_paired_over_common_seeds_alone(tmp_path: Path):
    arm = "efficient-lvsm.fill"
    store = FakeStore(comparison={"task": task(pairing="scene")}, statuses={(arm, 2): "diverged"})
    summary = summarise(open_comparison(store.write(tmp_path / "store")))
    pair = compare(summary)[0]
    both = [pair.reference.finals["psnr"][seed] for seed in (0, 1)]
    ours = [pair.arm.finals["psnr"][seed] for seed in (0, 1)]
    assert pair.unit_differences["psnr"].mean == pytest.approx(sum(ours) / 2 - sum(both) / 2)


def test_scenes_are_paired_as_the_task_says(tmp_path: Path):
    folder = FakeStore(comparison={"task": task(pairing="scene")}).write(tmp_path / "store")
    for path in folder.glob(
        "runs/*/*/evals.jsonl"
    ):  # test/scene-0001/target-0, as tasks with pairing name their samples
        path.write_text(path.read_text().replace('"sample": "scene', '"sample": "test/scene'))
    comparison = open_comparison(folder)
    summary = summarise(comparison)
    pair = compare(summary)[0]
    difference = pair.unit_differences["psnr"]
    assert difference.count == 8, "scenes, not their 16 targets"
    assert difference.mean == pytest.approx(pair.differences["psnr"].mean), "all scenes have as many targets"
    table = tables.build(comparison)
    shown = section(table, "Paired by scene")
    assert {row[-1].text for row in shown.rows} == {"8"}
    row = next(row for row in table.rows if row["label"] == "efficient-lvsm")
    assert row["psnr_difference_by_scene_pairs"] == 8
    assert row["psnr_difference_by_scene"] == pytest.approx(difference.mean)


def test_no_pairing_no_section(full):
    assert not any("by scene" in section.title for section in tables.build(full).sections)
    assert not any("_by_" in key for key in tables.build(full).rows[0])


def test_a_pooled_metric_is_a_quotient_of_sums_averaged_over_its_parts():
    values = [{"cat": [1, 2], "dog": [0, 0]}, {"cat": [3, 8], "dog": [0, 0]}, {"bird": [5, 5]}]
    assert aggregate(values, "pooled") == pytest.approx((100 * 4 / 10 + 100) / 2)
    assert aggregate([], "pooled") != aggregate([], "pooled"), "NaN of nothing"


def test_a_pooled_metric_stands_in_tables(tmp_path: Path):
    pooled = {"name": "miou", "label": "mIoU (%)", "higher_is_better": True, "digits": 1, "aggregate": "pooled"}
    folder = FakeStore(comparison={"task": {**task(), "metrics": [METRICS[0], pooled]}}).write(tmp_path / "store")
    for path in folder.glob("runs/*/*/evals.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for number, record in enumerate(lines[-1]["records"]):
            record["miou"] = {"thing": [number, 16], "stuff": [1, 2]}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = tables.build(open_comparison(folder)).rows[0]
    assert row["miou"] == pytest.approx(100 * (sum(range(16)) / 256 + 0.5) / 2)


@pytest.mark.parametrize(
    ("points", "higher", "kept"),
    [
        ([(1, 10), (2, 12), (3, 11)], True, [0, 1]),
        ([(1, 10), (1, 12), (3, 12)], True, [1]),
        ([(2, 0.3), (1, 0.5), (3, 0.1)], False, [1, 0, 2]),
        ([], True, []),
    ],
)
def test_the_front_keeps_what_nothing_beats_in_both(points, higher, kept):
    assert plots.front(points, higher_is_better=higher) == kept


def test_the_front_shows_every_arm_that_was_timed(full):
    with plots.style():
        figure = plots.draw_front(summarise(full))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "latency at inference (ms a sample)"
    assert len(axes.get_legend_handles_labels()[1]) == 4
