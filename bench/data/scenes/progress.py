"""A progress callback for the console: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

LINE_EVERY_SECONDS = 10.0


@contextmanager
def console_progress(stream: TextIO | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Yield `progress(label, done, total)` that writes to `stream` (default: standard error)."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield _plain(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done)

        yield show


def _plain(stream: TextIO) -> Callable[[str, int, int], None]:
    """Print the first and the last report of each label, and at most one in ten seconds between them."""
    last: dict[str, float] = {}

    def show(label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if label not in last or done == total or now - last[label] >= LINE_EVERY_SECONDS:
            print(f"{label}: {done}/{total}", file=stream, flush=True)
            last[label] = now

    return show
