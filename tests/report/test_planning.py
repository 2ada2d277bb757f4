"""How many seeds a comparison needs: numbers against bench/stats on planted stores, and how they are told."""

import json
import math

import numpy as np
import pytest

from bench import stats
from bench.errors import UserError
from bench.report import planning
from bench.store.provenance import code_hash
from tests.report.fake_store import FakeArm

ARMS = (
    FakeArm("plain", "fill", ceiling=17.0, rate=1.0, steps=60, batch=8),
    FakeArm("dual", "fill", ceiling=17.4, rate=1.0, steps=64, batch=8),
    FakeArm("third", "fill", ceiling=17.1, rate=1.0, steps=64, batch=8),
)


@pytest.fixture
def planted(make_store):
    """Three arms, five seeds, differences of a few tenths of a dB."""
    return make_store(arms=ARMS, reference="plain", seeds=(0, 1, 2, 3, 4), noise=0.4)


def differences(comparison, arm: str, reference: str) -> list[float]:
    """From the records, by hand: the mean PSNR over samples of one run minus that of the other."""

    def final(label: str, seed: int) -> float:
        path = comparison.folder / "runs" / f"{label}.fill" / f"seed-{seed}" / "evals.jsonl"
        last = json.loads(path.read_text().splitlines()[-1])
        return float(np.mean([record["psnr"] for record in last["records"]]))

    return [final(arm, seed) - final(reference, seed) for seed in comparison.record.seeds]


def test_each_pair_with_the_reference_is_planned_from_its_own_scatter(planted):
    found = planning.plan(planted.folder, difference=0.3)
    assert [(pair.arm, pair.reference) for pair in found.pairs] == [("dual", "plain"), ("third", "plain")]
    for pair in found.pairs:
        own = differences(planted, pair.arm, "plain")
        scatter = float(np.std(own, ddof=1))
        assert (pair.seeds, pair.asked) == (5, 0.3)
        assert (pair.difference, pair.scatter) == pytest.approx((np.mean(own), scatter))
        assert pair.scatter_interval == pytest.approx(stats.scatter_interval(own).interval)
        assert pair.needed == stats.seeds_needed(scatter, 0.3)
        assert (pair.needed_low, pair.needed_high) == tuple(
            stats.seeds_needed(end, 0.3) for end in pair.scatter_interval
        )
        assert pair.needed_holm == stats.seeds_needed(scatter, 0.3, alpha=0.025) > pair.needed
        assert pair.detectable[5] == pytest.approx(stats.detectable_difference(own))


def test_the_observed_difference_is_the_default_and_more_power_takes_more_seeds(planted):
    found = planning.plan(planted.folder)
    assert [pair.asked for pair in found.pairs] == [abs(pair.difference) for pair in found.pairs]
    surer = planning.plan(planted.folder, power=0.95)
    assert all(a.needed < b.needed for a, b in zip(found.pairs, surer.pairs, strict=True))


def test_a_pair_may_be_named_and_is_then_no_family(planted):
    (pair,) = planning.plan(planted.folder, arms=("third", "dual")).pairs
    assert pair.difference == pytest.approx(np.mean(differences(planted, "third", "dual")))
    assert pair.needed_holm == pair.needed


def test_another_metric_may_be_named(planted):
    found = planning.plan(planted.folder, metric="st_lpips", difference=0.01)
    assert found.metric.name == "st_lpips"
    assert found.pairs[0].scatter == pytest.approx(np.std(differences(planted, "dual", "plain"), ddof=1) / 30, rel=1e-6)


def test_what_it_costs_is_budget_by_arms_by_missing_seeds(planted):
    found = planning.plan(planted.folder, difference=0.1, arms=("dual", "plain"))
    (pair,) = found.pairs
    assert pair.needed > 5
    assert found.extra_s(pair.needed) == 25.0 * 3 * pair.needed
    shown = planning.render(found, observed=False)
    pairs = f"{pair.arm} - {pair.reference}, {pair.policy}"
    anew = f"isochron run {planted.folder}/comparison.yaml --seeds {pair.needed}"
    assert shown.endswith(f"\n    {anew}  # enough for {pairs}\n")
    assert "More charged time: all seeds x 3 arms x 25.0 s" in shown
    assert "Other code made these runs" in shown
    (row,) = planning.to_json(found)["pairs"]
    assert (row["more_charged_s"], row["needed"]) == (found.extra_s(pair.needed), pair.needed)
    assert json.loads(json.dumps(planning.to_json(found), allow_nan=False))["pairs"][0]["command"] in shown


def test_the_code_that_made_a_comparison_adds_the_missing_seeds_alone(planted):
    (planted.folder / "provenance").mkdir(exist_ok=True)
    (planted.folder / "provenance" / "git.json").write_text(json.dumps({"code_sha256": code_hash()}))
    found = planning.plan(planted.folder, difference=0.1, arms=("dual", "plain"))
    (pair,) = found.pairs
    assert found.extra_s(pair.needed) == 25.0 * 3 * (pair.needed - 5)
    shown = planning.render(found, observed=False)
    assert f"\n    isochron extend {planted.folder} --seeds {pair.needed}  # enough for " in shown
    assert "More charged time: missing seeds x 3 arms x 25.0 s" in shown
    assert "Other code" not in shown


def test_enough_seeds_take_no_more_and_no_command(planted):
    found = planning.plan(planted.folder, difference=50.0)
    shown = planning.render(found, observed=False)
    assert all(pair.needed <= 5 for pair in found.pairs)
    assert "--seeds" not in shown
    assert shown.count("| none |") == 2
    assert planning.to_json(found)["pairs"][0]["command"] == ""


def test_it_says_what_is_corrected_and_that_an_observed_difference_is_a_guess(planted):
    shown = planning.render(planning.plan(planted.folder), observed=True)
    assert "each pair by itself" in shown
    assert "5 % / 2" in shown
    assert "--difference" in shown
    assert "believe the range in brackets" in shown
    rows = [line for line in shown.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in rows}) == 1
    assert "with Holm" not in planning.render(planning.plan(planted.folder, arms=("dual", "plain")), observed=True)


def test_seeds_without_scatter_and_without_a_difference(make_store):
    """Two equal arms: nothing to find, however many seeds."""
    comparison = make_store(arms=(ARMS[0], FakeArm("plain-2", "fill", 17.0, 1.0, 60, 8)), reference="plain", noise=0.0)
    (pair,) = planning.plan(comparison.folder, difference=1e-9).pairs
    assert pair.needed is None
    assert "> 1,000,000" in planning.render(planning.plan(comparison.folder, difference=1e-9), observed=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "fid"}, "metric 'fid' is not measured; choose one of psnr, ssim, st_lpips"),
        ({"difference": 0.0}, "difference must be a number other than 0"),
        ({"difference": math.nan}, "difference must be a number other than 0"),
        ({"power": 1.0}, "power must lie between 0.05 and 1, got 1"),
        ({"arms": ("dual", "other")}, "there is no 'other'; choose two of dual, plain, third"),
        ({"arms": ("dual", "dual")}, "arms must be two different ones"),
    ],
)
def test_what_cannot_be_planned_is_refused(planted, options, said):
    with pytest.raises(UserError, match=said):
        planning.plan(planted.folder, **options)


def test_one_seed_has_no_scatter_to_plan_with(make_store):
    with pytest.raises(UserError, match="no pair has two finished seeds in common"):
        planning.plan(make_store(arms=ARMS, reference="plain", seeds=(0,)).folder)
