"""The learning-rate search: the same for every arm, stored beside the result, and used by the runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import UserError
from bench.experiment import execute, tune
from tests.experiment.helpers import PLAIN, TWIN, Console, isochron, lines, load, start

RATES = [1e-7, 3e-3]


@pytest.fixture(scope="module")
def steps() -> list[float]:
    """Seconds of every step of the search."""
    return []


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, cache: Path, steps: list[float]) -> Path:
    event = tune._Memory.event

    def kept(self: tune._Memory, record: Mapping[str, Any]) -> None:
        steps.append(record["seconds"])
        event(self, record)

    folder = tmp_path_factory.mktemp("tuned") / "result"
    training = {"tune": {"candidates": RATES, "budget": "300ms"}, "warmup": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune._Memory, "event", kept)
        start(folder, cache, [PLAIN, TWIN], training=training).execute()
    return folder


@pytest.mark.slow
def test_every_arm_tries_the_same_rates_for_the_same_seconds(tuned: Path, steps: list[float]) -> None:
    trials = load(tuned / "tuning.json")["trials"]
    assert [(trial["arm"], trial["learning_rate"]) for trial in trials] == [
        (arm, rate) for arm in ("plain", "twin") for rate in RATES
    ]
    # To a step, however long a busy machine makes one.
    assert all(abs(trial["seconds"] - 0.3) < 2 * max(steps) for trial in trials), (trials, max(steps))
    spent = {arm: sum(trial["seconds"] for trial in trials if trial["arm"] == arm) for arm in ("plain", "twin")}
    assert load(tuned / "comparison.json")["tuning"]["seconds_per_arm"] == spent


def test_the_better_rate_is_chosen_and_used(tuned: Path) -> None:
    assert load(tuned / "comparison.json")["tuning"]["choices"] == {"plain": 3e-3, "twin": 3e-3}
    for arm in ("plain", "twin"):
        rate = load(tuned / f"arms/{arm}.json")["learning_rate"]
        assert rate["base"] == 3e-3
        assert rate["value"] == pytest.approx(3e-3 * (2 / 16) ** 0.5), "square-root rule: batch 2 against 16"
        run = tuned / f"runs/{arm}/seed-0"
        assert max(event["lr"] for event in lines(run / "events.jsonl")) == pytest.approx(rate["value"], rel=0.02)
        kept = yaml.safe_load((run / "config.yaml").read_text())
        assert kept["arms"][0]["training"]["learning_rate"] == 3e-3
        assert isochron("replay", run).code == 0


def test_a_budget_below_one_step_is_an_error(tmp_path: Path, cache: Path) -> None:
    slow = {"name": "slow", "factory": "tests.planted:Sleeper", "options": {"seconds": 0.01}}
    session = start(tmp_path / "result", cache, [slow], training={"tune": {"candidates": RATES, "budget": "1ms"}})
    with pytest.raises(UserError, match=r"training.tune.budget: 0.001 s is less than a step of slow; give it more"):
        session.execute()
    assert not list(tmp_path.rglob("events.jsonl"))


def test_its_cost_stands_in_the_table(tuned: Path) -> None:
    outcome = isochron("tables", tuned)
    assert outcome.code == 0, outcome.err
    said = next(line for line in outcome.out.splitlines() if "same tuning seconds" in line)
    assert all(f"({arm})" in said for arm in ("plain", "twin")), said


def test_going_on_does_not_search_again(tuned: Path, cache: Path) -> None:
    before = (tuned / "tuning.json").read_bytes()
    session = execute.reopen(tuned, console=Console(quiet=True), cache_dir=cache)
    session.execute()
    assert (tuned / "tuning.json").read_bytes() == before
    assert {arm.training.learning_rate for arm in session.arms} == {3e-3}
