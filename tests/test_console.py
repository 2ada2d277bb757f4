from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import console
from bench.console import Console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in its only element."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_lines_are_said_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = "arms [0.1, 0.25] of a very long line " * 8 + "with [red]brackets[/red] and :smile:"
    Console().say(text)
    assert capsys.readouterr().out == text + "\n", "no markup, no colours, no folding"


def test_quiet_says_nothing_but_logs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    quiet.log_to(tmp_path / "run" / "log.txt")
    quiet.say("one")
    with quiet.progress("block 1/3", total=2.0) as update:
        update(1.0, "note")
    assert capsys.readouterr() == ("", "")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ one\n", log)


def test_the_log_is_added_to(tmp_path: Path) -> None:
    for text in ("first", "second"):
        one = Console(quiet=True)
        one.log_to(tmp_path / "log.txt")
        one.say(text)
    assert [line.split(" ", 1)[1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["first", "second"]


def test_results_stand_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    Console(stderr=True).say("on its way")
    assert capsys.readouterr() == ("", "on its way\n")


def test_plain_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with Console(terminal=False).progress("block 1/3", total=4.0) as update:
        for _ in range(100):
            clock[0] += 0.1
            update(1.0, "step 7  loss 0.5")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) in (1, 2)
    assert lines[0].startswith("block 1/3: 25 %, about 15 s left  step 7  loss 0.5")


def test_plain_progress_that_has_not_begun(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with Console(terminal=False).progress("block", total=4.0) as update:
        clock[0] += 60.0
        update(0.0, "")
    assert "0 %" in capsys.readouterr().out


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(terminal=True).progress("block 1/3", total=4.0) as update:
        update(1.0, "step 7")
    out = capsys.readouterr().out
    assert "block 1/3" in out
    assert "\x1b[" in out


@pytest.mark.parametrize("terminal", [True, False])
def test_counting_shows_one_bar_after_the_other(
    capsys: pytest.CaptureFixture[str], clock: list[float], terminal: bool
) -> None:
    with Console(terminal=terminal).counting() as report:
        for label in ("rendering train", "rendering test"):
            for done in range(3):
                clock[0] += 6.0
                report(label, done, 2)
    out = capsys.readouterr().out
    assert "rendering train" in out
    assert "rendering test" in out
    if not terminal:
        assert "rendering train: 50 %" in out
        assert "2/2" in out


def test_counting_nothing_is_no_error() -> None:
    with Console(quiet=True).counting() as report:
        report("nothing to do", 0, 0)
