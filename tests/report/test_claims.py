"""The verdicts on claims: from made-up results whose truth is known, what is decided and what is said."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench import PROTOCOL
from bench.errors import UserError
from bench.report import claims
from bench.report.claims import Claim, Verdict, judge, read_claims
from bench.report.claims.commands import cost, understand
from bench.report.claims.outcome import decide
from bench.stats import Interval
from tests.report.fake_store import FakeArm, FakeStore

BASE = {"id": "a-claim", "says": "One beats the other", "source": "a paper", "table": "Table 1", "task": "nvs", "scale": "tiny"}  # fmt: skip
PAIR = {"kind": "paired", "comparison": "nvs", "arm": "efficient-lvsm", "reference": "lvsm-decoder-only"}
FIVE = (0, 1, 2, 3, 4)


def a_claim(measure: dict[str, Any], **changes: Any) -> Claim:
    return Claim.model_validate({**BASE, "measure": measure, **changes})


def arms(first: float, second: float, *, steps: int = 100) -> tuple[FakeArm, ...]:
    """LVSM and Efficient-LVSM that end at these PSNRs; the second one takes `steps` steps, the first 100."""
    return (
        FakeArm("lvsm-decoder-only", "fill", first, 1.0, 100, 8),
        FakeArm("efficient-lvsm", "fill", second, 1.0, steps, 8),
    )


@pytest.fixture
def write_runs(tmp_path: Path) -> Callable[..., Path]:
    """A comparison in ``device/name``."""

    def write(where: str = "cpu-2core/nvs-tiny", **options: Any) -> Path:
        return FakeStore(**{"arms": arms(17.0, 18.0), "seeds": FIVE, "noise": 0.1, **options}).write(tmp_path / where)

    return write


def verdict(measure: dict[str, Any], *folders: Path, **changes: Any) -> Verdict:
    (found,) = judge([a_claim(measure, **changes)], folders)
    return found


def better(**changes: Any) -> dict[str, Any]:
    return {**PAIR, "metric": "psnr", "expected": {"above": 0}, **changes}


# --------------------------------------------------------------------------------------------------------- trained arms


def test_a_direction_is_reproduced_where_the_interval_lies_on_its_side(write_runs: Callable[..., Path]) -> None:
    found = verdict(better(), write_runs())
    assert (found.status, found.device, found.folders) == (
        "reproduced",
        "cpu: Fake 2-core CPU",
        ("cpu-2core/nvs-tiny",),
    )
    assert found.shown.startswith("efficient-lvsm - lvsm-decoder-only: PSNR (dB) +")
    assert "5 seeds" in found.shown
    assert found.command == found.cost == found.reason == ""


def test_a_direction_is_not_reproduced_on_the_other_side(write_runs: Callable[..., Path]) -> None:
    assert verdict(better(expected={"below": 0}), write_runs()).status == "not reproduced"


def test_an_interval_on_both_sides_tells_nothing_and_says_what_would_show(write_runs: Callable[..., Path]) -> None:
    found = verdict(better(), write_runs(arms=arms(17.0, 17.01), noise=1.0), value=0.2)
    assert found.status == "not testable here"
    assert "5 seeds cannot tell: a difference of" in found.reason
    assert "the claim is of 0.2" in found.reason
    assert "--seeds 10" in found.command


def test_fewer_seeds_than_the_protocol_asks_for_decide_nothing(write_runs: Callable[..., Path]) -> None:
    found = verdict(better(), write_runs(seeds=(0, 1, 2), noise=0.001))
    assert found.status == "not testable here"
    assert "+1.0" in found.shown
    assert found.reason.startswith("3 of the 5 seeds that a claim needs")
    assert found.command == "isochron run nvs --preset tiny --seeds 5"
    assert found.cost == "25 s x 2 arms x 2 policies x 5 seeds = 8.33 min charged, on two cores"


def test_a_seed_that_did_not_finish_is_no_seed(write_runs: Callable[..., Path]) -> None:
    folder = write_runs(
        statuses={("efficient-lvsm.fill", 2): "diverged"}, flags={("lvsm-decoder-only.fill", 0): ["drift"]}
    )
    found = verdict(better(), folder)
    assert found.reason.startswith("4 of the 5 seeds")
    assert "1 of 10 runs flagged, 1 of 10 not finished" in found.shown


@pytest.mark.parametrize(
    ("margin", "status"), [(0.5, "not reproduced"), (2.0, "reproduced"), (1.0, "not testable here")]
)
def test_a_tie_needs_the_whole_interval_within_its_margin(
    write_runs: Callable[..., Path], margin: float, status: str
) -> None:
    assert verdict(better(expected={"within": [-margin, margin]}), write_runs()).status == status


@pytest.mark.parametrize(("quoted", "status"), [(1.0, "reproduced"), (2.5, "not reproduced")])
def test_a_quoted_value_must_lie_in_the_interval(write_runs: Callable[..., Path], quoted: float, status: str) -> None:
    assert verdict({**PAIR, "metric": "psnr"}, write_runs(), value=quoted, unit="dB").status == status


def test_a_quoted_value_in_an_interval_that_holds_no_difference_as_well_is_not_shown(
    write_runs: Callable[..., Path],
) -> None:
    found = verdict({**PAIR, "metric": "psnr"}, write_runs(arms=arms(17.0, 17.3), noise=1.0), value=0.3)
    assert found.status == "not testable here"


def test_what_an_arm_reaches_is_judged_by_its_own_seeds(write_runs: Callable[..., Path]) -> None:
    measure = {"kind": "reached", "comparison": "nvs", "arm": "efficient-lvsm", "metric": "psnr"}
    assert verdict({**measure, "expected": {"above": 17}}, write_runs()).status == "reproduced"
    assert verdict(measure, write_runs(), value=25.0).status == "not reproduced"


def test_equal_steps_are_read_off_the_curves(write_runs: Callable[..., Path]) -> None:
    """Both learn alike by time; the one with half the steps is ahead at its own end, where the other is half way."""
    slow = (FakeArm("lvsm-decoder-only", "fill", 17, 0.1, 200, 8), FakeArm("efficient-lvsm", "fill", 17, 0.1, 100, 8))
    folder = write_runs(arms=slow, noise=0.001)
    assert verdict(better(expected={"within": [-0.1, 0.1]}), folder).status == "reproduced"
    found = verdict(better(view="steps"), folder)
    assert found.status == "reproduced"
    assert "at equal steps" in found.shown


def test_curves_are_of_the_headline_alone(write_runs: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"a-claim: measure\.view: curves are of psnr alone"):
        verdict(better(metric="ssim", view="steps"), write_runs())


def test_arms_below_a_control_that_learns_nothing_mean_nothing(write_runs: Callable[..., Path]) -> None:
    """The depth warp reaches 16.2."""
    assert verdict(better(control="depth-warp"), write_runs()).status == "reproduced"
    found = verdict(better(control="depth-warp"), write_runs("cpu-2core/low", arms=arms(15.0, 18.0)))
    assert found.status == "not testable here"
    assert "lvsm-decoder-only (15" in found.reason
    assert "does not beat depth warp" in found.reason
    with pytest.raises(UserError, match=r"measure\.control: 'nobody'.*known: mean-colour, nearest-view, depth-warp"):
        verdict(better(control="nobody"), write_runs())


def test_a_gate_that_was_not_passed_decides_nothing(write_runs: Callable[..., Path]) -> None:
    from tests.report.fake_store import METRICS

    gate = {"metric": "psnr", "reference": "depth-warp", "margin": 5.0}
    task = {"name": "nvs", "options": {}, "metrics": METRICS, "gate": gate}
    found = verdict(better(), write_runs(comparison={"task": task}))
    assert found.status == "not testable here"
    assert found.reason.startswith("inconclusive: ")


def test_an_unknown_metric_names_claim_field_and_mend(write_runs: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"a-claim: measure\.metric: 'psnrr' .* it has: psnr, ssim, st_lpips"):
        verdict(better(metric="psnrr"), write_runs())


# ------------------------------------------------------------------------------------------------------- which folders


def test_a_scale_below_the_smallest_shows_what_it_has_and_decides_nothing(write_runs: Callable[..., Path]) -> None:
    found = verdict(better(), write_runs(), scale="small")
    assert found.status == "not testable here"
    assert "+1." in found.shown or "+0.9" in found.shown
    assert found.reason == "tiny is below small, the smallest scale for this claim"
    assert found.cost.endswith("= 10 min charged, on one GPU")


def test_the_largest_scale_counts(write_runs: Callable[..., Path]) -> None:
    tiny = write_runs()
    small = write_runs("h200/nvs-small", arms=arms(18.0, 17.0), comparison={"preset": "small"})
    found = verdict(better(), tiny, small)
    assert (found.status, found.folders) == ("not reproduced", ("h200/nvs-small",))


def test_a_smoke_run_at_a_larger_scale_does_not_hide_a_verdict(write_runs: Callable[..., Path]) -> None:
    tiny = write_runs()
    small = write_runs("h200/nvs-small", seeds=(0, 1), arms=arms(18.0, 17.0), comparison={"preset": "small"})
    found = verdict(better(), tiny, small)
    assert (found.status, found.folders) == ("reproduced", ("cpu-2core/nvs-tiny",))
    assert "not testable here by h200/nvs-small" in found.shown


def test_a_second_device_that_says_otherwise_is_told(write_runs: Callable[..., Path]) -> None:
    found = verdict(better(), write_runs("a/nvs-tiny"), write_runs("b/nvs-tiny", arms=arms(18.0, 17.0)))
    assert found.status == "reproduced"
    assert found.folders == ("a/nvs-tiny", "b/nvs-tiny")
    assert "not reproduced by b/nvs-tiny: efficient-lvsm - lvsm-decoder-only: PSNR (dB) -" in found.shown


def test_a_run_with_other_options_of_the_task_tests_another_claim(write_runs: Callable[..., Path]) -> None:
    options = {"data": "re10k", "data_path": "PATH/TO/re10k"}
    found = verdict(better(options=options), write_runs())
    assert (found.status, found.reason) == ("not testable here", "no such run is among the results")
    assert found.command.endswith("--set task.data=re10k --set task.data_path=PATH/TO/re10k")
    task = {"name": "nvs", "options": {"data": "re10k", "data_path": "elsewhere/re10k"}}
    folder = write_runs("cpu-2core/real")
    record = json.loads((folder / "comparison.json").read_text())
    (folder / "comparison.json").write_text(json.dumps(record | {"task": record["task"] | task}))
    assert verdict(better(options=options), folder).status == "reproduced"


def test_unfinished_comparisons_are_left_out(write_runs: Callable[..., Path]) -> None:
    assert verdict(better(), write_runs(status="running")).reason == "no such run is among the results"


def test_results_are_found_below_a_folder(write_runs: Callable[..., Path], tmp_path: Path) -> None:
    folders = [write_runs("a/nvs-tiny"), write_runs("b/nvs-tiny")]
    assert claims.expand([tmp_path]) == claims.expand([tmp_path / "a", *folders]) == folders
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no comparison\.json or efficiency\.json"):
        claims.expand([tmp_path / "empty"])


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


def row(label: str, views: int = 8, **changes: Any) -> dict[str, Any]:
    return {"label": label, "sizes": {"input_views": views}, **changes}


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


# --------------------------------------------------------------------------------------------------------------- reading


def write_ledger(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(list(entries)))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, r"a-claim: colour: unknown key; remove it"),
        ({"measure": better(colour="red")}, r"a-claim: measure\.paired\.colour: unknown key"),
        ({"measure": {"kind": "felt"}}, r"a-claim: measure: .*'paired'"),
        ({"measure": better(comparison="nvss")}, r"a-claim: measure\.comparison: 'nvss' is unknown; known: mae-"),
        ({"measure": better(arm="lvms")}, r"a-claim: measure: arm 'lvms' is none of nvs's at tiny: lvsm-decoder-only, "),
        ({"measure": better(expected={"above": 0, "below": 1})}, r"a-claim: measure\..*give one of above, below, within"),
        ({"measure": better(expected={"within": [1, 0]})}, r"a-claim: measure\..*within must ascend"),
        ({"measure": {**PAIR, "metric": "psnr"}}, r"a-claim: value: is missing, which the measure expects"),
        ({"measure": {"kind": "counted", "first": row("a"), "form": "ratio"}, "value": 1}, r"a-claim: measure\.counted: second: "),
        ({"measure": {"kind": "published-entry", "entry": "none"}}, r"a-claim: measure\.entry: 'none' is unknown"),
        ({"task": "vos"}, r"a-claim: task: is 'vos', nvs is of another one"),
        ({"scale": "huge"}, r"a-claim: scale: input should be 'tiny', 'small' or 'paper'"),
        ({"published": {"entry": "none"}}, r"a-claim: published\.entry: 'none' is unknown; known: cache-bytes"),
        ({"published": {"entry": "training-ratio", "key": "x"}}, r"a-claim: published\.key: 'x' is none of lvsm-decoder-only"),
        ({"says": None}, r"a-claim: says: input should be a valid string"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_id_field_and_mend(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = write_ledger(tmp_path / "claims.yaml", {**BASE, "measure": better(), **changes})
    with pytest.raises(UserError, match=said) as caught:
        read_claims(path)
    assert "\n" not in str(caught.value)


def test_two_claims_may_not_share_an_id(tmp_path: Path) -> None:
    path = write_ledger(tmp_path / "claims.yaml", *[{**BASE, "measure": better()}] * 2)
    with pytest.raises(UserError, match=r"a-claim: id: is taken by another claim"):
        read_claims(path)


@pytest.mark.parametrize("content", ["", "a: b", "- [", "- 1"])
def test_what_is_no_list_of_claims_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "claims.yaml").write_text(content)
    with pytest.raises(UserError, match=r"claims\.yaml: (cannot be read|must be a list|claim 1)"):
        read_claims(tmp_path / "claims.yaml")


def test_a_published_number_stands_once(tmp_path: Path) -> None:
    entry = {key: value for key, value in BASE.items() if key != "source"}
    measure = {"kind": "counted", "first": row("a")}
    published = {"entry": "training-ratio", "key": "lvsm-decoder-only"}
    (claim,) = read_claims(write_ledger(tmp_path / "c.yaml", {**entry, "published": published, "measure": measure}))
    assert (claim.value, claim.unit, claim.rounding) == (4.35, "ratio", 0.005)
    assert claim.source.startswith("[inferred] ")


@pytest.mark.parametrize("command", ["isochron train nvs", "isochron run nvs --sedes 5", "isochron run nvs --set task"])
def test_a_command_that_does_not_exist_is_refused(command: str) -> None:
    with pytest.raises(UserError):
        understand(command)
    assert cost("") == ""


# ------------------------------------------------------------------------------------------------------------- rendering


@pytest.fixture
def verdicts(write_runs: Callable[..., Path]) -> tuple[Verdict, ...]:
    untestable = {"kind": "untestable", "reason": "no | such data", "commands": ["isochron run nvs --seeds 5"]}
    asked = [
        a_claim(better()),
        a_claim(better(expected={"below": 0}), id="other", note="a * note"),
        a_claim(untestable, id="third", value=3.5, unit="dB", says="50 % & more", task="vos"),
    ]
    return judge(asked, [write_runs()])


def test_the_files_hold_every_verdict_and_are_the_same_twice(verdicts: tuple[Verdict, ...], tmp_path: Path) -> None:
    first, second = claims.write(verdicts, tmp_path / "one"), claims.write(verdicts, tmp_path / "two")
    assert [path.name for path in first] == ["claims.md", "claims.csv", "claims.tex"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    markdown, table, latex = (path.read_text() for path in first)
    assert "3 claims: 1 reproduced, 1 not reproduced, 1 not testable here." in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("| ") and "a-claim" in line]
    assert rows[0].startswith("| reproduced | One beats the other (a-claim) |")
    assert "- **other**: a \\* note" in markdown
    assert "- **third**: no \\| such data. `isochron run nvs --seeds 5`: 25 s x 2 arms" in markdown
    lines = list(csv.DictReader(table.splitlines()))
    assert [line["status"] for line in lines] == ["reproduced", "not reproduced", "not testable here"]
    assert float(lines[2]["value"]) == 3.5
    assert lines[0]["folders"] == "cpu-2core/nvs-tiny"
    assert r"50 \% \& more" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\bottomrule") == 2


def test_reading_the_results_changes_nothing_in_them(write_runs: Callable[..., Path]) -> None:
    folder = write_runs()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert verdict(better(), folder) == verdict(better(), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
