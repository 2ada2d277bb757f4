"""Counting and timing without training: numbers known from the published code, limits, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.console import Console
from bench.engine.blocks import Interrupted
from bench.errors import UserError
from bench.experiment import efficiency
from bench.experiment.efficiency import nvs, spec
from bench.experiment.efficiency.count import count_here, layer_counts
from bench.experiment.efficiency.spec import Started, TimedCall
from bench.experiment.efficiency.timing import Foresight, Limits, measure_group
from bench.store.efficiency import open_efficiency
from tests.experiment.helpers import isochron

CPU = torch.device("cpu")
PLENTY = Limits(seconds=100.0, bytes=2**40)


def row(label: str, mode: str = "full", **sizes: int) -> spec.Row:
    return next(
        row
        for row in nvs.ViewSynthesis.rows
        if (row.label, row.mode) == (label, mode) and sizes.items() <= row.sizes.items()
    )


def closed_form(row: spec.Row) -> tuple[int, int]:
    """Parameters and forward FLOPs of a row, the latter by its formula."""
    counted = nvs.ViewSynthesis().counted(row)
    with torch.device("meta"):
        model = counted.build()
    return sum(weight.numel() for weight in model.parameters()), model.flops(counted.batch)


@pytest.mark.parametrize(
    ("label", "parameters"),
    [
        ("lvsm-decoder-only", 170_795_520),
        ("lvsm-encoder-decoder", 173_154_816),
        ("efficient-lvsm", 199_070_208),
        ("efficient-lvsm-6", 99_977_472),
    ],
)
def test_parameters_of_the_published_models(label: str, parameters: int) -> None:
    assert closed_form(row(label, input_views=2, target_views=6))[0] == parameters


@pytest.mark.parametrize(
    ("label", "mode", "views", "tflop"),
    [
        ("lvsm-decoder-only", "full", (2, 1), 1.74),
        ("lvsm-decoder-only", "full", (2, 6), 10.44),
        ("lvsm-decoder-only", "full", (6, 7), 43.6),
        ("lvsm-decoder-only", "full", (32, 8), 765),
        ("lvsm-decoder-only", "full", (64, 8), 2794),
        ("lvsm-encoder-decoder", "full", (2, 6), 9.73),
        ("lvsm-encoder-decoder", "full", (32, 8), 64.0),
        ("efficient-lvsm", "full", (2, 6), 2.40),
        ("efficient-lvsm", "full", (6, 7), 4.78),
        ("efficient-lvsm", "full", (32, 8), 19.6),
        ("efficient-lvsm", "add", (4, 8), 3.41),
        ("efficient-lvsm", "add", (64, 8), 22.0),
    ],
)
def test_forward_computation_of_the_published_models(
    label: str, mode: str, views: tuple[int, int], tflop: float
) -> None:
    chosen = row(label, mode, input_views=views[0], target_views=views[1])
    assert closed_form(chosen)[1] / 1e12 == pytest.approx(tflop, rel=4e-3)


@pytest.mark.parametrize(
    ("label", "published", "thop"),
    [("lvsm-decoder-only", 8523, 8536.8), ("efficient-lvsm", 1325, 1325.7)],
)
def test_what_the_published_gflops_count(label: str, published: float, thop: float) -> None:
    counted = nvs.ViewSynthesis().counted(row(label, input_views=6, target_views=7))
    with torch.device("meta"):
        model = counted.build()
    macs, norms = layer_counts(model, {name: counted.batch[name] for name in counted.fields})
    assert macs / 1e9 == pytest.approx(published, rel=1e-3)
    assert (macs + norms) / 1e9 == pytest.approx(thop, abs=0.15)
    if label == "lvsm-decoder-only":  # without tokenisers and head it is the published number
        ends = 1024 * 768 * 64 * (9 * 6 + 6 * 7 + 3 * 7)
        assert int((macs - ends) / 1e9) == published


def test_a_row_is_counted_three_ways() -> None:
    record = count_here("nvs", row("efficient-lvsm:registers-4"))
    assert record["counters"] == dict.fromkeys(("torch", "fvcore", "closed_form"), record["counters"]["torch"])
    assert 2 * record["counters"]["torch"] / 1e9 == pytest.approx(1.225, abs=5e-4)
    assert record["parameters"] / 1e6 == pytest.approx(1.99, abs=5e-3)
    assert 2 * record["linear_macs"] < record["counters"]["torch"] < record["training_flops"]
    assert record["options"]["registers"] == 4


def test_rows_and_groups_are_unique() -> None:
    rows = [(row.label, row.mode, *sorted(row.sizes.items())) for row in nvs.ViewSynthesis.rows]
    assert len(set(rows)) == len(rows)
    groups = [tuple(group.items()) for group in nvs.ViewSynthesis().groups("tiny")]
    assert len(set(groups)) == len(groups)


@pytest.fixture(scope="module")
def calls() -> dict[str, TimedCall]:
    task = nvs.ViewSynthesis()
    torch.manual_seed(0)
    models = {label: model.eval() for label, model in task.models("tiny").items()}
    made = task.calls(models, {"input_views": 3, "target_views": 2}, "tiny", CPU, 0)
    return {f"{call.label}/{call.mode}": call for call in made}


def test_every_way_to_the_images_gives_the_same_ones(calls: dict[str, TimedCall]) -> None:
    assert {name.split("/")[1] for name in calls if name.startswith("efficient")} == {"full", "render", "add"}
    assert "lvsm-decoder-only/render" not in calls
    with torch.inference_mode():
        for label in ("lvsm-encoder-decoder", "efficient-lvsm"):
            whole = calls[f"{label}/full"].start().run()
            for name, call in calls.items():
                if name.startswith(label):
                    torch.testing.assert_close(call.start().run(), whole)


def test_the_flops_of_a_call_are_those_that_it_executes(calls: dict[str, TimedCall]) -> None:
    for call in calls.values():
        with torch.no_grad():
            run = call.start().run
            with FlopCounterMode(display=False) as counter:
                run()
        assert call.flops == counter.get_total_flops(), (call.label, call.mode)


def test_the_cache_is_two_numbers_a_token_channel_and_layer(calls: dict[str, TimedCall]) -> None:
    with torch.inference_mode():
        held = {name: call.start().held_bytes for name, call in calls.items()}
    a_view = 2 * 4 * 64 * 128 * 4  # keys and values, layers, tokens, width, bytes
    assert held["efficient-lvsm/render"] == 3 * a_view
    assert held["efficient-lvsm/add"] == 2 * a_view  # of the views that were there before
    assert held["efficient-lvsm/full"] == 0


def test_views_that_come_later_do_not_move_the_first_poses() -> None:
    few, many = (nvs.synthetic_batch(views, 3, 16, CPU, 0) for views in (2, 9))
    torch.testing.assert_close(few["input_c2w"], many["input_c2w"][:, :2], rtol=0, atol=0)
    assert not torch.equal(many["input_c2w"][:, -1], many["target_c2w"][:, 0])  # a target is no input


# ------------------------------------------------------------------------------------------------------------ timing


class Ticking:
    """A clock that calls move."""

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time


def timed(
    clock: Ticking, log: list[str], label: str, mode: str = "full", seconds: float = 1.0, **other: int
) -> TimedCall:
    def run() -> torch.Tensor:
        log.append(f"{label}/{mode}")
        clock.time += int(seconds * 1e9)
        return torch.full((2,), 0.25 if mode == "add" else 0.0)

    numbers = {"flops": 100, "start_flops": 0, "extent": 1, **other}
    return TimedCall(label, mode, **numbers, start=lambda: Started(run, 7))


def test_calls_are_timed_in_turn_and_compared_with_the_full_pass() -> None:
    clock, log = Ticking(), []
    group = [timed(clock, log, "a", seconds=2.0), timed(clock, log, "a", "add", seconds=0.5)]
    full, added = measure_group(group, PLENTY, Foresight(), CPU, clock.now, rounds=4)
    assert full["times_ms"] == [2000.0] * 4
    assert added["times_ms"] == [500.0] * 4
    assert log[6:] == ["a/full", "a/add", "a/add", "a/full", "a/add", "a/full", "a/full", "a/add"]
    assert (full["held_bytes"], full["live_bytes"]) == (7, 8)  # two floats are made
    assert "deviation" not in full
    assert added["deviation"] == 0.25


def test_a_call_that_is_foreseen_to_be_slow_is_run_once_before() -> None:
    clock, log, foresight = Ticking(), [], Foresight()
    measure_group([timed(clock, log, "a", seconds=4.0)], PLENTY, foresight, CPU, clock.now, rounds=1)
    assert len(log) == 3 + 1
    log.clear()
    slow = timed(clock, log, "a", seconds=8.0, flops=200)
    (record,) = measure_group([slow], PLENTY, foresight, CPU, clock.now, rounds=6)
    assert len(log) == 1 + 6
    assert (record["times_ms"], record["live_bytes"]) == ([8000.0] * 6, 8)
    assert foresight.seconds(slow) == 8.0
    log.clear()
    (refused,) = measure_group([slow], Limits(8.5, 2**40), foresight, CPU, clock.now, rounds=1)
    assert not refused["skipped"]
    slower = timed(clock, log, "a", seconds=9.0, flops=200)
    (refused,) = measure_group([slower], Limits(8.5, 2**40), foresight, CPU, clock.now, rounds=1)
    assert refused["skipped"] == "took 9 s, above the limit of 8.5 s"


@pytest.mark.parametrize("training", [False, True])
def test_training_calls_have_gradients_and_leave_autocast_after_each(training: bool) -> None:
    weight = torch.ones(2, 2, requires_grad=True)
    seen: list[tuple[bool, bool, torch.dtype]] = []

    def run() -> torch.Tensor:
        output = weight @ weight
        seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled(), output.dtype))
        if training:
            output.sum().backward()  # would fail the second time if the cast weight were kept from the first
        return output.detach()

    call = TimedCall("a", "step", 1, 0, 1, lambda: Started(run, 0))
    measure_group([call], PLENTY, Foresight(), CPU, Ticking().now, rounds=2, bf16=True, training=training)
    assert seen == [(not training, training, torch.bfloat16)] * 5


def test_a_call_that_would_take_too_long_is_not_started() -> None:
    clock, log, foresight = Ticking(), [], Foresight()
    limits = Limits(seconds=3.0, bytes=2**40)
    measure_group([timed(clock, log, "a")], limits, foresight, CPU, clock.now, rounds=1)
    log.clear()
    (slow,) = measure_group([timed(clock, log, "a", flops=400)], limits, foresight, CPU, clock.now, rounds=1)
    assert slow["skipped"] == "about 4 s a call foreseen, above the limit of 3 s"
    (prepared,) = measure_group([timed(clock, log, "a", start_flops=500)], limits, foresight, CPU, clock.now, rounds=1)
    assert prepared["skipped"].startswith("about 5 s")
    assert log == []
    assert "times_ms" not in slow


def test_a_call_that_would_take_too_much_memory_is_not_started() -> None:
    clock, log, foresight = Ticking(), [], Foresight()
    limits = Limits(seconds=100.0, bytes=2**20)
    measure_group([timed(clock, log, "a")], limits, foresight, CPU, clock.now, rounds=1)  # 8 bytes
    (large,) = measure_group([timed(clock, log, "a", extent=2**18)], limits, foresight, CPU, clock.now, rounds=1)
    assert large["skipped"] == "about 0.002 GiB foreseen, above the limit of 0.00098 GiB"


def test_a_call_that_turns_out_slow_is_left_out_and_remembered() -> None:
    clock, log, foresight = Ticking(), [], Foresight()
    limits = Limits(seconds=3.0, bytes=2**40)
    group = [timed(clock, log, "a", seconds=9.0), timed(clock, log, "b")]
    slow, fine = measure_group(group, limits, foresight, CPU, clock.now, rounds=2)
    assert slow["skipped"] == "took 9 s, above the limit of 3 s"
    assert log.count("a/full") == 1
    assert len(fine["times_ms"]) == 2
    assert foresight.reason(group[0], limits)


def test_running_out_of_memory_is_a_reason_and_other_errors_are_errors() -> None:
    def failing(message: str) -> TimedCall:
        def run() -> torch.Tensor:
            raise RuntimeError(message)

        return TimedCall("a", "full", 1, 0, 1, lambda: Started(run, 0))

    (record,) = measure_group([failing("CUDA out of memory")], PLENTY, Foresight(), CPU, Ticking().now, rounds=1)
    assert record["skipped"] == "ran out of memory"
    with pytest.raises(RuntimeError, match="broken"):
        measure_group([failing("broken")], PLENTY, Foresight(), CPU, Ticking().now, rounds=1)


# ----------------------------------------------------------------------------------------------------- the whole thing


class Small(nvs.ViewSynthesis):
    """The task's part with two rows and two groups."""

    rows = (row("efficient-lvsm:none"), row("efficient-lvsm:cross"))

    def groups(self, preset: str) -> tuple[spec.Sizes, ...]:
        return ({"input_views": 3, "target_views": 1}, {"input_views": 2, "target_views": 1})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Measure `Small` with a stand-in for counting; returns the labels that were counted as it goes."""
    counted: list[str] = []

    def count(task: str, row: spec.Row) -> dict[str, object]:
        counted.append(row.label)
        numbers = dict.fromkeys(("parameters", "training_flops", "linear_macs", "norm_ops"), 1)
        return {"label": row.label, "mode": row.mode, "sizes": dict(row.sizes), "counters": {"torch": 1}, **numbers}

    monkeypatch.setattr(efficiency, "task_efficiency", lambda task: Small())
    monkeypatch.setattr(efficiency, "count", count)
    return counted


def measure(folder: Path, **options: object) -> Path:
    return efficiency.measure("nvs", out=folder, device="cpu", console=Console(quiet=True), **options)  # type: ignore[arg-type]


def test_a_measurement_is_stored_and_goes_on_where_it_stopped(small: list[str], tmp_path: Path) -> None:
    folder, asked = tmp_path / "made", iter([False, False, False, True])  # two rows, one group, then stop
    with pytest.raises(Interrupted, match=f"measure-efficiency nvs --out {folder}"):
        measure(folder, stop_requested=lambda: next(asked))
    assert open_efficiency(folder).record.status == "running"
    first = (folder / "timings.jsonl").read_text()
    assert json.loads(first)["sizes"]["input_views"] == 2  # the cheaper group comes first
    measure(folder)
    opened = open_efficiency(folder)
    assert small == ["efficient-lvsm:none", "efficient-lvsm:cross"]  # nothing was counted twice
    assert (folder / "timings.jsonl").read_text().startswith(first)
    assert (opened.record.status, opened.record.preset, opened.record.precision) == ("finished", "tiny", "fp32")
    assert (opened.record.device.threads, opened.record.timed_by) == (1, "processor time")
    assert [architecture.label for architecture in opened.record.architectures] == list(nvs.FAMILIES)
    call = opened.call("efficient-lvsm", {"input_views": 3}, "add")
    assert call is not None
    assert len(call.times_ms) == opened.record.rounds >= 6
    assert call.deviation == pytest.approx(0, abs=1e-5)
    assert set(json.loads((folder / "manifest.json").read_text())["sha256"]) >= {
        "efficiency.json", "counts.jsonl", "timings.jsonl", "provenance/git.json", "provenance/environment.json",
    }  # fmt: skip


def test_measured_rendered_published_and_verified_by_the_command(small: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "made"
    assert isochron("measure-efficiency", "--device", "cpu", "--out", folder, "--quiet").code == 0
    assert isochron("verify", folder).code == 0
    outcome = isochron("publish", folder, "--to", tmp_path / "results")
    assert outcome.code == 0, outcome.err
    (published,) = (tmp_path / "results").glob("cpu-*/efficiency-nvs-tiny")
    assert isochron("paper-tables", published, "--out", tmp_path / "again").code == 0
    for name in ("tables.md", "parameters.csv", "views.pdf"):
        assert (tmp_path / "again" / name).read_bytes() == (published / "paper" / name).read_bytes()
    (published / "counts.jsonl").write_text((published / "counts.jsonl").read_text().replace("1", "2"))
    outcome = isochron("verify", published)
    assert outcome.code == 1
    assert "counts.jsonl was changed" in outcome.out


def test_a_folder_of_other_measurements_is_refused(small: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "made"
    with pytest.raises(Interrupted):
        measure(folder, stop_requested=lambda: True)
    with pytest.raises(UserError, match=r"another preset; give another folder"):
        measure(folder, preset="small")
    record = json.loads((folder / "efficiency.json").read_text())
    (folder / "efficiency.json").write_text(json.dumps({**record, "code_sha256": "0"}))
    with pytest.raises(UserError, match="another code_sha256"):
        measure(folder)


def test_unknown_task_and_preset(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match="task 'weather': has no efficiency tables; known: hydrology, masked-image, nvs, openvocab, tracking, vos",
    ):
        efficiency.measure("weather", console=Console(quiet=True), out=tmp_path)
    with pytest.raises(UserError, match="preset 'huge': is none of tiny, small, paper"):
        measure(tmp_path / "made", preset="huge")
