"""Killed, stopped or out of disk at any moment: a run goes on to the same weights, and no table holds half of one."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.console import Console
from bench.engine.blocks import Interrupted
from bench.experiment import execute
from bench.report import tables
from bench.store import files
from bench.store.read import open_comparison
from tests.experiment import helpers
from tests.experiment.helpers import isochron, lines, load

pytestmark = pytest.mark.slow

ARMS = ("first", "second")


def finish(folder: Path, cache: Path) -> None:
    execute.reopen(folder, console=Console(quiet=True), cache_dir=cache).execute()


def steps_on_record(run: Path) -> int:
    path = run / "events.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def expect_no_half_run(folder: Path) -> None:
    """The table of an unfinished comparison says so first, and counts finished runs alone."""
    table = tables.build(open_comparison(folder))
    rows = [row for row in tables.csv_cells(table) if row["kind"] == "arm"]
    ended = sum(run.finished for run in open_comparison(folder).runs)
    assert table.banner == f"incomplete: {ended} of 2 runs finished; only those count below"
    assert sum(row["seeds_finished"] == "0" for row in rows) == 2 - ended
    for row in rows:
        if row["seeds_finished"] == "0":
            assert not any(row[key] for key in ("psnr", "ssim", "train_samples_per_s", "steps_mean", "psnr_difference"))


def expect_nothing_half_written(folder: Path) -> None:
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    assert not [path for path in folder.rglob("*.tmp") if not path.name.startswith(".")]


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_it_comes_to_the_same_weights(
    fresh: Path, tmp_path: Path, cache: Path, expected: dict[str, str], seed: int
) -> None:
    chance = random.Random(seed)
    killed = 0
    for number in range(3):
        watched, err = fresh / "runs" / chance.choice(ARMS) / "seed-0", tmp_path / f"err-{number}"
        with helpers.process("resume", fresh, "--quiet", cache=cache, err=err) as child:
            helpers.wait_for_steps(watched, 12 * number + chance.randrange(12), child)
            time.sleep(chance.uniform(0, 0.02))
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
            child.join()
            killed += child.exitcode == -signal.SIGKILL
        assert err.read_text() == ""
        expect_nothing_half_written(fresh)
        if load(fresh / "comparison.json")["status"] != "finished":
            expect_no_half_run(fresh)
            assert isochron("verify", fresh).code == 1
    assert killed, "no kill came in time"
    finish(fresh, cache)
    assert helpers.weights(fresh) == expected
    for arm in ARMS:
        run = fresh / "runs" / arm / "seed-0"
        outcome = load(run / "run.json")
        assert outcome["status"] == "finished"
        assert [event["step"] for event in lines(run / "events.jsonl")] == list(range(1, 41))
        assert [evaluation["fraction"] for evaluation in lines(run / "evals.jsonl")] == [0.5, 1.0]
        ledger = load(run / "ledger.json")
        assert ledger["valid"]
        if outcome["sessions"] == 1:
            assert ledger["categories"]["lost"] == 0
    assert not list(fresh.rglob("resume"))


def test_seconds_between_the_last_state_and_a_crash_are_lost_and_not_charged(fresh: Path, cache: Path) -> None:
    """A state at step 10 or so, a log that goes on beyond it: as a kill leaves them."""
    session = execute.reopen(fresh, console=Console(quiet=True), cache_dir=cache)
    session.stop_requested = lambda: steps_on_record(fresh / "runs/first/seed-0") >= 10
    with pytest.raises(Interrupted):
        session.execute()
    run = fresh / "runs/first/seed-0"
    events = lines(run / "events.jsonl")
    beyond = {**events[-1], "step": events[-1]["step"] + 1, "spent": events[-1]["spent"] + 0.25}
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps(beyond) + "\n" + '{"step": 12, "p"')
    finish(fresh, cache)
    ledger = load(run / "ledger.json")
    assert ledger["categories"]["lost"] == pytest.approx(0.25, abs=1e-3)
    assert ledger["valid"]
    assert lines(run / "events.jsonl")[-1]["spent"] == pytest.approx(ledger["charged"], rel=0.05)
    assert isochron("tables", fresh).code == 0
    assert isochron("verify", fresh).code == 0


def test_ctrl_c_saves_says_how_to_go_on_and_resume_completes(
    fresh: Path, cache: Path, repo_root: Path, expected: dict[str, str]
) -> None:
    environment = {**os.environ, "ISOCHRON_CACHE": str(cache), "PYTHONPATH": str(repo_root)}
    command = [sys.executable, "-m", "bench", "resume", str(fresh)]
    child = subprocess.Popen(
        command, cwd=repo_root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    watched = fresh / "runs/first/seed-0/events.jsonl"
    while child.poll() is None and time.monotonic() < deadline and not (watched.exists() and watched.stat().st_size):
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=300)
    assert child.returncode == 130, err
    assert err.strip().splitlines()[-1] == f"isochron: stopped and saved; go on with `isochron resume {fresh}`"
    assert "Traceback" not in err
    assert load(fresh / "comparison.json")["status"] == "stopped"
    assert {path.parents[2].name for path in fresh.glob("runs/*/seed-0/resume/state.json")} == set(ARMS)
    expect_no_half_run(fresh)
    assert "not finished" in isochron("publish", fresh, "--to", fresh / "published").line
    outcome = isochron("resume", fresh, "--json")
    assert outcome.code == 0, outcome.err
    printed = json.loads(outcome.out)
    assert printed["folder"] == str(fresh)
    assert [row["label"] for row in printed["table"]][:2] == list(ARMS)
    assert "first finished after 40 steps" in outcome.err, "what is said goes to standard error beside --json"
    assert helpers.weights(fresh) == expected
    assert all(load(fresh / f"runs/{arm}/seed-0/run.json")["sessions"] == 2 for arm in ARMS)
    assert isochron("verify", fresh).code == 0


@pytest.mark.parametrize("number", [0, 2, 6, 9, 14, 25])
def test_a_disk_that_is_full_when_files_are_flushed(
    fresh: Path, cache: Path, expected: dict[str, str], number: int
) -> None:
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        line = isochron("resume", fresh, "--quiet").line
    assert "the disk is full; free some space and go on: `isochron resume` on a comparison" in line
    expect_nothing_half_written(fresh)
    expect_no_half_run(fresh)
    finish(fresh, cache)
    assert helpers.weights(fresh) == expected


class _Full:
    """A file on a disk that takes `room` more writes, and half of the next one."""

    def __init__(self, file: Any, room: list[int]) -> None:
        self._file, self._room = file, room

    def write(self, content: bytes) -> int:
        self._room[0] -= 1
        if self._room[0] >= 0:
            return self._file.write(content)
        return self._file.write(content[: len(content) // 2]) if self._room[0] == -1 else 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [1, 30, 61])
def test_a_disk_that_is_full_when_a_step_is_logged(
    fresh: Path, cache: Path, expected: dict[str, str], room: int
) -> None:
    left = [room]
    build: Callable[..., None] = files.LineFile.__init__

    def on_a_small_disk(self: files.LineFile, *arguments: Any, **options: Any) -> None:
        build(self, *arguments, **options)
        self._file = _Full(self._file, left)  # type: ignore[assignment]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.LineFile, "__init__", on_a_small_disk)
        line = isochron("resume", fresh, "--quiet").line
    assert re.search(
        r"\.jsonl: the disk is full; free some space and go on: `isochron resume` on a comparison, the same command on other folders$",
        line,
    ), line
    expect_nothing_half_written(fresh)
    expect_no_half_run(fresh)
    finish(fresh, cache)
    assert helpers.weights(fresh) == expected


def test_tables_of_an_unfinished_comparison_say_so(fresh: Path) -> None:
    outcome = isochron("tables", fresh)
    assert outcome.code == 0, outcome.err
    assert "incomplete: 0 of 2 runs finished" in (fresh / "table.md").read_text()
    assert "not started" in outcome.out


def test_resume_with_other_code_is_refused(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "code_hash", lambda: "0" * 64)
    assert "was made by other code" in isochron("resume", fresh).line
    assert not (fresh / "runs").exists()


@pytest.mark.parametrize(
    ("noted", "says"),
    [
        ({"weights": {"plain": [{"name": "teacher", "sha256": "abc"}]}}, "other weights (plain: "),
        ({"data": {"train": "abc"}}, "other data (train: "),
    ],
)
def test_other_data_or_pretrained_weights_are_refused_and_nothing_is_lost(
    copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, noted: dict[str, Any], says: str
) -> None:
    from bench.tasks.nvs import NovelViewSynthesis

    folder = copy()
    found = {"train": "abd"} if "data" in noted else {}
    monkeypatch.setattr(NovelViewSynthesis, "fingerprints", lambda self: found, raising=False)
    files.write_json(folder / "pinned.json", noted)
    before = (folder / "comparison.json").read_bytes()
    line = isochron("extend", folder, "--seeds", 3).line
    assert says in line
    assert "restore them, or start a new comparison" in line
    assert (folder / "comparison.json").read_bytes() == before, "what was finished is finished"
    if found:
        assert says in isochron("replay", folder / "runs/plain/seed-0").line


def test_a_damaged_state_is_refused_and_says_what_to_do(fresh: Path, cache: Path) -> None:
    session = execute.reopen(fresh, console=Console(quiet=True), cache_dir=cache)
    session.stop_requested = lambda: steps_on_record(fresh / "runs/first/seed-0") >= 1
    with pytest.raises(Interrupted):
        session.execute()
    state = next(fresh.glob("runs/first/seed-0/resume/*.safetensors"))
    state.write_bytes(state.read_bytes()[:100])
    assert "the saved state is damaged" in isochron("resume", fresh, "--quiet").line


def test_resuming_what_is_finished_trains_nothing_more(copy: Callable[[], Path]) -> None:
    folder = copy()
    before = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
    events = {path: path.read_bytes() for path in folder.rglob("events.jsonl")}
    outcome = isochron("resume", folder, "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert {path: path.read_bytes() for path in folder.rglob("*.safetensors")} == before
    assert {path: path.read_bytes() for path in folder.rglob("events.jsonl")} == events
    assert isochron("verify", folder).code == 0


def test_extend_adds_blocks_and_leaves_the_others_alone(
    copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import console

    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.0)
    folder = copy()
    kept = {path: path.read_bytes() for path in folder.glob("runs/*/seed-*/*")}
    outcome = isochron("extend", folder, "--seeds", 3)
    assert outcome.code == 0, outcome.err
    assert {path: path.read_bytes() for path in kept} == kept
    assert load(folder / "comparison.json")["seeds"] == [0, 1, 2]
    assert load(folder / "runs/twin/seed-2/run.json")["status"] == "finished"
    assert "3/3" in (folder / "table.md").read_text()
    assert isochron("verify", folder).code == 0
    progress = [line for line in outcome.out.splitlines() if re.match(r"block 3/3 \(seed 2\): \d+ %, about", line)]
    assert progress, "plain lines where there is no terminal"
    assert re.search(r"(plain|twin)  step \d+  p [\d.]+  loss [\d.]+$", progress[-1]), progress[-1]
    assert "has 3 seeds already" in isochron("extend", folder, "--seeds", 3).line
