"""Arms may start from common weights: trained once, in steps, charged to none, kept, and named under the table."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bench.console import Console
from bench.engine.blocks import Interrupted
from bench.errors import UserError
from bench.experiment import execute, pretraining
from bench.report import tables
from bench.report.fairness import checklist
from bench.report.summary import summarise
from bench.store.read import open_comparison
from tests.experiment.helpers import PLAIN, TWIN, isochron, load, start, train

PRETRAINING = {"arm": {**PLAIN, "name": "trunk"}, "steps": 12, "batch": 4}
QUICK: dict[str, Any] = {"pretraining": PRETRAINING, "budget": "1 steps", "batch": ["fixed:2"], "eval_fractions": [1.0]}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, cache: Path, repo_root: Path) -> Path:
    """A comparison that begins with pretraining; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo_root)
        return train(tmp_path_factory.mktemp("pretrained") / "result", cache, **QUICK)


def test_every_arm_starts_from_the_pretrained_weights(started: Path, cache: Path) -> None:
    session = execute.reopen(started, console=Console(quiet=True), cache_dir=cache)
    session.initial = pretraining.find_or_train(session)
    common = load_file(started / "pretraining" / pretraining.CHECKPOINT)
    for arm in session.arms:
        begun = session._start(arm).state_dict()
        assert all(torch.equal(begun[name], common[name]) for name in common)
    assert load(started / "pretraining" / "run.json")["steps"] == 12


def test_the_table_says_so_and_the_checklist_asks_whether_all_did(started: Path) -> None:
    comparison = open_comparison(started)
    told = [line for line in tables.build(comparison).caption if line.startswith("Arms start from common weights")]
    assert len(told) == 1
    assert "pretraining of trunk, 12 steps of 4 samples" in told[0]
    assert "charged to none): plain, twin." in told[0]
    summary = summarise(comparison)
    check = next(check for check in checklist(comparison, summary.arms) if check.name.startswith("pretrained"))
    assert check.passed
    assert all(run.facts.steps == 1 for run in comparison.runs)


def test_the_seconds_are_nobodys(started: Path) -> None:
    for path in started.glob("runs/*/seed-0/ledger.json"):
        ledger = load(path)
        assert ledger["charged"] < load(started / "pretraining/ledger.json")["wall"] + ledger["categories"]["setup"]
        assert ledger["valid"]


def test_a_replay_begins_with_the_same_weights(started: Path) -> None:
    outcome = isochron("replay", started / "runs/plain/seed-0")
    assert outcome.code == 0, outcome.err
    assert "gave the same weights to the last bit" in outcome.out


def test_weights_are_kept_and_found_again(started: Path, cache: Path, tmp_path: Path) -> None:
    (cached,) = (path for path in (cache / pretraining.FOLDER).iterdir() if path.is_dir())
    before = (cached / pretraining.CHECKPOINT).stat().st_mtime_ns
    session = start(tmp_path / "again", cache, **QUICK)
    session.task.prepare()
    pretraining.find_or_train(session)
    assert (cached / pretraining.CHECKPOINT).stat().st_mtime_ns == before
    other = start(tmp_path / "other", cache, **{**QUICK, "pretraining": {**PRETRAINING, "seed": 3}})
    assert pretraining._key(other, other.task) != pretraining._key(session, session.task), (
        "what they depend on is in the key"
    )


def test_damaged_weights_in_the_cache_are_made_anew(tmp_path: Path) -> None:
    cache, asked = tmp_path / "cache", {**QUICK, "pretraining": {**PRETRAINING, "steps": 2}}
    first = pretraining.find_or_train(start(tmp_path / "first", cache, **asked))
    (cached,) = (path for path in (cache / pretraining.FOLDER).iterdir() if path.is_dir())
    whole = (cached / pretraining.CHECKPOINT).read_bytes()
    (cached / pretraining.CHECKPOINT).write_bytes(whole[:-8])
    again = pretraining.find_or_train(start(tmp_path / "again", cache, **asked))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert (cached / pretraining.CHECKPOINT).read_bytes() == whole, "and the cache is whole again"


def test_options_of_the_task_may_differ_meanwhile(tmp_path: Path, cache: Path) -> None:
    shorter = {**PRETRAINING, "steps": 2, "task": {"train_scenes": 1}}
    session = start(tmp_path / "result", cache, **{**QUICK, "pretraining": shorter})
    assert pretraining.find_or_train(session)
    kept = (tmp_path / "result/pretraining/config.yaml").read_text()
    assert "train_scenes: 1" in kept
    with pytest.raises(UserError, match=r"pretraining.task.train_scene: unknown option"):
        start(tmp_path / "wrong", cache, **{**QUICK, "pretraining": {**shorter, "task": {"train_scene": 1}}})


def test_an_interrupted_pretraining_goes_on(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {**PRETRAINING, "seed": 5}
    whole = start(tmp_path / "whole", tmp_path / "no-cache", **{**QUICK, "pretraining": asked})
    whole.task.prepare()
    expected = pretraining.find_or_train(whole)
    session = start(tmp_path / "stopped", cache, **{**QUICK, "pretraining": asked})
    session.task.prepare()
    events = tmp_path / "stopped/pretraining/events.jsonl"
    session.stop_requested = lambda: events.exists() and events.read_bytes().count(b"\n") >= 5
    with pytest.raises(Interrupted):
        pretraining.find_or_train(session)
    assert not (tmp_path / "stopped/pretraining/run.json").read_text().count("finished")
    session.stop_requested = lambda: False
    weights = pretraining.find_or_train(session)
    assert load(tmp_path / "stopped/pretraining/run.json")["sessions"] == 2
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_damaged_file_is_told(started: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(started, tmp_path / "copy")
    path = tmp_path / "copy/pretraining" / pretraining.CHECKPOINT
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    session = execute.reopen(tmp_path / "copy", console=Console(quiet=True), cache_dir=cache)
    with pytest.raises(UserError, match="was changed after it was written; delete"):
        pretraining.find_or_train(session)


def test_only_what_has_name_and_shape_is_taken_over() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    weights = {"0.weight": torch.ones(3, 2), "1.weight": torch.ones(4, 4), "2.weight": torch.ones(1)}
    assert pretraining.adopt(module, weights) == ["0.bias", "1.weight", "1.bias"]
    assert bool((module[0].weight == 1).all())


def test_an_arm_with_nothing_in_common_is_refused(cache: Path, tmp_path: Path) -> None:
    arms = [PLAIN, {"name": "other", "factory": "tests.experiment.test_pretraining:Other"}]
    session = start(tmp_path / "result", cache, arms, **QUICK)
    with pytest.raises(UserError, match=r"pretraining\.arm: trunk and arms\.other share no weight"):
        session.execute()


class Other(nn.Module):
    """Has no weight in common with the planted nets."""

    def __init__(self) -> None:
        super().__init__()
        self.stranger = nn.Linear(1, 1)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"steps": 0}, "pretraining.steps: input should be greater than or equal to 1, got 0"),
        ({"stps": 3}, "pretraining.stps: unknown key; remove it or mend its spelling"),
        ({"arm": {**TWIN, "training": {"tune": {"candidates": [1.0]}}}}, "the search is the same for all arms"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, cache: Path, wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line.replace("(", r"\(")):
        start(tmp_path / "result", cache, **{**QUICK, "pretraining": {**PRETRAINING, **wrong}})


def test_errors_of_options_that_pretraining_changes_name_them(cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    asked = {**QUICK, "pretraining": {**PRETRAINING, "task": {"train_scenes": 2}}}
    session = start(tmp_path / "result", cache, **asked)
    for line, told in (
        ("task.train_scenes must be 9", "pretraining.task.train_scenes must be 9"),
        ("task.data_path: gone", "task.data_path: gone"),
    ):

        def prepare(*_: object, line: str = line) -> None:
            raise UserError(line)

        monkeypatch.setattr(type(session.task), "prepare", prepare)
        with pytest.raises(UserError) as error:
            pretraining.find_or_train(session)
        assert str(error.value) == told
