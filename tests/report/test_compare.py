"""Two results beside each other: only rows that mean the same are joined, and what is said of them follows from the seeds."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from bench.contracts import Metric
from bench.errors import UserError
from bench.report.changes import Change, change, quotient, verdict
from bench.report.compare import compare
from bench.report.contrast import Contrast, render, to_csv, write
from bench.report.share import bundle
from bench.stats import Estimate, Interval
from bench.store.bundle import pack
from tests.report.fake_store import METRICS, TRAINING, FakeArm, FakeStore
from tests.report.sealed import ARMS, sealed
from tests.report.sealed import change as set_keys

PSNR = Metric("psnr", "PSNR (dB)", True, 2)
LIFTED = (ARMS[0], FakeArm("dual", "fill", ceiling=21.4, rate=0.06, steps=64, batch=8))
TASK: dict[str, Any] = {"name": "nvs", "options": {"views": 2, "data_path": "/here/scenes"}, "metrics": METRICS}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A result folder; keys of comparison.json may be given beside the options of `FakeStore`."""

    def store(name: str, pinned: dict[str, str] | None = None, **options: Any) -> Path:
        folder = FakeStore(**({"arms": ARMS, "reference": "plain"} | options)).write(tmp_path / name)
        if pinned is not None:
            (folder / "pinned.json").write_text(json.dumps({"weights": {}, "data": pinned}))
        return folder

    return store


def one(a: Path, b: Path, *vouched: str) -> Contrast:
    found = compare(a, b, vouched)
    assert len(found) == 1
    return found[0]


def rows(found: Contrast, quantity: str) -> dict[str, dict[str, str]]:
    """Rows of the CSV by arm."""
    table = csv.DictReader(io.StringIO(to_csv([found])))
    return {row["row"]: row for row in table if row["quantity"] == quantity}


def reasons(found: Contrast) -> dict[str, str]:
    return dict(found.apart)


def test_a_result_against_itself_is_the_same_and_says_that_this_is_no_evidence(make):
    a = make("a")
    found = one(a, a)
    assert found.differing == ()
    assert found.apart == ()
    assert [line.split(":")[1].split(";")[0].strip() for line in found.verdicts[:2]] == ["same", "same"]
    assert "nothing was measured twice" in found.verdicts[-1]
    assert {row["verdict"] for name in ("psnr", "ssim", "st_lpips") for row in rows(found, name).values()} == {"same"}
    assert {row["verdict"] for row in rows(found, "parameters").values()} == {"same"}
    assert "| nothing that the results tell |" in render([found])


def test_a_lifted_arm_is_better_paired_and_the_other_way_round_worse(make):
    a, b = make("a"), make("b", arms=LIFTED, noise=0.2)
    there, back = one(a, b), one(b, a)
    assert not any("measured twice" in line for line in there.verdicts)
    for name, lower in (("psnr", False), ("st_lpips", True)):
        row, other = rows(there, name)["dual"], rows(back, name)["dual"]
        assert (row["method"], row["verdict"], other["verdict"]) == ("paired", "better", "worse")
        assert (float(row["value"]) < 0) == lower
        assert float(row["value"]) == -float(other["value"])
        assert float(row["value"]) == pytest.approx(float(row["b"]) - float(row["a"]))
        assert float(row["low"]) < float(row["value"]) < float(row["high"])
    assert rows(there, "psnr")["plain"]["verdict"].startswith("cannot tell (MDE ")
    assert any(line.startswith("dual (fill): better; B - A: +") and line.endswith(" dB") for line in there.verdicts)


def test_seeds_of_other_sample_streams_are_two_samples(make):
    a, b = make("a"), make("b", arms=LIFTED)
    for path in b.glob("runs/*/seed-2/run.json"):
        set_keys(path, stream_sha256="f" * 64)
    row, values = rows(one(a, b), "psnr")["dual"], []
    assert row["method"] == "Welch"
    for folder in (a, b):
        last = [(path / "evals.jsonl").read_text().splitlines()[-1] for path in sorted(folder.glob("runs/dual.fill/*"))]
        values.append([np.mean([record["psnr"] for record in json.loads(line)["records"]]) for line in last])
    expected = distributions.ttest_ind(values[1], values[0], equal_var=False).confidence_interval()
    assert (float(row["low"]), float(row["high"])) == pytest.approx((expected.low, expected.high))


def test_seeds_that_only_one_side_has_do_not_pair(make):
    a, b = make("a"), make("b", seeds=(1, 2, 3, 4))
    row = rows(one(a, b), "psnr")["dual"]
    assert (row["method"], row["seeds_a"], row["seeds_b"]) == ("paired", "3", "4")
    assert float(row["value"]) == 0.0, "seeds 1 and 2 are the same in both"
    row = rows(one(a, make("c", seeds=(2, 3, 4))), "psnr")["dual"]
    assert row["method"] == "Welch", "one pair has no interval"
    assert row["verdict"].startswith("cannot tell (MDE ")


def test_everything_that_differs_is_told_first(make):
    device = FakeStore()._comparison()["device"]
    a = make("a")
    b = make(
        "b",
        seeds=(0, 1),
        training={"dual": TRAINING | {"weight_decay": 0.1}},
        comparison={"precision": "bf16 autocast", "device": device | {"threads": 2, "torch": "2.16.0"}},
    )
    for folder, commit in ((a, "1" * 40), (b, "2" * 40)):
        (folder / "provenance").mkdir()
        (folder / "provenance" / "git.json").write_text(json.dumps({"commit": commit, "dirty": commit[0] == "2"}))
    found = one(a, b)
    told = {what: (first, second) for what, first, second in found.differing}
    assert told["commit"] == ("1" * 12, "2" * 12 + ", with changes")
    assert told["precision"] == ("fp32", "bf16 autocast")
    assert told["device.threads"] == ("1", "2")
    assert told["device.torch"] == ("2.15.0", "2.16.0")
    assert told["seeds"] == ("(0, 1, 2)", "(0, 1)")
    assert told["dual (fill), training.weight_decay"] == ("0.05", "0.1")
    assert not any("plain" in what for what in told)
    text = render([found])
    assert text.index("## What differs") < text.index("## Verdicts") < text.index("## Quality")
    assert "Devices or threads differ" in text
    assert "Devices or threads differ" not in render([one(a, a)])


def test_another_budget_forbids_to_compare_quality_but_not_cost(make):
    found = one(make("a"), make("b", budget_s=50.0))
    assert reasons(found) == {"quality of every arm": "budget: 25 s, 50 s"}
    assert rows(found, "psnr") == {}
    assert rows(found, "latency_ms")["dual"]["value"] == "1.0"
    assert found.verdicts == ()


def test_other_data_forbid_to_compare_quality(make):
    a, b = (make(name, pinned={"train": "0", "test": name}) for name in "ab")
    assert reasons(one(a, b)) == {"quality of every arm": "data: other test"}
    assert ("data, test", "a", "b") in one(a, b).differing


def test_where_the_data_lay_matters_only_without_their_digest(make):
    there = TASK | {"options": TASK["options"] | {"data_path": "/there/pictures"}}
    moved = TASK | {"options": TASK["options"] | {"data_path": "elsewhere/scenes"}}
    a, b, c = (make(name, comparison={"task": task}) for name, task in (("a", TASK), ("b", there), ("c", moved)))
    assert reasons(one(a, b)) == {"quality of every arm": "task.data_path: elsewhere/scenes, elsewhere/pictures"}
    assert one(a, c).apart == ()
    assert "/here" not in render([one(a, b)])
    for folder in (a, b):
        (folder / "pinned.json").write_text(json.dumps({"data": {"test": "0"}}))
    assert one(a, b).apart == ()


def test_other_options_of_the_task_forbid_it_unless_the_reader_vouches(make):
    other = TASK | {"options": TASK["options"] | {"views": 4, "late": False}}
    a, b = make("a", comparison={"task": TASK}), make("b", comparison={"task": other})
    assert reasons(one(a, b)) == {"quality of every arm": "task.views: 2, 4; task.late: not there, off"}
    assert rows(one(a, b), "train_samples_per_s")["dual"]["change"] == "quotient", "equal counts are equal work"
    found = one(a, b, "task.views", "task.late")
    assert found.apart == ()
    assert "taken as equal, as asked: task.late, task.views" in found.verdicts
    assert ("task.views", "2", "4") in found.differing


def test_times_of_other_work_are_not_divided(make):
    other = TASK | {"options": {"views": 4}}
    a, b = make("a", comparison={"task": TASK}), make("b", comparison={"task": other})
    measured = json.loads((b / "arms" / "dual.fill.json").read_text())
    measured["flops"]["training_per_sample"] += 1
    (b / "arms" / "dual.fill.json").write_text(json.dumps(measured))
    found = one(a, b)
    assert "task.views" in reasons(found)["dual (fill), times"]
    assert rows(found, "train_samples_per_s")["dual"]["value"] == ""
    row = rows(found, "training_flops_per_sample")["dual"]
    assert (row["verdict"], float(row["b"]) - float(row["a"])) == ("different", 1)
    assert "A 4.80, B 4.80 (× 1.00000)" in render([found]), "a difference of one is a difference"


def test_arms_of_other_options_and_arms_of_one_side_are_not_joined(make):
    a, b = make("a"), make("b", arms=(ARMS[0], FakeArm("third", "fill", 17, 0.1, 60, 8)))
    assert reasons(one(a, b)) == {"dual (fill)": "only in A", "third (fill)": "only in B"}
    assert list(rows(one(a, b), "psnr")) == ["plain"]
    record = json.loads((b / "comparison.json").read_text())
    record["arms"][0]["options"] = {"width": 256, "gradient_checkpointing": False}
    (b / "comparison.json").write_text(json.dumps(record))
    assert reasons(one(a, b))["plain (fill)"] == "width: 128, 256"
    assert rows(one(a, b), "parameters") == {}
    assert "plain (fill)" not in reasons(one(a, b, "width"))


def test_a_metric_of_another_definition_is_not_joined(make):
    metrics = [METRICS[0] | {"note": "told otherwise"}, METRICS[1] | {"aggregate": "median"}]
    found = one(make("a", comparison={"task": TASK}), make("b", comparison={"task": TASK | {"metrics": metrics}}))
    assert reasons(found) == {"metric st_lpips": "only in A", "metric ssim": "aggregate: mean, median"}
    assert rows(found, "psnr")
    assert ("metric psnr, note", "per image, range [0, 1]", "told otherwise") in found.differing


def test_other_test_samples_are_not_joined(make):
    a, b = make("a"), make("b")
    for path in b.glob("runs/dual.fill/*/evals.jsonl"):
        path.write_text(path.read_text().replace("scene-0007", "scene-0008"))
    found = one(a, b)
    assert reasons(found)["dual (fill), PSNR (dB)"] == "other test samples"
    assert list(rows(found, "psnr")) == ["plain"]


def test_runs_that_did_not_finish_are_counted_and_contribute_nothing(make):
    b = make("b", statuses={("dual.fill", 0): "diverged", ("plain.fill", 0): "diverged", ("plain.fill", 1): "diverged"})
    found = one(make("a"), b)
    assert "3/3, 2/3" in render([found])
    assert rows(found, "psnr")["dual"]["seeds_b"] == "2"
    assert rows(found, "psnr")["plain"]["verdict"] == "cannot tell (1 seed has no interval)"


def test_another_protocol_is_refused(make):
    with pytest.raises(UserError, match=r"protocol is 1\.1"):
        compare(make("a"), make("b", comparison={"protocol": "1.1"}))


def test_bundles_give_the_same_and_several_results_are_joined_by_name(tmp_path):
    a, b = sealed(tmp_path / "a"), sealed(tmp_path / "b", arms=LIFTED)
    lone = sealed(tmp_path / "lone", comparison={"name": "other"})
    first = bundle([a], tmp_path / "a.tar.gz")
    assert to_csv(compare(first, b)) == to_csv(compare(a, b))
    found = compare(bundle([a, lone], tmp_path / "two.tar.gz"), b)
    assert to_csv(found[:1]) == to_csv(compare(a, b))
    assert found[1].apart == (("other-tiny", "only in A"),)
    assert "| other-tiny | only in A |" in render(found)
    with pytest.raises(UserError, match="hold no result of the same name"):
        compare(bundle([lone, a], tmp_path / "x.tar.gz"), sealed(tmp_path / "c", comparison={"name": "third"}))
    with pytest.raises(UserError, match="nvs-tiny: is in the bundle twice"):
        compare(bundle([a, b], tmp_path / "y.tar.gz"), b)
    for wrong in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="give a result folder or a bundle"):
            compare(wrong, b)


def test_a_damaged_record_in_a_bundle_is_named_by_the_bundle(tmp_path):
    a = sealed(tmp_path / "a")
    (a / "arms" / "dual.fill.json").write_text("{}")
    path = pack(tmp_path, [{"folder": "a"}], tmp_path.parent / f"{tmp_path.name}.tar.gz")
    with pytest.raises(UserError, match=rf"^{path}: a/arms/dual\.fill\.json: parameters: is missing"):
        compare(path, sealed(tmp_path / "b"))


def efficiency(folder: Path, **values: Any) -> Path:
    """A measurement of one architecture: one count, one call."""
    record = {
        "schema": 1, "protocol": "1.0", "name": "efficiency-nvs", "task": "nvs", "preset": "tiny", "status": "finished",
        "device": {"kind": "cpu", "name": "x", "cores": 2, "threads": 1, "torch": "2.15.0"}, "precision": "fp32",
        "timed_by": "wall time", "rounds": 7, "seed": 0, "limit_seconds": 5.0, "limit_bytes": 1, "code_sha256": "0",
        "architectures": [{"label": "net", "parameters": 10, "options": values.get("options", {"width": 8})}],
    }  # fmt: skip
    count = {
        "label": "net", "mode": "full", "sizes": {"views": 2}, "parameters": 10, "training_flops": values.get("flops", 300),
        "counters": {"torch": 100, "fvcore": None}, "linear_macs": 1, "norm_ops": 1,
    }  # fmt: skip
    times = [values.get("factor", 1.0) * (10 + 0.1 * number) for number in range(7)]
    call = {"label": "net", "mode": "full", "flops": 100, "times_ms": times, "live_bytes": 64, "skipped": ""}
    folder.mkdir()
    (folder / "efficiency.json").write_text(json.dumps(record))
    (folder / "counts.jsonl").write_text(json.dumps(count) + "\n")
    calls = [call, call | {"label": values.get("other", "slow"), "times_ms": [], "skipped": "too slow"}]
    (folder / "timings.jsonl").write_text(json.dumps({"sizes": {"views": 2}, "load": 0.1, "calls": calls}) + "\n")
    return folder


def test_efficiency_counts_must_be_equal_and_times_are_quotients(tmp_path):
    a, b = efficiency(tmp_path / "a"), efficiency(tmp_path / "b", factor=2.0, flops=301)
    found = one(a, b)
    assert found.verdicts[0] == "counts: 1 rows are on both sides, 0 of them equal to the last digit, 1 not"
    assert reasons(found) == {"times: slow, full, 2 views": "A skipped: too slow; B skipped: too slow"}
    assert "| net | full | 2 views | training FLOPs | 300 | 301 | 1.0033 |" in render([found])
    row = rows(found, "milliseconds")["net"]
    assert float(row["value"]) == pytest.approx(2.0)
    assert (float(row["low"]), float(row["high"])) == pytest.approx((2 * 10 / 10.6, 2 * 10.6 / 10))
    assert one(a, a).verdicts[0] == "counts: 1 rows are on both sides, 1 of them equal to the last digit"


def test_efficiency_of_other_options_is_not_timed_against_each_other(tmp_path):
    a, b = efficiency(tmp_path / "a"), efficiency(tmp_path / "b", options={"width": 8, "late": False}, other="third")
    found = one(a, b)
    assert reasons(found)["times: net"] == "late: not there, off"
    assert reasons(found)["times: slow, full, 2 views"] == "only in A"
    assert reasons(found)["times: third, full, 2 views"] == "only in B"
    assert rows(one(a, b, "late"), "milliseconds")["net"]["value"] == "1.0"
    record = json.loads((b / "efficiency.json").read_text())
    (b / "efficiency.json").write_text(json.dumps(record | {"preset": "small"}))
    assert "task, preset, image size" in reasons(one(a, b))["all times"]


def test_a_comparison_is_not_compared_with_a_measurement(make, tmp_path):
    with pytest.raises(UserError, match="one is a comparison, the other an efficiency measurement"):
        compare(make("a"), efficiency(tmp_path / "b"))


def test_files_are_the_same_twice_and_of_two_kinds(make, tmp_path):
    a, b = make("a"), make("b", arms=LIFTED)
    for name, said in (("out.md", "# nvs-tiny: A against B"), ("out.csv", "result,row,policy,quantity,a,")):
        write(compare(a, b), tmp_path / name)
        first = (tmp_path / name).read_bytes()
        assert first.decode().startswith(said)
        shutil.copytree(a, tmp_path / f"moved {name}")
        write(compare(tmp_path / f"moved {name}", b), tmp_path / name)
        assert (tmp_path / name).read_bytes() == first
    with pytest.raises(UserError, match=r"--out must end in \.md or \.csv"):
        write(compare(a, b), tmp_path / "out.txt")


values = st.lists(st.floats(-100, 100).map(lambda value: round(value, 3)), min_size=2, max_size=6)


@given(values, values)
def test_two_samples_have_welchs_interval_and_turn_their_sign_with_the_sides(first, second):
    sides = [dict(enumerate(side)) for side in (first, second)]
    there, back = change(*sides, paired=False), change(*sides[::-1], paired=False)
    assert there.mean == -back.mean
    assert there.interval == pytest.approx((-back.interval.high, -back.interval.low))
    assert there.detectable == pytest.approx(back.detectable)
    if np.ptp(first) > 0.01 and np.ptp(second) > 0.01:
        expected = distributions.ttest_ind(second, first, equal_var=False).confidence_interval()
        assert there.interval == pytest.approx((expected.low, expected.high))


def test_the_mde_of_two_samples_is_found_in_eight_of_ten_experiments():
    generator = np.random.default_rng(0)
    first, second = (generator.normal(0, scatter, size=(4000, count)) for scatter, count in ((1.0, 5), (2.0, 8)))
    error = math.sqrt(1.0 / 5 + 4.0 / 8)
    typical = (1 / 5 + 4 / 8) ** 2 / ((1 / 5) ** 2 / 4 + (4 / 8) ** 2 / 7)
    # two samples with exactly these variances
    sides = [scatter * (x - x.mean()) / x.std(ddof=1) for scatter, x in ((1.0, np.arange(5.0)), (2.0, np.arange(8.0)))]
    found = change(*(dict(enumerate(side)) for side in sides), paired=False)
    assert found.interval.high == pytest.approx(distributions.t.ppf(0.975, typical) * error)
    p = distributions.ttest_ind(second + found.detectable, first, equal_var=False, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(
    ("mean", "half", "higher", "said"),
    [
        (1.0, 0.5, True, "better"),
        (1.0, 0.5, False, "worse"),
        (-1.0, 0.5, False, "better"),
        (1.0, 0.5, None, "different"),
        (1.0, 1.5, True, "cannot tell (MDE 2.00 dB)"),
        (0.001, 0.003, True, "same"),
        (0.002, 0.001, True, "same"),
        (0.004, 0.003, True, "better"),
    ],
)
def test_the_verdict_follows_from_the_interval(mean, half, higher, said):
    found = Change(mean, Interval(mean - half, mean + half), 2.0, "paired")
    assert verdict(found, PSNR._replace(higher_is_better=higher)) == said


def test_without_seeds_nobody_can_tell():
    assert verdict(change({}, {0: 1.0}, paired=False), PSNR) == "cannot tell (a side has no finished seed)"
    assert verdict(change({0: 1.0}, {0: 1.0, 1: 2.0}, paired=False), PSNR) == "cannot tell (1 seed has no interval)"


positive = st.floats(0.01, 1000)


@given(st.tuples(positive, positive, positive).map(sorted), st.tuples(positive, positive, positive).map(sorted))
def test_a_quotient_lies_in_its_interval_and_turns_over_with_the_sides(first, second):
    a, b = (Estimate(middle, Interval(low, high), 7) for low, middle, high in (first, second))
    there, back = quotient(a, b), quotient(b, a)
    assert there is not None
    assert back is not None
    assert there.interval.low <= there.value <= there.interval.high
    assert there.value * back.value == pytest.approx(1)
    assert there.interval.low * back.interval.high == pytest.approx(1)


def test_there_is_no_quotient_without_both_and_no_interval_without_both_intervals():
    known, bare = Estimate(2.0, Interval(1.0, 3.0), 7), Estimate(4.0, None, 3)
    assert quotient(None, known) is None
    assert quotient(known, Estimate(math.nan, None, 0)) is None
    assert quotient(known, bare) == Estimate(2.0, None, 3)
