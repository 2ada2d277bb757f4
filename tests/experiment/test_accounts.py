"""Where the seconds and the bytes went, in real runs of the real architectures."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.engine.ledger import CATEGORIES, CHARGED
from tests.experiment.helpers import REAL, isochron, lines, load

pytestmark = pytest.mark.slow


def every_run(*folders: Path) -> list[Path]:
    return [path.parent for folder in folders for path in folder.glob("runs/*/seed-*/run.json")]


def test_every_ledger_balances_and_holds_every_category(real: Path, finished: Path) -> None:
    runs = every_run(real, finished)
    assert len(runs) == 6
    for run in runs:
        ledger = load(run / "ledger.json")
        assert tuple(ledger["categories"]) == CATEGORIES
        assert all(seconds >= 0 for seconds in ledger["categories"].values()), ledger
        assert ledger["accounted"] == pytest.approx(sum(ledger["categories"].values()))
        assert ledger["charged"] == pytest.approx(sum(ledger["categories"][name] for name in CHARGED))
        assert abs(ledger["accounted"] - ledger["wall"]) <= 0.005 * ledger["wall"], ledger
        assert ledger["valid"] is True
        for name in ("setup", "probe", "eval", "checkpoint", "warmup", "sentinel", "switch"):
            assert ledger["categories"][name] > 0, (run, name)


def test_the_engine_itself_costs_next_to_nothing(real: Path) -> None:
    """The quieter of the two runs counts: a busy machine may interrupt either."""
    shares = []
    for run in every_run(real):
        ledger = load(run / "ledger.json")
        shares.append((ledger["categories"]["log"] + ledger["categories"]["ema"]) / ledger["charged"])
    assert min(shares) <= 0.01, shares


def test_the_budget_is_kept_to_half_a_step(real: Path) -> None:
    for run in every_run(real):
        outcome, events = load(run / "run.json"), lines(run / "events.jsonl")
        assert outcome["budget_s"] == 1.5
        assert outcome["spent_s"] == pytest.approx(events[-1]["spent"], rel=0.01)
        assert outcome["overshoot_s"] <= outcome["overshoot_bound_s"] + 1e-9
        assert outcome["spent_s"] > 1.5 - max(event["seconds"] for event in events)
        positions = [event["p"] for event in events]
        assert positions == sorted(positions)
        assert 0 <= positions[0] < positions[-1] <= 1


def test_the_learning_rate_follows_time_down_to_zero(real: Path) -> None:
    for run in every_run(real):
        events = lines(run / "events.jsonl")
        rates = [event["lr"] for event in events]
        assert rates[-1] < 0.2 * max(rates), "annealed"
        assert max(rates) <= load(run.parents[2] / f"arms/{run.parent.name}.json")["learning_rate"]["value"] * (
            1 + 1e-9
        )


@pytest.mark.parametrize("arm", REAL)
def test_the_memory_is_filled_and_the_batch_trains(real: Path, arm: str) -> None:
    batch = load(real / f"arms/{arm}.json")["batch"]
    probes = {point["batch"]: point for point in batch["curve"]}
    chosen = batch["micro_batch"]
    assert len(probes) <= 6
    assert batch["limit_bytes"] == 96 * 2**20
    assert probes[chosen]["fits"]
    assert probes[chosen]["peak_bytes"] <= batch["limit_bytes"]
    next_one = probes.get(chosen + 1)
    assert batch["memory_filled"] >= 0.9 or (next_one is not None and not next_one["fits"]), batch
    run = load(real / f"runs/{arm}/seed-0/run.json")
    assert (run["status"], run["optimizer_batch"]) == ("finished", chosen)
    assert run["samples"] == run["steps"] * chosen


@pytest.mark.parametrize("arm", REAL)
def test_the_three_counts_of_flops_agree(real: Path, arm: str) -> None:
    flops = load(real / f"arms/{arm}.json")["flops"]
    counters = flops["counters"]
    assert set(counters) == {"torch", "fvcore", "closed_form"}
    assert max(counters.values()) <= 1.01 * min(counters.values())
    assert flops["training_per_sample"] > 2 * flops["forward_per_sample"]
    assert "2 FLOPs per multiply-add" in flops["convention"]


def test_few_steps_are_said(real: Path) -> None:
    few = [load(run / "run.json") for run in every_run(real)]
    assert all(run["steps"] < 50 for run in few), "or choose a shorter budget here"
    assert all(any("fewer than 50" in flag for flag in run["flags"]) for run in few)


def test_a_real_result_verifies_and_has_a_table(real: Path) -> None:
    outcome = isochron("tables", real)
    assert outcome.code == 0, outcome.err
    assert "fewer than 50 in seed 0" in outcome.out
    assert isochron("verify", real).code == 0


def test_a_fixed_batch_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    from tests.experiment.helpers import TASK, write_yaml

    arms = [{"name": name, "architecture": name} for name in REAL]
    task = {**TASK, "train_scenes": 32}
    source = write_yaml(tmp_path / "a.yaml", arms, batch=["fixed:31"], cpu_memory="96MiB", task=task)
    line = isochron("run", source, "--quiet", "--out", tmp_path / "result").line
    assert "batch policy fixed:31: 31 samples need about" in line
    assert not list((tmp_path / "result").rglob("events.jsonl"))
