"""The verdicts on claims about counts and times, and what decides them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import PROTOCOL
from bench.report.claims.outcome import decide
from bench.stats import Interval
from tests.report.claim_cases import PAIR, a_claim, row, verdict, write_runs

__all__ = ["write_runs"]


# ------------------------------------------------------------------------------------------------------ counts and times


def a_count(label: str, views: int, flops: float) -> dict[str, Any]:
    counters = dict.fromkeys(("torch", "fvcore", "closed_form"), int(flops))
    sizes = {"input_views": views, "target_views": 1}
    rest = {"parameters": 12_340_000, "training_flops": int(3 * flops), "linear_macs": 1, "norm_ops": 1}
    return {
        "label": label,
        "mode": "full",
        "sizes": sizes,
        "counters": counters,
        "parts": {"decoder": int(flops)},
        **rest,
    }


def a_call(label: str, ms: float) -> dict[str, Any]:
    """Rounds that differ from one another, every call alike, but for a little of its own."""
    times = [ms * (1 + 0.1 * step) * (1 + 0.002 * math.sin(step * len(label))) for step in range(7)]
    return {"label": label, "mode": "full", "flops": 1, "times_ms": times, "live_bytes": int(ms), "deviation": 1e-7}


@pytest.fixture
def measurements(tmp_path: Path) -> Path:
    """The first design costs the square of the views, the second the views; both were timed at 8 views, 4 to 1."""
    folder = tmp_path / "cpu-2core/efficiency-nvs-tiny"
    folder.mkdir(parents=True)
    record = {
        **{"schema": 1, "protocol": PROTOCOL, "name": "efficiency-nvs", "task": "nvs", "preset": "tiny", "status": "finished"},
        "device": {"kind": "cpu", "name": "Some CPU", "cores": 2, "threads": 1, "torch": "2.15"},
        **{"precision": "fp32", "timed_by": "processor time", "rounds": 7, "seed": 0, "limit_seconds": 9.0},
        **{"limit_bytes": 1, "architectures": [], "code_sha256": "0"},
    }  # fmt: skip
    counts = [a_count(label, views, 1e9 * views**power) for views in (2, 4, 8) for label, power in (("a", 2), ("b", 1))]
    groups = [{"sizes": {"input_views": v, "target_views": 1}, "load": 0.1, "calls": [a_call("a", v * v), a_call("bb", 2 * v)]}
              for v in (2, 4, 8)]  # fmt: skip
    (folder / "efficiency.json").write_text(json.dumps(record))
    for name, lines in (("counts", counts), ("timings", groups)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    ("measure", "quoted", "status"),
    [
        ({"first": row("a"), "per": 1e9}, 64, "reproduced"),
        ({"first": row("a"), "per": 1e9}, 64.5, "not reproduced"),
        ({"first": row("a", quantity="parameters"), "per": 1e6}, 12.3, "reproduced"),
        ({"first": row("a", quantity="parameters"), "per": 1e6}, 12.4, "not reproduced"),
        ({"first": row("a", quantity="decoder"), "second": row("b"), "form": "ratio"}, 8, "reproduced"),
        ({"first": row("a"), "second": row("b"), "form": "saving"}, 87.5, "reproduced"),
        ({"first": row("a"), "second": row("b"), "form": "difference", "per": 1e9}, 56, "reproduced"),
        ({"first": row("a", quantity="deviation"), "expected": {"below": 1e-6}}, None, "reproduced"),
        ({"first": row("a", quantity="deviation"), "expected": {"below": 1e-8}}, None, "not reproduced"),
        ({"first": row("nobody")}, 1, "not testable here"),
    ],
)
def test_counts_agree_within_the_rounding_of_the_print(
    measurements: Path, measure: dict[str, Any], quoted: float | None, status: str
) -> None:
    assert verdict({"kind": "counted", **measure}, measurements, value=quoted).status == status


def test_the_digits_of_the_print_may_be_given(measurements: Path) -> None:
    measure = {"kind": "counted", "first": row("a", quantity="parameters")}
    assert verdict(measure, measurements, value=12_000_000).status == "not reproduced"
    assert verdict(measure, measurements, value=12_000_000, digits=-6).status == "reproduced"


def test_times_are_compared_round_by_round(measurements: Path) -> None:
    measure = {"kind": "timed", "sizes": {"input_views": 8}, "first": {"label": "a"}, "second": {"label": "bb"}}
    found = verdict(measure, measurements, value=4.0, digits=1)
    assert (found.status, found.device) == ("reproduced", "cpu: Some CPU")
    assert "a/full over bb/full: 4.00 [" in found.shown
    assert verdict(measure, measurements, value=3.0).status == "not reproduced"
    assert (
        verdict({**measure, "second_sizes": {"input_views": 4}}, measurements, value=8.0, digits=1).status
        == "reproduced"
    )
    gpu = verdict({**measure, "device": "cuda"}, measurements, value=4.0)
    assert (gpu.status, gpu.reason) == ("not testable here", "the claim is about a GPU, this was timed on a cpu")
    assert gpu.command == "isochron measure-efficiency nvs --preset tiny --device cuda"


def test_bytes_are_of_the_scale_that_was_run_and_counts_of_any(measurements: Path) -> None:
    counted = {"kind": "counted", "first": row("a"), "per": 1e9}
    assert verdict(counted, measurements, value=64, scale="paper").status == "reproduced"
    called = {"kind": "counted", "first": row("a", quantity="bytes")}
    assert verdict(called, measurements, value=64).status == "reproduced"
    assert "tiny is below paper" in verdict(called, measurements, value=64, scale="paper").reason


@pytest.mark.parametrize(
    ("of", "label", "power"), [("flops", "a", 2), ("flops", "b", 1), ("time", "a", 2), ("time", "bb", 1)]
)
def test_exponents_are_those_of_the_growth(measurements: Path, of: str, label: str, power: int) -> None:
    measure = {"kind": "slope", "of": of, "call": {"label": label}, "axis": "input_views", "at": [2, 4, 8],
               "sizes": {"target_views": 1}}  # fmt: skip
    window = {"within": [power - 0.25, power + 0.25]}
    assert verdict({**measure, "expected": window}, measurements).status == "reproduced"
    away = {"within": [power + 0.5, power + 1.0]}
    assert verdict({**measure, "expected": away}, measurements).status == "not reproduced"
    assert verdict({**measure, "expected": window, "at": [2, 4, 8, 99]}, measurements).status == "not testable here"


def test_untestable_claims_say_why_and_what_comes_near() -> None:
    commands = [
        "isochron run nvs --preset paper --budget 72h --seeds 5",
        "isochron measure-efficiency nvs --device cuda",
    ]
    found = verdict({"kind": "untestable", "reason": "nobody has it", "commands": commands})
    assert (found.status, found.reason, found.command) == ("not testable here", "nobody has it", "; ".join(commands))
    assert found.cost == (
        "72 h x 2 arms x 5 seeds = 720 h charged, on one GPU; no training: counting and timing alone, on a GPU"
    )


# ------------------------------------------------------------------------------------------------------------- decisions

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.tuples(FINITE, FINITE).map(sorted), FINITE)
def test_above_and_below_never_agree_and_both_fail_only_together(ends: list[float], bound: float) -> None:
    interval, measure = Interval(*ends), {**PAIR, "metric": "psnr"}
    above, below = (
        decide(claim, claim.measure.expected, interval)  # type: ignore[union-attr]
        for claim in (a_claim({**measure, "expected": {side: bound}}) for side in ("above", "below"))
    )
    assert not (above and below)
    if ends[0] < bound < ends[1]:
        assert above is below is None
    if bound not in ends:
        assert (above is True) == (below is False)


@given(FINITE, st.integers(0, 4))
def test_a_count_agrees_with_its_own_rounding_and_with_nothing_further(value: float, digits: int) -> None:
    printed = round(value, digits)
    claim = a_claim({"kind": "counted", "first": row("a")}, value=printed, digits=digits)
    step = 10.0**-digits
    assert decide(claim, None, Interval(value, value)) is True
    assert decide(claim, None, Interval(printed + 0.51 * step, printed + 0.51 * step)) is False
