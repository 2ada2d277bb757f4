"""A timed run can be done again to the last bit, also when it was interrupted; a changed one is told apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.experiment.helpers import REAL, isochron, load


@pytest.mark.slow
@pytest.mark.parametrize("arm", REAL)
def test_a_timed_run_that_was_resumed_replays_bit_for_bit(real: Path, arm: str) -> None:
    run = real / "runs" / arm / "seed-0"
    assert load(run / "run.json")["sessions"] == 2
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    outcome = isochron("replay", run)
    assert outcome.code == 0, outcome.err
    assert f"identical: {load(run / 'run.json')['steps']} steps gave the same weights to the last bit" in outcome.out
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before, "a replay changes nothing"


def test_a_run_of_the_planted_arm_replays_quietly(finished: Path) -> None:
    outcome = isochron("replay", finished / "runs/twin/seed-1", "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def _flip_a_bit(run: Path) -> None:
    content = bytearray((run / "checkpoint.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "checkpoint.safetensors").write_bytes(bytes(content))


def _other_seed(run: Path) -> None:
    record = load(run / "run.json")
    (run / "run.json").write_text(json.dumps({**record, "seed": record["seed"] + 7}))


def _other_progress(run: Path) -> None:
    text = (run / "events.jsonl").read_text().splitlines()
    event = json.loads(text[4])
    text[4] = json.dumps({**event, "p": event["p"] + 0.05})
    (run / "events.jsonl").write_text("\n".join(text) + "\n")


@pytest.mark.parametrize("change", [_flip_a_bit, _other_seed, _other_progress])
def test_a_run_that_was_changed_is_told_apart(copy: Callable[[], Path], change: Callable[[Path], None]) -> None:
    run = copy() / "runs/plain/seed-0"
    change(run)
    assert "gave other weights" in isochron("replay", run, "--quiet").line


def test_only_a_finished_run_is_replayed(copy: Callable[[], Path], tmp_path: Path) -> None:
    run = copy() / "runs/plain/seed-0"
    (run / "run.json").write_text(json.dumps({**load(run / "run.json"), "status": "diverged"}))
    assert "the run is diverged, not finished" in isochron("replay", run).line
    assert "holds no run.json" in isochron("replay", tmp_path).line
