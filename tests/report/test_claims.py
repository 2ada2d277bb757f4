"""The verdicts on claims about trained arms: from made-up results whose truth is known, what is decided and what is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.report import claims
from bench.report.claims import Verdict
from bench.report.planning import plan
from tests.report.claim_cases import PAIR, arms, better, verdict, write_runs
from tests.report.fake_store import METRICS, FakeArm

__all__ = ["write_runs"]


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


def mended(found: Verdict) -> int:
    """Seeds that the reason asks for, and that the command runs."""
    told = re.search(r"; about (\d+) seeds would, by the scatter seen$", found.reason)
    assert told is not None, found.reason
    assert found.command == f"isochron run nvs --preset tiny --seeds {told[1]}"
    return int(told[1])


def needs(folder: Path, difference: float | None = None) -> tuple[float, int]:
    """The difference that a comparison shows, and the seeds that this or another one needs, as `isochron seeds` says."""
    (pair,) = (each for each in plan(folder, difference=difference).pairs if each.policy == "fill")
    assert pair.needed is not None
    return pair.difference, pair.needed


def test_what_cannot_tell_asks_for_the_seeds_that_the_scatter_needs(write_runs: Callable[..., Path]) -> None:
    folder = write_runs(arms=arms(17.0, 17.3), noise=1.0)
    difference, needed = needs(folder)
    found = verdict(better(), folder)
    assert mended(found) == needed
    assert found.cost.startswith(f"25 s x 2 arms x 2 policies x {needed} seeds = ")
    assert found.cost.endswith(" charged, on two cores")
    _, fewer = needs(folder, difference + 0.2)
    assert 5 < fewer < needed
    assert mended(verdict(better(expected={"above": -0.2}), folder)) == fewer


def test_a_tie_asks_for_the_seeds_to_the_nearer_end_of_its_margin(write_runs: Callable[..., Path]) -> None:
    folder = write_runs(arms=arms(17.0, 17.3), noise=1.0)
    difference, _ = needs(folder)
    _, needed = needs(folder, 0.6 - difference)
    assert mended(verdict(better(expected={"within": [-2.0, 0.6]}), folder)) == needed


def test_a_quoted_value_asks_for_the_seeds_that_rule_it_out_or_no_difference(write_runs: Callable[..., Path]) -> None:
    folder = write_runs(arms=arms(17.0, 17.3), noise=1.0)
    difference, _ = needs(folder)
    _, needed = needs(folder, 0.65 - difference)
    assert mended(verdict({**PAIR, "metric": "psnr"}, folder, value=0.7, digits=1)) == needed


def test_two_budgets_ask_for_seeds_of_both(write_runs: Callable[..., Path]) -> None:
    folders = [
        write_runs("cpu/full", arms=arms(17.0, 17.0), noise=1.0, **short_of(15.0)),
        write_runs("cpu/short", arms=arms(17.0, 17.3), noise=1.0, **short_of(10.0)),
    ]
    found = verdict(two_budgets(expected={"above": -0.1}), *folders)
    told = re.search(r"about (\d+) seeds would", found.reason)
    assert told is not None
    assert found.command.count(f"--seeds {told[1]}") == found.command.count("--seeds") == 2
    assert found.cost.count(f" {told[1]} seeds = ") == 2


def test_a_difference_that_needs_a_thousand_seeds_is_too_small_to_be_told(write_runs: Callable[..., Path]) -> None:
    folder = write_runs(arms=arms(17.0, 17.01), noise=1.0)
    difference = plan(folder).pairs[0].difference
    found = verdict(better(expected={"above": difference + 1e-4}), folder)
    assert found.reason.endswith(
        "; by the scatter seen more than 1,000 would have to: this difference is too small to be told"
    )
    assert found.command == found.cost == ""
    assert "too small to be told.\n" in claims.contents((found,))["claims.md"]


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


def two_budgets(**changes: Any) -> dict[str, Any]:
    run = "isochron run nvs --preset tiny --seeds 5 --budget {}s"
    return better(kind="two-budgets", share=0.6667, commands=[run.format(15), run.format(10)], **changes)


def short_of(seconds: float, **options: Any) -> dict[str, Any]:
    """A comparison of so many seconds."""
    return {"budget_s": seconds, "comparison": {"budget": {"amount": seconds, "unit": "seconds"}} | options}


def test_an_arm_of_two_thirds_of_the_budget_is_held_against_the_reference_of_all(
    write_runs: Callable[..., Path],
) -> None:
    full = write_runs("cpu/full", arms=arms(17.0, 18.0), **short_of(15.0))
    for ending, status in ((17.9, "reproduced"), (16.0, "not reproduced")):
        short = write_runs(f"cpu/short-{ending}", arms=arms(12.0, ending), **short_of(10.0))
        found = verdict(two_budgets(), full, short)
        assert found.status == status, found
        assert found.folders == ("cpu/full",)
        assert "tiny, 10 s against 15 s, 5 seeds" in found.shown


@pytest.mark.parametrize(
    "other",
    [
        short_of(9.0),
        short_of(10.0, task={"name": "nvs", "options": {"image_size": 32}, "metrics": METRICS}),
        short_of(10.0, device={"kind": "cpu", "name": "another"}),
        short_of(10.0, preset="small"),
        {**short_of(10.0), "training": {}, "arms": (FakeArm("efficient-lvsm", "fill", 18.0, 1.0, 100, 8),)},
    ],
    ids=["share", "task", "device", "preset", "arms"],
)
def test_two_budgets_that_differ_in_anything_else_test_nothing(
    write_runs: Callable[..., Path], other: dict[str, Any]
) -> None:
    full, short = write_runs("cpu/full", **short_of(15.0)), write_runs("cpu/short", **other)
    found = verdict(two_budgets(), full, short)
    assert (found.status, found.shown) == ("not testable here", "")
    assert found.command.count("isochron run nvs") == 2


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
    with pytest.raises(UserError, match=r"holds no comparison\.json, efficiency\.json or scaling\.json"):
        claims.expand([tmp_path / "empty"])
