"""The A/A gate on a planted architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.experiment.helpers import PLAIN, TWIN, isochron, load, write_yaml


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_yaml(tmp_path / "a.yaml", [PLAIN, TWIN], eval_fractions=[1.0], seeds=2)


@pytest.mark.slow
def test_it_puts_one_arm_beside_itself_and_counts_how_often_it_differs(source: Path, tmp_path: Path) -> None:
    outcome = isochron(
        "aa", source, "--budget", "10 steps", "--repetitions", 2, "--arm", "twin", "--out", tmp_path / "aa", "--json"
    )
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found == load(tmp_path / "aa/aa.json")
    assert (found["arm"], found["seeds"], len(found["repetitions"])) == ("twin", 2, 2)
    for repetition in found["repetitions"]:
        assert repetition["low"] <= repetition["difference"] <= repetition["high"]
        assert repetition["ties"] == (repetition["low"] <= 0 <= repetition["high"])
    wrong = sum(not repetition["ties"] for repetition in found["repetitions"])
    assert found["false_positive_rate"] == wrong / 2
    seeds = [load(tmp_path / f"aa/repetition-0{number}/comparison.json")["seeds"] for number in (1, 2)]
    assert seeds == [[0, 1], [2, 3]], "fresh seeds each time"
    record = load(tmp_path / "aa/repetition-01/comparison.json")
    assert [arm["architecture"] for arm in record["arms"]] == ["tests.planted:Twin"] * 2


def test_wrong_requests(source: Path, tmp_path: Path) -> None:
    assert "needs at least 2 seeds" in isochron("aa", source, "--seeds", 1, "--out", tmp_path / "aa").line
    assert "--arm 'nobody': is none of plain, twin" in isochron("aa", source, "--arm", "nobody").line
    assert not (tmp_path / "aa").exists()


def test_stopping_it_is_said(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import cli

    monkeypatch.setattr(cli.running, "stop_on_signals", lambda: lambda: True)
    outcome = isochron("aa", source, "--out", tmp_path / "aa", "--quiet")
    assert outcome.code == 130
    assert "stopped after 0 of 5 repetitions" in outcome.line
