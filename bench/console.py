"""What the command shows while it works: bars on a terminal, plain lines elsewhere, nothing when asked to be quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Update = Callable[[float, str], None]
"""``update(done, note)``: how much of the total is done, and a few words."""

PLAIN_INTERVAL = 5.0
"""Seconds between two plain progress lines."""


class Console:
    """Says lines and shows progress; keeps a copy of every line in a log file once it has one."""

    def __init__(self, *, quiet: bool = False, stderr: bool = False, terminal: bool | None = None) -> None:
        """Be silent if `quiet`; write to standard error if `stderr` (so that standard output holds the result alone)."""
        self._quiet = quiet
        self._rich = RichConsole(stderr=stderr, force_terminal=terminal, highlight=False, emoji=False, soft_wrap=True)
        self._log: Path | None = None

    def log_to(self, path: Path | None) -> None:
        """Copy everything that is said from now on to the end of `path`, or to no file."""
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._log = path

    def say(self, text: str) -> None:
        """One line (or a few) for people."""
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + text + "\n")
        if not self._quiet:
            self._rich.print(text, markup=False)

    @contextmanager
    def progress(self, title: str, total: float) -> Iterator[Update]:
        """A bar over the body, or plain lines where the output is no terminal."""
        if self._quiet:
            yield lambda done, note: None
        elif self._rich.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=self._rich, transient=True, refresh_per_second=4) as bar:
                task = bar.add_task(title, total=total, note="")
                yield lambda done, note: bar.update(task, completed=done, note=note)
        else:
            started = shown = time.monotonic()

            def update(done: float, note: str) -> None:
                nonlocal shown
                now = time.monotonic()
                if now - shown >= PLAIN_INTERVAL:
                    shown = now
                    left = (now - started) * (total - done) / done if done > 0 else 0.0
                    self._rich.print(
                        f"{title}: {100 * done / total:.0f} %, about {left:.0f} s left  {note}", markup=False
                    )

            yield update

    @contextmanager
    def counting(self) -> Iterator[Callable[[str, int, int], None]]:
        """Progress of work that names its parts: yields ``report(label, done, total)``; one bar a label."""
        with ExitStack() as stack:
            bars: dict[str, Update] = {}

            def report(label: str, done: int, total: int) -> None:
                if label not in bars:
                    stack.close()
                    bars[label] = stack.enter_context(self.progress(label, float(max(total, 1))))
                bars[label](done, f"{done}/{total}")

            yield report
